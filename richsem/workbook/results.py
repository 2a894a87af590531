"""Figures and tables: one stable id each, written with their numbers and provenance.

A figure becomes `<id>.{png,pdf,svg}`, a table `<id>.md`; both get `<id>.csv` with the numbers in
tidy form and `<id>.json` with the provenance, all in `figures/<profile>/`. A page that reads these
becomes `<id>.html` and `<id>.json`. Equal inputs give equal bytes. A published number stands beside
ours, labelled, and never in its place.
"""

import base64
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import display

from richsem import paths
from richsem.config import PROFILES
from richsem.provenance import dumps

FIGURES = (
    "fig1_noise",
    "fig2_annotation_drop",
    "fig3_frequency",
    "fig4_qualitative",
    "fig4_where_richsem_loses",
    "fig_gain_by_class",
    "fig_learning_curves",
    "fig_scaling",
)
TABLES = (
    "datasets",
    "table1_scaling",
    "table2_zero_shot",
    "table3_other_datasets",
    "table4_versus_detic",
    "extra_data_kinds",
)
PAGES = ("report",)  # made from all figures and tables
TABLE_COLUMNS = ("row", "metric", "paper", "ours", "ci_low", "ci_high", "num_seeds", "status")
# Ours only has no published number beside it; counted is a property, such as a number of boxes.
MEASURED = ("reproduced", "ours only", "trend at demo scale", "counted")
NOT_MEASURED = ("not run", "reference only")
FINDING_KEYS = ("claim", "difference", "seeds", "verdict")  # what numbers say about a claim

FILE_DPI = 300
PHOTO_DPI = {"png": 150, "pdf": 90, "svg": 90}  # of figures with photographs; lines stay lines
INLINE_DPI = 110


class ResultError(ValueError):
    """A figure or table that must not be published as it is."""


def output_paths(result_id: str, profile: str, root: Path | None = None) -> tuple[Path, ...]:
    """All files of a figure, table or page, below `root` or else the project's figures.

    Raises:
        ResultError: The id or the profile is unknown.
    """
    if profile not in PROFILES:
        raise ResultError(f"unknown profile {profile!r}; valid: {', '.join(PROFILES)}")
    if result_id not in FIGURES + TABLES + PAGES:
        valid = ", ".join(FIGURES + TABLES + PAGES)
        raise ResultError(f"unknown result {result_id!r}; valid: {valid}")
    endings = ("html", "json")
    if result_id in FIGURES:
        endings = ("png", "pdf", "svg", "csv", "json")
    elif result_id in TABLES:
        endings = ("md", "csv", "json")
    folder = (root or paths.FIGURES) / profile
    return tuple(folder / f"{result_id}.{ending}" for ending in endings)


def records(profile: str, root: Path | None = None) -> dict[str, Path]:
    """Where the provenance of every figure and table is (or would be), by id."""
    return {name: output_paths(name, profile, root)[-1] for name in FIGURES + TABLES}


def usual_status(profile: str, *, published: bool = True) -> str:
    """What numbers of a profile are, unless they are counted.

    Args:
        profile: Where they were measured.
        published: Whether the paper has the same quantity.
    """
    at_paper = "reproduced" if published else "ours only"
    return at_paper if profile == "paper" else "trend at demo scale"


