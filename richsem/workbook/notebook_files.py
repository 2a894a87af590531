"""Notebook files: the parameters of sources, and copies made fit for publication."""

import ast
import contextlib
import math
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import yaml

from richsem import paths
from richsem.config import ConfigError, Profile, convert, type_name

if TYPE_CHECKING:  # two seconds of a processor, and every notebook starts here
    from nbformat import NotebookNode

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
INJECTED = "# Parameters\n"  # papermill's own cell begins like this
WIDGET = "application/vnd.jupyter.widget-view+json"
# Parameters that name files or folders, where they are text.
_PLACES = "DATA_ROOT|CHECKPOINT|FOLDER|EXTRA|CATEGORIES|DETECTIONS|.*(ANNOTATIONS|IMAGES|LABELS)"
# What numbers may be; 0 steps are the profile's, 0 images all. All others are above 0.
_COUNTS = ("STEPS", "MAX_IMAGES", "NOISE_IMAGES")
_RANGES = dict.fromkeys(_COUNTS, ("0 or more", 0, math.inf))
# Seeds of noise are a thousand times as large, and have 64 bits.
_RANGES |= {"SEED": ("0 to 9e15", 0, 9e15), "THRESHOLD": ("a score, 0 to 1", 0, 1)}
# Where IMAGES is a number, it is of one figure; pixels beyond these no tensor has room for.
_RANGES |= {"IMAGES": ("1 to 20", 1, 20), "SHORT_SIDE": ("1 to 10000", 1, 10_000)}
_TYPES = {kind.__name__: kind for kind in (bool, int, float, str, list, dict)}
_TYPES |= {"Any": Any, "Literal": Literal, "None": None, "typing": typing}


class NotebookError(ValueError):
    """A source notebook that breaks a convention, or a parameter it does not have."""


class Parameter(NamedTuple):
    """A line of the parameters cell."""

    default: Any
    expected: Any  # a type or a typing form


def read(path: Path) -> "NotebookNode":
    """Load a notebook; a `NotebookError` says that the file is missing or no notebook."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotebookError(f"{path}: no such notebook") from None
    except (ValueError, nbformat.ValidationError) as error:
        raise NotebookError(f"{path}: not a readable notebook ({error})") from error


def sources() -> list[Path]:
    """The source notebooks in order; a `NotebookError` says that there are none."""
    found = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise NotebookError(f"{paths.NOTEBOOKS}: no notebooks named NN_topic.ipynb")
    return found


def copy_sources(folder: Path) -> list[Path]:
    """Copies the source notebooks into a folder; an `OSError` names a file that is in the way."""
    copies = [folder / source.name for source in sources()]
    for copy in copies:
        paths.check_own(copy)
    for source, copy in zip(sources(), copies, strict=True):
        paths.write_own(copy, source.read_bytes())
    return copies


def parameters(notebook: "NotebookNode", name: str) -> dict[str, Parameter]:
    """Parameters in the one cell tagged "parameters", by name.

    The cell holds lines such as `SEED = 0` or `SCALES: list[float] = [0.0, 1.0]  # help`: an
    upper-case name and a plain literal. Papermill's own reader misses `Literal`, `X | None` and
    strings with an equals sign, hence this one.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise NotebookError(f'{name}: needs exactly one cell tagged "parameters", has {len(cells)}')
    return _declared(cells[0].source, name)


def check_parameters(names: Mapping[str, Any]) -> None:
    """Stops a notebook that was given a parameter it does not have, or a value it cannot use.

    `names` are its `globals()`. Papermill puts whatever it is given into a cell of its own below
    the parameters cell and asks nothing; Jupyter's list of the cells that ran shows both. What YAML
    made of a number before (`papermill -y "{SEED: 010}"` is 8) nothing here can tell.

    Raises:
        NotebookError: It names the parameter and the valid ones.
    """
    given: set[str] = set()
    for source in reversed(names.get("In", [])):
        if source.startswith(INJECTED):
            given |= {line.targets[0].id for line in ast.parse(source).body}
            continue
        try:
            found = _declared(source, "this notebook")
        except NotebookError:
            continue  # a cell that does other work
        if found:
            for key in (*found, *sorted(given)):
                checked_value(names[key], key, found, "this notebook")
            convert(names["PROFILE"], Profile, "PROFILE")
            return


def _declared(source: str, name: str) -> dict[str, Parameter]:
    """Parameters that a cell declares; a `NotebookError` says which line does something else."""
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        text = (error.text or "").strip()
        raise NotebookError(f"{name}: not plain Python (magics are not allowed): {text}") from error
    found = {}
    for line in lines:
        try:
            found |= [_assignment(line)]
        except ValueError as error:
            raise NotebookError(
                f"{name}: parameters cell, line {line.lineno} ({ast.unparse(line)}): {error}"
            ) from error
    return found


