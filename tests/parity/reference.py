"""Sets of reference tensors: where they lie and what is in them."""

import json
import os
from pathlib import Path

from safetensors import safe_open

from richsem import paths

SETS = {
    "small": paths.ROOT / "tests" / "golden",
    "full": paths.ROOT / os.environ.get("RICHSEM_GOLDEN", "../shared/golden"),
}


def describe(folder: Path, name: str) -> dict:
    """What is written beside the tensors: configuration, cases, tolerances."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def tensor_names(folder: Path, name: str) -> list[str]:
    with safe_open(folder / f"{name}.safetensors", "pt") as content:
        return list(content.keys())


def has(folder: Path, need: str) -> bool:
    """Whether a set has what a test needs, a file or one tensor of it (`file:tensor`)."""
    name, _, tensor = need.partition(":")
    if not (folder / f"{name}.json").is_file():
        return False
    return not tensor or tensor in tensor_names(folder, name)
