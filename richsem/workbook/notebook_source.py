"""What a source notebook says about itself: its parameters, its results and its headings."""

import ast
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nbformat
import yaml

from richsem.config import ConfigError, convert, type_name
from richsem.workbook import results

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_TYPES = {
    **{kind.__name__: kind for kind in (bool, int, float, str, list, dict)},
    "Any": Any,
    "Literal": Literal,
    "None": None,
}


class NotebookError(ValueError):
    """A source notebook that breaks a convention, or a parameter it does not have."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A line of the parameters cell."""

    default: Any
    expected: Any  # a type or a typing form


def read(path: Path) -> nbformat.NotebookNode:
    """Load a notebook.

    Raises:
        NotebookError: The file is missing or is no notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotebookError(f"{path}: no such notebook") from None
    except (ValueError, nbformat.ValidationError) as error:
        raise NotebookError(f"{path}: not a readable notebook ({error})") from error


def parameters(notebook: nbformat.NotebookNode, name: str) -> dict[str, Parameter]:
    """Parameters in the one cell tagged "parameters", by name.

    The cell holds lines such as `SEED = 0` or `SCALES: list[float] = [0.0, 1.0]  # help`: an
    upper-case name and a plain literal. Papermill's own reader misses `Literal`, `X | None` and
    strings with an equals sign, hence this one.

    Raises:
        NotebookError: There is not exactly one such cell, or it holds anything else.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise NotebookError(f'{name}: needs exactly one cell tagged "parameters", has {len(cells)}')
    found = {}
    for line in _parse(cells[0].source, name).body:
        try:
            key, value = _assignment(line)
            found[key] = value
        except ValueError as error:
            raise NotebookError(
                f"{name}: parameters cell, line {line.lineno} ({ast.unparse(line)}): {error}"
            ) from error
    return found


def checked_value(value: Any, key: str, known: dict[str, Parameter], name: str) -> Any:
    """A value for parameter `key`, as the type that the notebook asks for.

    Raises:
        NotebookError: The notebook has no such parameter (the valid ones are named), or the value
            has another type.
    """
    if key not in known:
        valid = ", ".join(f"{k}: {type_name(p.expected)}" for k, p in known.items())
        raise NotebookError(f"{name} has no parameter {key!r}; valid: {valid}")
    try:
        return convert(value, known[key].expected, key)
    except ConfigError as error:
        raise NotebookError(f"{name}: {error}") from error


def parse_value(text: str, parameter: Parameter) -> Any:
    """Value of a parameter given as text: a YAML or JSON literal, or the text itself.

    Text stands for itself where the parameter is text (`007`, `no`, `2026-01-01`) and YAML would
    read something else.
    """
    for read_as in (_number_or_yaml, str):
        try:
            value = read_as(text)
            convert(value, parameter.expected, "")
            return value
        except (ConfigError, yaml.YAMLError):
            continue
    return _number_or_yaml(text)  # of the wrong type: reported with the notebook's name


def result_ids(notebook: nbformat.NotebookNode, name: str) -> list[str]:
    """Figures, tables and pages the notebook writes: ids passed to a function named `save_...`.

    Raises:
        NotebookError: A code cell is not plain Python.
    """
    known = {*results.FIGURES, *results.TABLES, *results.PAGES}
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(_parse(cell.source, name)):
            if isinstance(node, ast.Call) and _called_name(node).startswith("save_"):
                values = [*node.args, *(keyword.value for keyword in node.keywords)]
                literals = [value.value for value in values if isinstance(value, ast.Constant)]
                found += [literal for literal in literals if literal in known]
    return found


def run_minutes(notebook: nbformat.NotebookNode, profile: str) -> tuple[float, bool, bool]:
    """What the row "run time" of the first table states for a profile.

    The row reads `smoke: 1 minute; demo: about 12 minutes per seed, once; paper: days`: on two
    cores with an empty cache, less what earlier notebooks leave there. "About" is an estimate.

    Returns:
        Minutes, 0 where none are stated, whether they are per seed, and whether they are spent on
        runs, which are trained "once".
    """
    text = "".join(cell.source for cell in notebook.cells[:1])
    row = re.search(r"^\| run time \|(.*)\|$", text, re.MULTILINE)
    pattern = rf"\b{profile}: (?:about )?([\d.]+) minutes?( per seed)?([^;]*)"
    stated = row and re.search(pattern, row[1])
    if not stated:
        return 0.0, False, False
    return float(stated[1]), bool(stated[2]), "once" in stated[3]


def heading_above(notebook: nbformat.NotebookNode, index: int) -> str:
    """Nearest heading at or above a cell, without its hashes; empty if there is none."""
    for cell in reversed(notebook.cells[: index + 1]):
        if cell.cell_type == "markdown":
            lines = [line for line in cell.source.splitlines() if line.startswith("#")]
            if lines:
                return lines[-1].lstrip("#").strip()
    return ""


def _parse(source: str, name: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise NotebookError(f"{name}: not plain Python (magics are not allowed): {line}") from error


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
    expected = type(default) if annotation is None else _type(annotation)
    convert(default, expected, target.id)
    return target.id, Parameter(default=default, expected=expected)


def _type(annotation: ast.expr) -> Any:
    """Type that an annotation names; only built-in types and typing forms are known."""
    expression = compile(ast.Expression(annotation), "<parameters>", "eval")
    try:
        return eval(expression, {"__builtins__": {}, "typing": typing, **_TYPES})
    except (NameError, TypeError, AttributeError) as error:
        raise ValueError(f"unknown type {ast.unparse(annotation)!r}: {error}") from error


def _number_or_yaml(text: str) -> Any:
    try:
        return ast.literal_eval(text)  # YAML reads 1e-3 as text
    except (ValueError, SyntaxError):
        return yaml.safe_load(text)


def _called_name(node: ast.Call) -> str:
    function = node.func
    return getattr(function, "attr", getattr(function, "id", ""))