def save_figure(
    fig: Any,
    figure_id: str,
    *,
    profile: str,
    alt: str,
    data: pd.DataFrame,
    provenance: Mapping[str, Any],
    caption: str = "",
    status: str = "",
    findings: Sequence[Mapping[str, str]] = (),
) -> None:
    """Write a figure with the numbers it shows, display it and close it.

    Args:
        fig: Matplotlib figure.
        figure_id: One of `FIGURES`.
        profile: Decides the folder.
        alt: What the picture shows, for readers who cannot see it.
        data: The plotted numbers, one observation per line.
        provenance: See `provenance.stamp`.
        caption: Sentence below the figure.
        status: What its numbers are, one of `MEASURED`; by default what the profile stands for.
        findings: What the numbers say about claims, see `FINDING_KEYS`.

    Raises:
        ResultError: Something is missing or unknown.
    """
    files = output_paths(figure_id, profile)
    if figure_id not in FIGURES:
        raise ResultError(f"{figure_id!r} is a table; figures: {', '.join(FIGURES)}")
    if not alt.strip():
        raise ResultError(f"{figure_id}: alt text is missing; say in a sentence what is shown")
    if data.empty:
        raise ResultError(f"{figure_id}: no numbers; pass the plotted values as `data`")
    status = status or usual_status(profile)
    if status not in MEASURED:
        raise ResultError(f"{figure_id}: status {status!r}; valid: {', '.join(MEASURED)}")
    found = _checked_findings(findings, figure_id)
    # Rendered before anything is written: a figure that fails leaves the old files whole.
    has_photos = any(ax.images for ax in fig.axes)
    contents = []
    for file_format in (file.suffix[1:] for file in files[:3]):
        dpi = PHOTO_DPI[file_format] if has_photos else FILE_DPI
        contents.append(_render(fig, file_format, figure_id, dpi))
    record = {"id": figure_id, "profile": profile, "alt": alt, "caption": caption}
    record |= {"status": status, "findings": found}
    contents += [_csv(data), dumps(record | {"provenance": provenance})]
    for path, content in zip(files, contents, strict=True):
        paths.write_atomic(path, content)
    show_figure(fig, alt=alt, caption=f"*{figure_id}*: {caption or alt}")


def save_table(
    frame: pd.DataFrame,
    table_id: str,
    *,
    profile: str,
    provenance: Mapping[str, Any],
    caption: str = "",
    decimals: int = 1,
    details: Mapping[str, Mapping[str, str]] | None = None,
    findings: Sequence[Mapping[str, str]] = (),
    per_seed: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
) -> None:
    """Check, write and display a table of results.

    Args:
        frame: Columns `TABLE_COLUMNS`, one line per row and metric. `paper` is the published
            value, `ours` the measured one with its confidence interval; empty means unknown.
        table_id: One of `TABLES`.
        profile: Decides the folder.
        provenance: See `provenance.stamp`.
        caption: Sentence above the table.
        decimals: Digits after the point in the readable form; the csv keeps full precision.
        details: Words about rows, by row name: {"LVIS": {"labels": "boxes"}}.
        findings: What the numbers say about claims, see `FINDING_KEYS`.
        per_seed: What means were taken over, by row, metric and seed, for the json: differences
            of other pairs can then be computed without training anything again.

    Raises:
        ResultError: A number or status is missing or contradicts another.
    """
    files = output_paths(table_id, profile)
    if table_id not in TABLES:
        raise ResultError(f"{table_id!r} is a figure; tables: {', '.join(TABLES)}")
    frame = checked_table(frame, table_id)
    details = details or {}
    text = f"{caption}\n\n" * bool(caption) + table_markdown(frame, decimals, details)
    record = {"id": table_id, "profile": profile, "caption": caption, "details": details}
    record |= {"decimals": decimals, "findings": _checked_findings(findings, table_id)}
    record |= {"per_seed": per_seed or {}}
    contents = (text, _csv(frame), dumps(record | {"provenance": provenance}))
    for path, content in zip(files, contents, strict=True):
        paths.write_atomic(path, content)
    _display({"text/markdown": text, "text/plain": text})


def save_page(page: str, page_id: str, *, profile: str, provenance: Mapping[str, Any]) -> None:
    """Write a page that can be read without Jupyter, and say where it is.

    Args:
        page: HTML that needs no other file.
        page_id: One of `PAGES`.
        profile: Decides the folder.
        provenance: See `provenance.stamp`; its data are the results that were read.
    """
    if page_id not in PAGES:
        raise ResultError(f"{page_id!r} is no page; pages: {', '.join(PAGES)}")
    target, record = output_paths(page_id, profile)
    paths.write_atomic(target, page)
    content = {"id": page_id, "profile": profile, "provenance": provenance}
    paths.write_atomic(record, dumps(content))
    say(f"Written: `{paths.portable(str(target))}` ({len(page.encode()) / 1e6:.1f} MB).")


