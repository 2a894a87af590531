"""The data that a run is made from and judged by, as hashes."""

import functools
import hashlib
from pathlib import Path

from richsem import kept
from richsem.data.catalog import dataset_spec, locate
from richsem.data.reading import DataError
from richsem.paths import ROOT
from richsem.training.checkpoint import WEIGHTS
from richsem.training.run_config import RunConfig

# LVIS v1 keeps its pictures in these folders beside other sets; elsewhere a set has its own folder.
_SHARED = ("train2017", "val2017")


@functools.lru_cache(maxsize=1024)
def data_state(config: RunConfig) -> str:
    """Hashes of real data (annotations, and size and time of each picture) and of weight files.

    The embedded benchmark and the packaged weights are decided by the trace: see `richsem.kept`.
    """
    data, states = config.data, []
    if data.root:
        keys = [data.key, data.extra.key] if data.extra else [data.key]
        states = [_set_state(config, key, "train") for key in keys]
    words = [config.init, data.teacher.weights, config.detector.backbone.weights]
    for file in (ROOT / Path(word).expanduser() for word in words if word):
        file = file / WEIGHTS if file.is_dir() else file
        if file.is_file() and not file.is_relative_to(ROOT / "richsem"):  # else a word like "hub"
            states.append(digest(file))
    return " ".join(states)


def split_state(config: RunConfig, split: str) -> str:
    """Hash of what a run of real data is judged by; "" where the trace decides that, too.

    Raises:
        DataError: The set has no such split, or is not there.
    """
    if config.data.root:
        return kept.key(_set_state(config, config.data.key, split), trace=())
    splits = dataset_spec(config.data.key).splits
    if split not in splits:
        raise DataError(
            f"{config.name}: {config.data.key} has no split {split!r}; there are "
            f"{', '.join(splits)}"
        )
    return ""


def digest(file: Path) -> str:
    """Hash of a file's content, 16 hex digits; read again only if it has changed."""
    return _digest(file, file.stat().st_mtime_ns)


def _set_state(config: RunConfig, key: str, split: str) -> str:
    root = ROOT / Path(config.data.root).expanduser()
    annotations, images = locate(dataset_spec(key), root, split)
    shared = [images / name for name in _SHARED if (images / name).is_dir()]
    pictures = [kept.pictures_state(folder) for folder in shared or [images]]
    return " ".join([digest(annotations), *pictures])


@functools.lru_cache(maxsize=64)
def _digest(path: Path, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
