"""A trained detector as a folder: `weights.safetensors` and, in words, `detector.json`.

The folder is all that inference needs: text features are a buffer of the detector and are stored;
the semantic branch and the label embedding, which only serve training, are not.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from richsem import foreign
from richsem.config import read_kept, to_dict
from richsem.models import weight_files
from richsem.models.clip import digest
from richsem.models.weight_files import CheckpointError, State, first_of, fits, mismatches
from richsem.paths import write_atomic
from richsem.provenance import code_version, dumps, without_machine_paths
from richsem.training.run_config import Detector, DetectorConfig, make_detector, on_meta

WEIGHTS, DESCRIPTION = "weights.safetensors", "detector.json"
START = "start.safetensors"
FILES = (WEIGHTS, DESCRIPTION, START)
_BACKBONE = "backbone."
_REPEATED = ("levels", "encoder_layers", "decoder_layers", "tower")  # each time with tensors
_SUM = "digest"  # a check sum, which the format does not have by itself
_DIFFERENCES = (" is not known", " is missing", ", expected ")  # what `mismatches` says
_NAME_A_FOLDER = (
    f"name a folder that training wrote, with {DESCRIPTION} and {WEIGHTS}. A stopped run goes on "
    "with the command that began it; of a published checkpoint, `python -m richsem convert FILE "
    "--annotations ANNOTATIONS --out FOLDER` makes such a folder"
)


def save_detector(
    folder: Path | str, detector: Detector, meta: Mapping[str, Any], write: Callable | None = None
) -> None:
    """Writes a detector for inference; an earlier one in the folder is replaced if `write` does so.

    `meta` are JSON values that say what it is: `classes` (a list of {"id", "name"}, one per class
    index) and anything else, such as data fingerprints and the recipe.
    """
    classes = meta.get("classes", [])
    if len(classes) != detector.config.num_classes:
        raise CheckpointError(
            f"meta names {len(classes)} classes, the detector has {detector.config.num_classes}; "
            'pass meta["classes"] with one {"id", "name"} per class index'
        )
    state = {name: _plain(tensor) for name, tensor in detector.inference_state().items()}
    content = save(state, metadata={_SUM: digest(state)})
    record = {"code": code_version(), **meta, "detector": to_dict(detector.config)}
    folder, write = Path(folder), write or write_atomic
    weights = folder / WEIGHTS
    # With its description, a folder is complete; the same detector, written again, stays so.
    if not (weights.is_file() and weights.read_bytes() == content):
        (folder / DESCRIPTION).unlink(missing_ok=True)
        write(weights, content)
    write(folder / DESCRIPTION, dumps(without_machine_paths(record)))


def save_start(path: Path, detector: nn.Module) -> None:
    """Writes what was trained and nothing else, for other runs to start from (`initialise`)."""
    trained = {n: _plain(p) for n, p in detector.named_parameters() if p.requires_grad}
    write_atomic(path, save(trained, metadata={_SUM: digest(trained)}))


def _plain(tensor: Tensor) -> Tensor:
    """A copy as safetensors wants it: memory of its own, without gaps or swapped dimensions."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def load_detector(
    folder: Path | str, *, device: torch.device | str = "cpu"
) -> tuple[Detector, dict[str, Any]]:
    """Reads what `save_detector` wrote: the detector in evaluation mode, and its description."""
    meta = read_description(folder)
    config = read_kept(DetectorConfig, meta["detector"], Path(folder) / DESCRIPTION)
    # Neither a hub nor a package is asked for weights that the file holds.
    config = replace(config, semantic=False, backbone=replace(config.backbone, weights=""))
    if len(meta["classes"]) != config.num_classes:
        named = f"{len(meta['classes'])} classes of {config.num_classes}"
        raise CheckpointError(f"{Path(folder) / DESCRIPTION} names {named}; copy it again")
    path = Path(folder) / WEIGHTS
    try:
        state, _ = read_weights(path)
    except CheckpointError as error:
        anew = f"else delete {path.with_name(DESCRIPTION)} and train or convert anew"
        raise CheckpointError(f"{error}; {anew}") from error
    with weight_files.explained(path.with_name(DESCRIPTION), "describes no detector", "mend it"):
        if many := [n for n in _REPEATED if getattr(config, n, 0) > len(state)]:
            raise ValueError(f"{many[0]} is more than the file has tensors")
        # In shapes first: a wrong number could ask for any memory.
        if wrong := mismatches(on_meta(config).inference_state(), state):
            words = f"does not fit {DESCRIPTION} ({first_of(wrong)}); use the two files of one run"
            raise CheckpointError(f"{path} {words}")
        detector = make_detector(config)
    if config.uses_text and not state["text"].isfinite().all():
        raise CheckpointError(f"{path}: its text features are no numbers; copy it again")
    # Not strict: what only serves training is not in the file.
    detector.load_state_dict(state, strict=False)
    return detector.eval().to(device), meta


