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
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

import open_clip
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor, nn

from richsem.models import weight_files
from richsem.models.miniclip import MINI_CLIP, MINI_LENGTH, load_miniclip
from richsem.models.weight_files import State
from richsem.paths import user_path

FOLDER = "local-dir:"  # before a folder with `open_clip_config.json`, weights and tokenizer
_QUICK = "-quickgelu"  # at the end of the names of architectures with this activation
# Sizes that OpenAI's files hold beside the weights; other files do not.
_OPENAI = ("input_resolution", "context_length", "vocab_size")


def opened(model: str, weights: str) -> tuple[nn.Module, Callable[[list[str]], Tensor] | None]:
    """A model, and what makes tokens of texts for it; None for CLIP's own.

    Errors are those of `source` and `create`, or say how a tokenizer is come by.
    """
    file = user_path(weights)
    if model == MINI_CLIP:
        return load_miniclip(file if weights else None), None
    name = source(model, weights)
    try:
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # hub, proxy and import errors of several libraries
        raise FileNotFoundError(
            f"{model!r}: its tokenizer cannot be opened ({error}). It comes from the "
            "Hugging Face hub and needs the package transformers; or put its files, the weights "
            f"and open_clip_config.json into a folder and name that: {FOLDER}FOLDER"
        ) from error
    return create(name, weights, file), tokenizer


def source(model: str, weights: str) -> str:
    """The model's name for open_clip; what is wrong with it is said before any download."""
    _, colon, place = model.partition(":")
    if colon and weights:
        raise ValueError(f"{model!r} comes with its weights; leave `weights` empty")
    if model.startswith(FOLDER):
        folder = user_path(place)
        if not (folder / "open_clip_config.json").is_file():
            raise FileNotFoundError(f"{folder}: no open_clip_config.json, so no CLIP to open")
        return f"{FOLDER}{folder}"
    if not colon and open_clip.get_model_config(model) is None:
        close = get_close_matches(model, open_clip.list_models(), n=5, cutoff=0)
        raise ValueError(
            f"unknown CLIP {model!r}; valid are {MINI_CLIP!r}, {FOLDER}FOLDER, hf-hub:OWNER/NAME "
            f"and open_clip's names, such as {', '.join(close)}"
        )
    if not colon and not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none known"
        raise ValueError(f"{model!r} needs `weights`: a local file or a tag of the hub ({tags})")
    return model


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
