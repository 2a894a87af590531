"""open_clip's models with weights from the hub or a file, and the activation that these need.

OpenAI's CLIPs and some others were trained with QuickGELU. With GELU in its place, or the reverse,
everything runs and the features are wrong; the weights themselves do not show it.
"""

import contextlib
import hashlib
import itertools
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import open_clip
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import nn

from richsem.models import weight_files
from richsem.models.miniclip import MINI_CLIP, MINI_LENGTH
from richsem.models.weight_files import State

_QUICK = "-quickgelu"  # at the end of the names of architectures with this activation
# Sizes that OpenAI's files hold beside the weights; other files do not.
_OPENAI = ("input_resolution", "context_length", "vocab_size")


def create(model: str, weights: str, file: Path) -> nn.Module:
    """An open_clip model with weights: of a tag of the hub, or of a file, whatever its form.

    `file` is what `weights` are if they are no tag. A `ValueError` says that they were trained with
    another activation than the model's, a warning that nothing tells, and a `FileNotFoundError`
    that there are none.
    """
    published = open_clip.get_pretrained_cfg(model.removesuffix(_QUICK), weights)
    trained = bool(published.get("quick_gelu")) if published else None
    if re.search(f"openai|{_QUICK[1:]}", Path(weights).name.lower()):
        trained = True
    if trained is not None:  # before anything is downloaded
        _check_activation(model, weights, trained)
    if file.is_file() or (weights and not published and file.is_dir()):
        state = weight_files.read(file, within=("state_dict", "model"))
        found = _trained_with_quick_gelu(file, state)
        _check_activation(model, str(file), trained if found is None else found)
        with weight_files.explained(file, f"holds no weights of {model!r}"):
            return filled(model, state)
    try:
        with _quiet():
            return open_clip.create_model(model, weights or None, require_pretrained=True)
    except Exception as error:  # hub, proxy and file errors of several libraries
        raise FileNotFoundError(
            f"no weights {weights!r} for {model!r} ({error}). Download them once on a machine with "
            "access to the Hugging Face hub and name the file instead, or a tag: "
            f"{', '.join(open_clip.list_pretrained_tags_by_model(model))}"
        ) from error


def statistics(
    model: str, weights: str, visual: nn.Module
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation [3] of the pixels, in 0..1, that a model was trained on."""
    if model == MINI_CLIP:
        return visual.trunk.default_cfg["mean"], visual.trunk.default_cfg["std"]
    # open_clip knows them by tags; a file has those of the tag in its name, or of the first one.
    tags = open_clip.list_pretrained_tags_by_model(model)
    named = [tag for tag in tags if tag in Path(weights).name]
    known = dict(getattr(visual, "preprocess_cfg", {}))
    if tags:
        tag = max(named, key=len, default=tags[0])
        known |= open_clip.get_pretrained_cfg(model, tag)
    default = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return known.get("mean") or default[0], known.get("std") or default[1]


def text_length(model: str) -> int | None:
    """Length D of a model's text features; None if only the hub could tell."""
    if model == MINI_CLIP:
        return MINI_LENGTH
    known = open_clip.get_model_config(model) if ":" not in model else None
    return known and known["embed_dim"]


def filled(model: str, state: State) -> nn.Module:
    """An open_clip model with weights under its own or OpenAI's names."""
    with _quiet():
        network = open_clip.create_model(model, load_weights=False, pretrained_text=False)
    # A script keeps masks, which are computed, and OpenAI's also the sizes.
    beside = {*_OPENAI, *dict(network.named_buffers())} - network.state_dict().keys()
    state = convert_state_dict(network, {n: t for n, t in state.items() if n not in beside})
    if "positional_embedding" in state and not hasattr(network, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in {"logit_scale", "logit_bias"} & state.keys():  # a number, or a list of one
        state[name] = state[name].reshape(getattr(network, name).shape)
    return weight_files.fill(network, state)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what open_clip logs: errors that are said here, random weights that do not stay."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _trained_with_quick_gelu(file: Path, state: State) -> bool | None:
    """What content or check sum tell: whether it is OpenAI's, or one that open_clip lists."""
    if set(_OPENAI) <= state.keys():
        return True
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    for published in itertools.starmap(open_clip.get_pretrained_cfg, open_clip.list_pretrained()):
        sums = re.findall(r"\b[0-9a-f]{8,64}\b", published.get("url", ""))
        if sums and digest.startswith(sums[-1]):
            return bool(published.get("quick_gelu"))
    return None


def _check_activation(model: str, weights: str, trained: bool | None) -> None:
    """Refuses weights of another activation; None warns that nobody knows theirs."""
    other = model.removesuffix(_QUICK) if model.endswith(_QUICK) else model + _QUICK
    if other not in open_clip.list_models():  # nothing to choose
        return
    quick = bool(open_clip.get_model_config(model).get("quick_gelu"))
    own, its = ("QuickGELU", "GELU") if quick else ("GELU", "QuickGELU")
    if trained is None:
        warnings.warn(
            f"{weights}: nothing in it tells with which activation it was trained; {model!r} takes "
            f"{own}. If it was {its}, use {other!r}",
            stacklevel=3,
        )
    elif trained != quick:
        raise ValueError(
            f"{model!r} uses {own} but {weights} was trained with {its}; use {other!r}"
        )