def show_figure(fig: Any, *, alt: str, caption: str = "") -> None:
    """Display a figure with its alt text and a caption in a notebook, and close it.

    For pictures that are looked at and not published; `save_figure` shows its figures itself.
    """
    from matplotlib import pyplot as plt

    if get_ipython() is not None:
        # Photographs are several times smaller as JPEG, line art as PNG.
        kind = "jpeg" if any(ax.images for ax in fig.axes) else "png"
        picture = base64.b64encode(_render(fig, kind, "inline", INLINE_DPI)).decode("ascii")
        mime = f"image/{kind}"
        _display({mime: picture, "text/plain": alt}, {mime: {"alt": alt}})
        _display({"text/markdown": caption or alt, "text/plain": caption or alt})
    plt.close(fig)  # or the notebook would show it a second time


def say(text: str) -> None:
    """Display a Markdown sentence whose numbers were computed by the cell that says it."""
    _display({"text/markdown": text, "text/plain": text})


def show_source(function: Callable) -> None:
    """Display the library's own code of a function, so that text and code cannot part."""
    source = inspect.getsource(function)
    _display({"text/markdown": f"```python\n{source}```", "text/plain": source})


def checked_table(frame: pd.DataFrame, table_id: str) -> pd.DataFrame:
    """The table with its columns in order and of numeric type.

    Raises:
        ResultError: Names the first record that breaks a rule.
    """
    if set(frame.columns) != set(TABLE_COLUMNS):
        raise ResultError(
            f"{table_id}: columns must be {list(TABLE_COLUMNS)}, got {list(frame.columns)}"
        )
    if frame.empty:
        raise ResultError(f"{table_id}: the table is empty")
    frame = frame.loc[:, list(TABLE_COLUMNS)].reset_index(drop=True)
    for column in ("paper", "ours", "ci_low", "ci_high"):
        frame[column] = _as_float(frame[column], table_id)
    frame["num_seeds"] = _as_float(frame["num_seeds"], table_id).fillna(0).astype(int)
    repeated = frame[frame.duplicated(["row", "metric"])]
    if len(repeated):
        record = repeated.iloc[0]
        raise ResultError(f"{table_id}: {record.row!r} has {record.metric!r} twice")
    for record in frame.itertuples(index=False):
        problem = _record_problem(record)
        if problem:
            raise ResultError(
                f"{table_id}, row {record.row!r}, metric {record.metric!r}: {problem}"
            )
    return frame


def table_markdown(
    frame: pd.DataFrame, decimals: int, details: Mapping[str, Mapping[str, str]]
) -> str:
    """Readable form of a checked table: `table_cells` as Markdown."""
    columns = table_cells(frame, decimals, details)
    words = {word for own in details.values() for word in own}
    num_text_columns = 1 + sum(name in words for name in columns)
    return _markdown_lines(columns, range(num_text_columns, len(columns) - 1))


def table_cells(
    frame: pd.DataFrame, decimals: int, details: Mapping[str, Mapping[str, str]]
) -> dict[str, list[str]]:
    """A checked table as text, by column: one line per row, ours and the paper's value per metric.

    The first column (without a name) holds the rows' names, then come the `details`.
    """
    rows = list(dict.fromkeys(frame["row"]))
    words = list(dict.fromkeys(key for row in rows for key in details.get(row, {})))
    columns = {"": [str(row) for row in rows]}
    columns |= {word: [details.get(row, {}).get(word, "") for row in rows] for word in words}
    for metric, part in frame.groupby("metric", sort=False):
        records = {record.row: record for record in part.itertuples(index=False)}
        found = [records.get(row) for row in rows]
        columns[f"{metric}, ours"] = [_ours(record, decimals) for record in found]
        if part["paper"].notna().any():
            columns[f"{metric}, paper"] = [_paper(record, decimals) for record in found]
    statuses = frame.groupby("row", sort=False)["status"].unique()
    columns["status"] = ["; ".join(statuses[row]) for row in rows]
    return columns


