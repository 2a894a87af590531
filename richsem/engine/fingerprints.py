"""What a run is made from, as hashes: code that decides its result, and data."""

import ast
import functools
import hashlib
from pathlib import Path

from richsem.data.catalog import dataset_spec, locate
from richsem.engine.checkpoint import WEIGHTS
from richsem.paths import ROOT
from richsem.recipes import RunConfig

# What decides the result of a run; notebooks, figures and the command line do not.
_CODE = ("structures.py", "evaluation.py", "data", "models", "losses", "engine")
_NOT_CODE = (
    "store.py",
    "adopting.py",
    "fingerprints.py",
    "anatomy.py",
    "cost.py",
    "inspector.py",
    "overfit.py",
    "regions.py",
    "summary.py",
)


@functools.lru_cache
def code_hash() -> str:
    """Hash of the code and the packaged weights that decide the result of a run.

    Comments, docstrings and layout do not count. It is the hash of the code as first asked for, so
    editing a file does not move the runs of a process that goes on with the old code.
    """
    digest = hashlib.sha256()
    package = ROOT / "richsem"
    for path in sorted(file for part in _CODE for file in _files(package / part)):
        digest.update(path.relative_to(package).as_posix().encode())
        is_code = path.suffix == ".py"
        digest.update(_meaning(path.read_text("utf-8")).encode() if is_code else path.read_bytes())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=1024)
def data_hash(config: RunConfig) -> str:
    """Hash of the annotation files of real data, and of start weights that are not the package's.

    The embedded benchmark is decided by the code.
    """
    data, files = config.data, []
    if data.root:
        keys = [data.key, data.extra.key] if data.extra else [data.key]
        files = [locate(dataset_spec(key), ROOT / data.root, "train")[0] for key in keys]
    if config.init:
        start = ROOT / Path(config.init).expanduser()
        start = start / WEIGHTS if start.is_dir() else start
        if start.is_file() and not start.is_relative_to(ROOT / "richsem"):
            files.append(start)
    return " ".join(_digest_of_file(path, path.stat().st_mtime_ns) for path in files)


def _files(part: Path) -> list[Path]:
    if part.is_file():
        return [part]
    kinds = (".py", ".json", ".safetensors")
    return [f for f in part.rglob("*") if f.suffix in kinds and f.name not in _NOT_CODE]


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