def initialise(
    detector: nn.Module, path: Path | str, *, fresh: Sequence[str] = (), bare: bool = False
) -> tuple[str, list[str]]:
    """Takes over every tensor of a checkpoint that fits; fine-tuning on other classes starts so.

    The checkpoint is a folder of `save_detector`, or a safetensors file of the same names. `fresh`
    are beginnings of names that stay even if they fit; `bare` says that the backbone has no weights
    of its own. Returns in words how many fit, and what was not taken over and why, one line per
    tensor. A `CheckpointError` says that the file is of another detector: less than half of it
    fits, or of what the detector trains behind its backbone, or nothing of the backbone.
    """
    (state, file), own, unwanted = read_weights(path), detector.state_dict(), tuple(fresh)
    state = {n: t for n, t in state.items() if not n.startswith(unwanted)}
    taken = {n: t for n, t in state.items() if n in own and fits(own[n], t)}
    lines, words = mismatches(own, state), f"{len(taken)} of {len(state)} tensors of {file} fit"
    trained = {n for n, p in detector.named_parameters() if p.requires_grad}
    heads = {n for n in trained if not n.startswith((_BACKBONE, *unwanted))}
    found = len(heads & taken.keys())
    has_backbone, needs_backbone, got_backbone = (
        any(name.startswith(_BACKBONE) for name in names) for names in (state, own, taken)
    )
    lost = needs_backbone and (has_backbone or bare) and not got_backbone
    if lost or 2 * len(taken) < len(state) or 2 * found < len(heads) or not taken:
        told = [line for line in lines if not line.startswith(unwanted)]
        first = [next((line for line in told if kind in line), "") for kind in _DIFFERENCES]
        raise CheckpointError(
            f"{words}, {found} of {len(heads)} behind the backbone{', none in it' * lost} "
            f"({'; '.join(filter(None, first))}): it is of another detector, or a published one "
            "that `convert` has to translate first"
        )
    # A detector of shapes alone gets the tensors themselves.
    detector.load_state_dict(taken, strict=False, assign=next(iter(own.values())).is_meta)
    left = [line for line in lines if not line.endswith(_DIFFERENCES[1])]
    return "; ".join([words, *filter(None, [first_of(left)])]), lines


def read_description(folder: Path | str) -> dict[str, Any]:
    """The content of `detector.json`."""
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; {_NAME_A_FOLDER}")
    raw = path.read_bytes()
    try:
        meta = json.loads(raw)  # of bytes, so in whatever form of Unicode an editor saved it
    except (ValueError, RecursionError) as error:
        what = foreign.known_kind(raw[: foreign.BYTES]) or f"not JSON ({error}); copy it again"
        anew = "or delete it and train or convert anew"
        raise CheckpointError(f"{path} is {what}, {anew}") from error
    whole = isinstance(meta, dict) and isinstance(meta.get("classes"), list)
    if not whole or "detector" not in meta:
        raise CheckpointError(f'{path} needs the entries "detector" and "classes"; write it anew')
    return meta


def read_weights(path: Path | str) -> tuple[State, Path]:
    """Tensors that this project wrote, and their file, of a path of weights or a folder with them.

    They are compared with the file's check sum if it has one. A `CheckpointError` says that the
    file is not there, damaged or of another kind.
    """
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; {_NAME_A_FOLDER}")
    if weight_files.kind(file) != "safetensors":
        raise CheckpointError(f"{file} is a checkpoint of torch; {_NAME_A_FOLDER}")
    state = weight_files.read(file)
    with safe_open(file, "pt") as opened:
        written = (opened.metadata() or {}).get(_SUM)  # files of other tools have none
    if written and written != digest(state):
        raise CheckpointError(f"{file} is damaged (its numbers are not as written); copy it again")
    return state, file