def _record_problem(record: Any) -> str | None:
    """What is wrong with one line of a table, or None."""
    measured, interval = not np.isnan(record.ours), np.isnan([record.ci_low, record.ci_high])
    if record.status not in MEASURED + NOT_MEASURED:
        return f"unknown status {record.status!r}; valid: {', '.join(MEASURED + NOT_MEASURED)}"
    if measured != (record.status in MEASURED):
        have = "a value" if measured else "no value"
        return f"status {record.status!r} with {have} in `ours`"
    if record.status == "reference only" and np.isnan(record.paper):
        return "status 'reference only' without a value in `paper`"
    if interval.any() != interval.all() or (not measured and not interval.all()):
        return "give both ci_low and ci_high, and only beside a value in `ours`"
    if record.ci_low > record.ci_high:
        return f"ci_low {record.ci_low} is above ci_high {record.ci_high}"
    if measured != (record.num_seeds > 0):
        return f"num_seeds is {record.num_seeds}; it counts the seeds behind `ours`"
    return None


def _checked_findings(found: Sequence[Mapping[str, str]], result_id: str) -> list[dict[str, str]]:
    for finding in found:
        if set(finding) != set(FINDING_KEYS):
            raise ResultError(
                f"{result_id}: a finding has the keys {list(FINDING_KEYS)}, not {list(finding)}"
            )
    return [dict(finding) for finding in found]


def _as_float(column: pd.Series, table_id: str) -> pd.Series:
    try:
        return pd.to_numeric(column).astype(float)
    except (TypeError, ValueError) as error:
        raise ResultError(f"{table_id}, column {column.name!r}: {error}") from error


def _ours(record: Any, decimals: int) -> str:
    if record is None or np.isnan(record.ours):
        return "-"
    text = f"{record.ours:,.{decimals}f}"
    if np.isnan(record.ci_low):
        return text
    return f"{text} [{record.ci_low:,.{decimals}f}, {record.ci_high:,.{decimals}f}]"


def _paper(record: Any, decimals: int) -> str:
    return "-" if record is None or np.isnan(record.paper) else f"{record.paper:,.{decimals}f}"


def _markdown_lines(columns: Mapping[str, list[str]], right: range) -> str:
    """Markdown table padded so that it reads well as plain text; columns `right` hold numbers."""
    lines: list[list[str]] = [[], [], *([] for _ in next(iter(columns.values())))]
    for i, (name, cells) in enumerate(columns.items()):
        cells = [cell.replace("|", "\\|") for cell in (name, *cells)]
        width = max(3, *map(len, cells))
        pad = str.rjust if i in right else str.ljust
        rule = "-" * (width - 1) + ":" if i in right else "-" * width
        padded = [pad(cell, width) for cell in cells]
        for line, cell in zip(lines, [padded[0], rule, *padded[1:]], strict=True):
            line.append(cell)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")


def _render(fig: Any, file_format: str, figure_id: str, dpi: int) -> bytes:
    """Picture file without dates or random ids, so that equal figures give equal bytes."""
    import matplotlib as mpl  # tables need no plotting library

    metadata = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Date": None, "Creator": None},
        "jpeg": None,
    }[file_format]
    buffer = io.BytesIO()
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": figure_id}):
        fig.savefig(buffer, format=file_format, dpi=dpi, metadata=metadata, bbox_inches="tight")
    return buffer.getvalue()


def _display(data: dict[str, str], metadata: dict[str, Any] | None = None) -> None:
    """Show a bundle in a notebook; a plain script stays silent."""
    if get_ipython() is not None:
        display(data, metadata=metadata, raw=True)
