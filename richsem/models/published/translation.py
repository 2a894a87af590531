"""What translating any published checkpoint takes: renaming tensors.

Nothing gets lost silently: a name that no rule knows is an error, and so is a tensor that the model
lacks or has too many of. What is left out on purpose is named where it is left out.
"""

import re

import torch

from richsem.models.weight_files import State

Rules = tuple[tuple[str, str], ...]  # pattern in a published name -> what stands there in ours


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
