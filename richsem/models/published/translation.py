"""What translating any published checkpoint takes: reading it, renaming, filling a model.

Nothing gets lost silently: a name that no rule knows is an error, and so is a tensor that the model
lacks or has too many of. What is left out on purpose is named where it is left out.
"""

import argparse
import pickle
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

State = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]  # pattern in a published name -> what stands there in ours
Model = TypeVar("Model", bound=nn.Module)


def read_checkpoint(path: Path) -> State:
    """The tensors of a checkpoint file, {"model": ...} or bare, without running code from it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # the training arguments
                content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in lines if "Unsupported" in line), lines[0]).strip()
        raise ValueError(
            f"{path}: cannot be read safely ({reason}). Open it where it is trusted and save only "
            'its weights: torch.save(torch.load(path, weights_only=False)["model"], new_path)'
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else {}
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f'{path}: no weights; expected tensors by name, or these under "model"')
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def renamed(state: State, rules: Rules, known: str = "") -> State:
    """Tensors under the names that all rules together make, one after the other.

    Shared modules are stored under several names: what becomes one name must hold the same values.
    `known` says what the rules are for: a name that none of them changes is then an error.
    """
    ours, first = {}, {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if known and new == name:
            raise ValueError(f"{name}: not a tensor of {known}")
        if not torch.equal(tensor, ours.setdefault(new, tensor)):
            raise ValueError(
                f"{name} differs from {first[new]}: a model with separate heads per decoder layer, "
                "or with stages with classes of their own, which this detector does not have"
            )
        first.setdefault(new, name)
    return ours


def split(state: State, prefix: str) -> tuple[State, State]:
    """The tensors whose names start with a pattern, without that start, and the others."""
    inner = {re.sub(prefix, "", n, count=1): t for n, t in state.items() if re.match(prefix, n)}
    return inner, {name: t for name, t in state.items() if not re.match(prefix, name)}


def filled(model: Model, state: State, unused: Collection[str]) -> Model:
    """The model with these weights; `unused` may be missing."""
    missing, unknown = model.load_state_dict(state, strict=False)
    needed = [name for name in missing if name not in unused]
    if needed or unknown:
        raise ValueError(f"weights do not fit the model: missing {needed}, unknown {unknown}")
    return model
