"""What translating any published checkpoint takes: renaming its tensors, filling a model.

Nothing gets lost silently: a name that no rule knows is an error, and so is a tensor that the model
lacks or has too many of. What is left out on purpose is named where it is left out.
"""

import re
from collections.abc import Collection
from typing import TypeVar

import torch
from torch import nn

from richsem.models.weight_files import State, first_of, mismatches

Rules = tuple[tuple[str, str], ...]  # pattern in a published name -> what stands there in ours
Model = TypeVar("Model", bound=nn.Module)


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
    own = {n: t for n, t in model.state_dict().items() if n in state or n not in unused}
    if wrong := mismatches(own, state):
        raise ValueError(f"weights do not fit the model: {first_of(wrong)}")
    model.load_state_dict(state, strict=False)
    return model
