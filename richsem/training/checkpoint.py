"""A trained detector as a folder: `weights.safetensors` and, in words, `detector.json`.

The folder is all that inference needs: text features are a buffer of the detector and are stored;
the semantic branch and the label embedding, which only serve training, are not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from richsem.config import read_kept, to_dict
from richsem.paths import write_atomic
from richsem.provenance import code_version, dumps, without_machine_paths
from richsem.training.run_config import Detector, DetectorConfig, make_detector

WEIGHTS, DESCRIPTION = "weights.safetensors", "detector.json"
START = "start.safetensors"


class CheckpointError(ValueError):
    """A checkpoint is absent, damaged or made for another detector."""


def save_detector(folder: Path | str, detector: Detector, meta: Mapping[str, Any]) -> None:
    """Writes a detector for inference; an earlier one in the folder is replaced.

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
    record = {"code": code_version(), **meta, "detector": to_dict(detector.config)}
    folder = Path(folder)
    (folder / DESCRIPTION).unlink(missing_ok=True)  # written last: with it, a folder is complete
    write_atomic(folder / WEIGHTS, save(state))
    write_atomic(folder / DESCRIPTION, dumps(without_machine_paths(record)))


def save_start(path: Path, detector: nn.Module) -> None:
    """Writes what was trained and nothing else, for other runs to start from (`initialise`)."""
    trained = {n: _plain(p) for n, p in detector.named_parameters() if p.requires_grad}
    write_atomic(path, save(trained))


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
    detector = make_detector(config)
    path = Path(folder) / WEIGHTS
    state = read_weights(path)
    wrong = mismatches(detector.inference_state(), state)
    if wrong:
        raise CheckpointError(
            f"{path} does not fit {DESCRIPTION} ({'; '.join(wrong)}); use the two files of one run"
        )
    # Not strict: what only serves training is not in the file.
    detector.load_state_dict(state, strict=False)
    return detector.eval().to(device), meta


def initialise(detector: nn.Module, path: Path | str, *, fresh: Sequence[str] = ()) -> list[str]:
    """Takes over every tensor of a checkpoint that fits; fine-tuning on other classes starts so.

    The checkpoint is a folder of `save_detector`, or a safetensors file of the same names; `fresh`
    are beginnings of names that stay even if they fit. Returns what was not taken over and why, one
    line per tensor.
    """
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    own, stored = detector.state_dict(), read_weights(file)
    state = {name: t for name, t in stored.items() if not name.startswith(tuple(fresh))}
    fits = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    if not fits:
        raise CheckpointError(f"{file}: no tensor fits this detector; is it of another model?")
    detector.load_state_dict(fits, strict=False)
    return mismatches(own, state)


def mismatches(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Differences between a module's tensors and stored ones, one line each."""
    lines = [f"{name} is missing" for name in own if name not in state]
    lines += [f"{name} is not known" for name in state if name not in own]
    return lines + [
        f"{name} is {list(state[name].shape)}, expected {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]


def read_description(folder: Path | str) -> dict[str, Any]:
    """The content of `detector.json`."""
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist: name a folder that training wrote, with {DESCRIPTION} and "
            f"{WEIGHTS}"
        )
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not JSON ({error}); copy it again, or delete it and train or convert anew"
        ) from error
    if not isinstance(meta, dict) or not {"detector", "classes"} <= set(meta):
        raise CheckpointError(f'{path} needs the entries "detector" and "classes"; write it anew')
    return meta


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; the checkpoint is not complete")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy or write it anew") from error