def checked_value(value: Any, key: str, known: Mapping[str, Parameter], name: str) -> Any:
    """A value for parameter `key`, as the type that the notebook asks for."""
    if key not in known:
        valid = ", ".join(f"{k}: {type_name(p.expected)}" for k, p in known.items())
        raise NotebookError(f"{name} has no parameter {key!r}; valid: {valid}")
    try:
        found = convert(value, known[key].expected, key)
    except ConfigError as error:
        is_list = isinstance(value, str) and value[:1] in "[{"
        way = "; a list is [a, b] in YAML, which papermill reads by -y alone" * is_list
        raise NotebookError(f"{name}: {error}{way}") from error
    words, least, most = _RANGES.get(key, ("above 0", 1e-300, math.inf))
    if type(found) in (int, float) and not least <= found <= most:
        raise NotebookError(f"{name}: {key} must be {words}, got {found}")
    is_place = found and isinstance(found, str) and re.fullmatch(_PLACES, key)
    if is_place and not paths.user_path(found).exists():
        raise NotebookError(f"{name}: {key} names {found}, where nothing is")
    return found


def named_places(values: Mapping[str, Any]) -> list[Path]:
    """Files and folders that parameters name: what lies there decides a notebook's results, too.

    Other texts may be called like a folder where the user stands, and that may be all of a home.
    """
    texts = [value for key, value in values.items() if re.fullmatch(f"CLIP_WEIGHTS|{_PLACES}", key)]
    texts += [setting.partition("=")[2] for setting in values.get("SETTINGS", ())]
    found = [paths.user_path(text) for text in texts if text and isinstance(text, str)]
    return [path for path in found if path.exists()]


def parse_value(text: str, parameter: Parameter) -> Any:
    """Value of a parameter given as text: a YAML or JSON literal, or the text itself.

    Text stands for itself where the parameter is text (`007`, `no`, `2026-01-01`) and YAML would
    read something else. Numbers are Python's: for YAML, `010` is 8 and `1:30` is 90.
    """
    read: Any = text
    with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):  # of a month 13
        found = yaml.safe_load(text)
        read = text if type(found) in (int, float) else found
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        read = ast.literal_eval(text)  # YAML reads 1e-3 as text
    for value in (read, text):
        with contextlib.suppress(ConfigError):
            convert(value, parameter.expected, "")
            return value
    return read  # of the wrong type: reported with the notebook's name


def _assignment(line: ast.stmt) -> tuple[str, Parameter]:
    """Name and meaning of one line of the parameters cell."""
    if isinstance(line, ast.Assign) and len(line.targets) == 1:
        target, annotation = line.targets[0], None
    elif isinstance(line, ast.AnnAssign) and line.value is not None:
        target, annotation = line.target, line.annotation
    else:
        raise ValueError("write NAME = value")
    if not isinstance(target, ast.Name) or not target.id.isupper():
        raise ValueError("the name must be a plain UPPER_CASE one")
    default = ast.literal_eval(line.value)
    if isinstance(default, tuple):
        raise ValueError("papermill cannot pass tuples; write a list")
    if annotation is None and default is None:
        raise ValueError("a default of None needs a type, such as `str | None`")
    expected = type(default)
    if annotation is not None:
        words = ast.unparse(annotation)
        try:
            expected = eval(words, {"__builtins__": {}, **_TYPES})
        except (NameError, TypeError, AttributeError) as error:
            raise ValueError(f"unknown type {words!r}: {error}") from error
    convert(default, expected, target.id)
    return target.id, Parameter(default=default, expected=expected)


def clean(notebook: "NotebookNode") -> "NotebookNode":
    """Executed notebook without widget state, timings and folders of this machine; in place."""
    import nbformat
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    joined = CoalesceStreamsPreprocessor()
    kept = {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    if "richsem" in notebook.metadata:
        kept["richsem"] = notebook.metadata["richsem"]
    notebook.metadata = nbformat.from_dict(kept)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if WIDGET not in one.get("data", {})]
            joined.preprocess_cell(cell, {}, 0)  # of every progress bar only its last state
            outputs = [one for one in cell.outputs if one.get("text", "shown").strip()]
            cell.outputs = [nbformat.from_dict(_clean_output(output)) for output in outputs]
    return notebook


def _clean_output(output: Any) -> Any:
    """An output with portable paths; the number of a kernel's temporary file is dropped too."""
    if isinstance(output, str):
        output = output.replace("\r", "")
        return paths.portable(re.sub(r"\S*ipykernel_\d+[/\\]\d+\.py", "<cell>", output))
    if isinstance(output, Mapping):
        pictures = {key for key in output if key.startswith("image/") and key != "image/svg+xml"}
        return {k: v if k in pictures else _clean_output(v) for k, v in output.items()}
    return [_clean_output(item) for item in output] if isinstance(output, list) else output
