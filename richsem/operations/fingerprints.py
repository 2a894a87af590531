"""What a run is made from, as hashes: code that decides its result, and data."""

import ast
import functools
import hashlib
from pathlib import Path

from richsem.data.catalog import dataset_spec, locate
from richsem.data.reading import DataError
from richsem.paths import ROOT
from richsem.training.checkpoint import WEIGHTS
from richsem.training.run_config import RunConfig

# What decides the result of a run; notebooks, figures and the command line do not.
_CODE = ("structures.py", "evaluation.py", "data", "models", "losses", "training", "minilvis")
_NOT_CODE: tuple[str, ...] = ()


@functools.lru_cache
def code_hash() -> str:
    """Hash of the code and the packaged weights that decide the result of a run.

    Comments, docstrings and layout do not count. It is the hash of the code as first asked for, so
    editing a file does not move the runs of a process that goes on with the old code.
    """
    digest = hashlib.sha256()
    package = ROOT / "richsem"
    for path in deciding_files():
        digest.update(path.relative_to(package).as_posix().encode())
        is_code = path.suffix == ".py"
        digest.update(_meaning(path.read_text("utf-8")).encode() if is_code else path.read_bytes())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=1024)
def data_hash(config: RunConfig) -> str:
    """Hash of the annotation files of real data, and of weight files that are not the package's.

    The embedded benchmark is decided by the code.
    """
    data, files = config.data, []
    if data.root:
        keys = [data.key, data.extra.key] if data.extra else [data.key]
        root = ROOT / Path(data.root).expanduser()
        files = [locate(dataset_spec(key), root, "train")[0] for key in keys]
    if config.init:
        start = ROOT / Path(config.init).expanduser()
        start = start / WEIGHTS if start.is_dir() else start
        if start.is_file() and not start.is_relative_to(ROOT / "richsem"):
            files.append(start)
    for weights in (data.teacher.weights, config.detector.backbone.weights):
        file = ROOT / Path(weights).expanduser()  # else a word such as "hub"
        if weights and file.is_file():
            files.append(file)
    return " ".join(_digest_of_file(path, path.stat().st_mtime_ns) for path in files)


def split_hash(config: RunConfig, split: str) -> str:
    """Hash of what a run of real data is judged by; "" where the code decides that, too.

    Raises:
        DataError: The set has no such split, or is not there.
    """
    if not config.data.root:
        return ""
    root = ROOT / Path(config.data.root).expanduser()
    path = locate(dataset_spec(config.data.key), root, split)[0]
    return _digest_of_file(path, path.stat().st_mtime_ns)


def check_split(config: RunConfig, split: str) -> None:
    """Looks for what a run is to be judged by.

    Raises:
        DataError: The set has no such split, or is not there.
    """
    splits = dataset_spec(config.data.key).splits
    if config.data.root:
        split_hash(config, split)
    elif split not in splits:
        raise DataError(
            f"{config.name}: {config.data.key} has no split {split!r}; there are "
            f"{', '.join(splits)}"
        )


def deciding_files() -> list[Path]:
    """The package's own files that decide the result of a run."""
    package, kinds = ROOT / "richsem", (".py", ".json", ".safetensors")
    parts = [package / part for part in _CODE]
    files = [f for part in parts for f in ([part] if part.is_file() else part.rglob("*"))]
    left_out = {package / name for name in _NOT_CODE}
    return sorted(f for f in files if f.suffix in kinds and f not in left_out)


def _meaning(source: str) -> str:
    """Python source without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@functools.lru_cache(maxsize=64)
def _digest_of_file(path: Path, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
