"""open_clip's models with weights from the hub or a file, and the activation that these need.

OpenAI's CLIPs and some others were trained with QuickGELU. With GELU in its place, or the reverse,
everything runs and the features are wrong; the weights themselves do not show it.
"""

import hashlib
import itertools
import logging
import re
import warnings
from pathlib import Path

import open_clip
from open_clip.convert import convert_state_dict
from torch import nn

from richsem.models import weight_files
from richsem.models.weight_files import State

_QUICK = "-quickgelu"  # at the end of the names of architectures with this activation
_NAMES = ("GELU", "QuickGELU")
# Sizes that OpenAI's files hold beside the weights; other files do not.
_OPENAI = ("input_resolution", "context_length", "vocab_size")


def create(model: str, weights: str, file: Path) -> nn.Module:
    """An open_clip model with weights.

    `weights` are a tag of the hub, or the words of a user for a file in any form that
    `weight_files.read` knows. A `ValueError` says that they were trained with another activation
    than the model's, a warning that nothing tells, and a `FileNotFoundError` that there are none.
    """
    published = open_clip.get_pretrained_cfg(model.removesuffix(_QUICK), weights)
    named = re.search(f"openai|{_QUICK[1:]}", Path(weights).name.lower())
    trained = bool(published.get("quick_gelu")) if published else True if named else None
    _refuse_other_activation(model, weights, trained)
    if file.is_file() or (file.exists() and weights and not published):
        return _from_file(model, file, trained)
    try:
        return open_clip.create_model(model, pretrained=weights or None)
    except Exception as error:  # hub, proxy and file errors of several libraries
        raise FileNotFoundError(
            f"no weights {weights!r} for {model!r} ({error}). Download them once on a machine with "
            "access to the Hugging Face hub and name the file instead, or a tag: "
            f"{', '.join(open_clip.list_pretrained_tags_by_model(model))}"
        ) from error


def _from_file(model: str, file: Path, trained: bool | None) -> nn.Module:
    state = weight_files.read(file, within=("state_dict", "model"))
    found = _trained_with_quick_gelu(file, state)
    trained = trained if found is None else found
    _refuse_other_activation(model, str(file), trained)
    if trained is None:
        own = _uses_quick_gelu(model)
        warnings.warn(
            f"{file}: nothing in it tells with which activation it was trained; {model!r} takes "
            f"{_NAMES[own]}. If it was {_NAMES[not own]}, use {_other(model)!r}",
            stacklevel=2,
        )
    logging.disable(logging.WARNING)  # about weights at random, which do not stay
    try:
        network = open_clip.create_model(model, load_weights=False, pretrained_text=False)
    finally:
        logging.disable(logging.NOTSET)
    with weight_files.explained(f"{file}: not weights of {model!r}"):
        # A script keeps masks, which are computed, and the sizes.
        beside = {*_OPENAI, *dict(network.named_buffers())} - network.state_dict().keys()
        state = convert_state_dict(network, {n: t for n, t in state.items() if n not in beside})
        if wrong := weight_files.mismatches(network.state_dict(), state):
            raise ValueError(weight_files.first_of(wrong))
        network.load_state_dict(state)
    return network


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


def _refuse_other_activation(model: str, weights: str, trained: bool | None) -> None:
    own = _uses_quick_gelu(model)
    if trained not in (None, own) and _other(model) in open_clip.list_models():
        raise ValueError(
            f"{model!r} uses {_NAMES[own]} but {weights} was trained with {_NAMES[trained]}; use "
            f"{_other(model)!r}"
        )


def _uses_quick_gelu(model: str) -> bool:
    known = open_clip.get_model_config(model) if ":" not in model else None
    return bool(known and known.get("quick_gelu"))


def _other(model: str) -> str:
    """The same architecture with the other activation."""
    return model.removesuffix(_QUICK) if model.endswith(_QUICK) else model + _QUICK
