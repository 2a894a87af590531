"""Figures, tables and pages: declared in `results.toml`, written with numbers and provenance.

A figure becomes `<id>.{png,pdf,svg}`, a table `<id>.md`; both get `<id>.csv` with the numbers in
tidy form and `<id>.json` with the provenance, all in `figures/<profile>/`. A page that reads these
becomes `<id>.html` and `<id>.json`. Equal inputs give equal bytes. A published number stands beside
ours, labelled, and never in its place.
"""

import base64
import inspect
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import display

from richsem import paths
from richsem.config import PROFILES
from richsem.provenance import dumps

ENDINGS = {
    "figure": ("png", "pdf", "svg", "csv", "json"),
    "table": ("md", "csv", "json"),
    "page": ("html", "json"),
}


class Notebook(msgspec.Struct, frozen=True):
    """What a notebook writes, and its minutes on two cores, less what earlier ones leave cached."""

    smoke: float | None = None  # not known
    demo: float | None = None
    per_seed: bool = False  # whether the minutes at demo are for each of its SEEDS
    deciding: float = 0  # minutes at demo for each of DECIDING_SEEDS that is none of SEEDS
    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()  # made from all figures and tables
    asked: bool = False  # runs only where it is named

    @property
    def results(self) -> tuple[str, ...]:
        """Ids of all that it writes."""
        return self.figures + self.tables + self.pages


_DECLARED = Path(__file__).with_suffix(".toml").read_bytes()
NOTEBOOKS = msgspec.toml.decode(_DECLARED, type=dict[str, Notebook])
TABLE_COLUMNS = ("row", "metric", "paper", "ours", "ci_low", "ci_high", "num_seeds", "status")
# Ours only has no published number beside it; counted is a property, such as a number of boxes.
MEASURED = (
    "reproduced", "subset of the images", "ours only", "trend at demo scale", "rehearsal", "counted"
)  # fmt: skip
NOT_MEASURED = ("not run", "reference only")

# Of files, in the order of `ENDINGS`; lines stay lines in the last two.
FILE_DPI = {"png": 300, "pdf": 180, "svg": 160}
INLINE_DPI, INLINE_WIDTH = 110, 640  # or as many as make a narrow figure so many pixels wide
COLUMN, LEAST = 3.4, 5.0  # inches of a column of print, and points that all text has there


class ResultError(ValueError):
    """A figure or table that must not be published as it is."""


class Finding(NamedTuple):
    """What numbers say about a claim, in words."""

    claim: str
    difference: str
    seeds: str
    verdict: str
    stated: str  # "before" or "after" numbers were known
    mean: float | None = None  # of the difference, in points
    low: float | None = None  # ends of its interval; none of one seed
    high: float | None = None
    margin: float | None = None  # that the whole interval has to lie above


def writers(*kinds: str) -> dict[str, str]:
    """The notebook that writes each figure, table or page, by id."""
    return {
        name: notebook
        for kind in kinds or ENDINGS
        for notebook, what in NOTEBOOKS.items()
        for name in getattr(what, f"{kind}s")
    }


def kind_of(result_id: str) -> str:
    """Whether an id is that of a figure, a table or a page, see `ENDINGS`."""
    for kind in ENDINGS:
        if result_id in writers(kind):
            return kind
    raise ResultError(f"unknown result {result_id!r}; valid: {', '.join(writers())}")


def output_paths(result_id: str, profile: str, root: Path | None = None) -> tuple[Path, ...]:
    """All files of a figure, table or page, below `root` or else the user's figures."""
    if profile not in PROFILES:
        raise ResultError(f"unknown profile {profile!r}; valid: {', '.join(PROFILES)}")
    file = (root or paths.FIGURES) / profile / result_id
    return tuple(file.with_suffix(f".{ending}") for ending in ENDINGS[kind_of(result_id)])


def find(result_id: str, profile: str, own: Path | None = None) -> dict[str, Path]:
    """The json of each version of a result that is there: "yours" (below `own`), the "shipped"."""
    roots = {"yours": own or paths.FIGURES, "shipped": paths.SHIPPED}
    if roots["yours"] == paths.SHIPPED:  # while what is shipped is made
        del roots["yours"]
    found = {who: output_paths(result_id, profile, root)[-1] for who, root in roots.items()}
    return {who: record for who, record in found.items() if record.is_file()}


def usual_status(profile: str, *, published: bool = True, part: bool = False) -> str:
    """What numbers of a profile are, unless counted; has the paper them, and of more images?"""
    at_paper = ("subset of the images" if part else "reproduced") if published else "ours only"
    return {"paper": at_paper, "rehearsal": "rehearsal"}.get(profile, "trend at demo scale")


def save_figure(
    fig: Any,  # of matplotlib
    figure_id: str,  # in `NOTEBOOKS`
    *,
    profile: str,  # decides the folder
    alt: str,  # what the picture shows, for readers who cannot see it
    data: pd.DataFrame,  # the plotted numbers, one observation per line
    provenance: Mapping[str, Any],  # see `provenance.stamp`
    caption: str = "",  # sentence below the figure
    status: str = "",  # one of `MEASURED`; by default what the profile stands for
    findings: Sequence[Finding] = (),
) -> None:
    """Write a figure with the numbers it shows, display it and close it."""
    if not alt.strip():
        raise ResultError(f"{figure_id}: alt text is missing; say in a sentence what is shown")
    if data.empty:
        raise ResultError(f"{figure_id}: no numbers; pass the plotted values as `data`")
    status = status or usual_status(profile)
    if status not in MEASURED:
        raise ResultError(f"{figure_id}: status {status!r}; valid: {', '.join(MEASURED)}")
    texts = fig.findobj(lambda one: hasattr(one, "get_fontsize") and one.get_text())
    sizes = [text.get_fontsize() * COLUMN / fig.get_figwidth() for text in texts]
    if (least := min(sizes, default=LEAST)) < LEAST:
        raise ResultError(
            f"{figure_id}: in a column of {COLUMN} inches its text has {least:.1f} points, below "
            f"{LEAST}; draw panels below each other, or larger letters"
        )
    contents = [_render(fig, kind, figure_id, dpi) for kind, dpi in FILE_DPI.items()]
    contents.append(data.to_csv(index=False, lineterminator="\n"))
    record = {"alt": alt, "caption": caption, "status": status, "provenance": provenance}
    record["findings"] = [finding._asdict() for finding in findings]
    _write(figure_id, "figure", profile, contents, record)
    show_figure(fig, alt=alt, caption=f"*{figure_id}*: {caption or alt}")


def save_table(
    frame: pd.DataFrame,
    table_id: str,  # in `NOTEBOOKS`
    *,
    profile: str,  # decides the folder
    provenance: Mapping[str, Any],  # see `provenance.stamp`
    caption: str = "",  # sentence above the table
    decimals: int = 1,  # digits after the point in the readable form; the csv keeps all
    # Words about rows, by row name: {"LVIS": {"labels": "boxes"}}.
    details: Mapping[str, Mapping[str, str]] | None = None,
    findings: Sequence[Finding] = (),
    # What means were taken over, by row, metric and seed, for the json: differences of other pairs
    # can then be computed without training anything again.
    per_seed: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
) -> None:
    """Check, write and display a table: columns `TABLE_COLUMNS`, one line per row and metric.

    `paper` is the published value, `ours` the measured one with its confidence interval; empty
    means unknown.
    """
    frame = checked_table(frame, table_id)
    details = details or {}
    cells = table_cells({"ours": frame}, decimals, details)
    text = f"{caption}\n\n" * bool(caption) + markdown_table(cells)
    record = {"caption": caption, "details": details, "decimals": decimals}
    record |= {"per_seed": per_seed or {}, "provenance": provenance}
    record["findings"] = [finding._asdict() for finding in findings]
    numbers = frame.to_csv(index=False, lineterminator="\n")
    _write(table_id, "table", profile, [text, numbers], record)
    say(text)


def save_page(page: str, page_id: str, *, profile: str, provenance: Mapping[str, Any]) -> None:
    """Write a page (HTML that needs no other file) made from the data of its stamp; say where."""
    file = _write(page_id, "page", profile, [page], {"provenance": provenance})
    say(f"Written: `{paths.portable(str(file))}` ({len(page.encode()) / 1e6:.1f} MB).")


def show_figure(fig: Any, *, alt: str, caption: str = "") -> None:
    """Display a figure that is not published, with alt text and caption, and close it."""
    from matplotlib import pyplot as plt

    if get_ipython() is not None:
        # Photographs are several times smaller as JPEG, line art as PNG.
        kind = "jpeg" if any(ax.images for ax in fig.axes) else "png"
        dpi = max(INLINE_DPI, INLINE_WIDTH / fig.get_figwidth())
        picture = base64.b64encode(_render(fig, kind, "inline", dpi)).decode("ascii")
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
    """The table with columns in order and of numeric type; an error names what breaks a rule."""
    if set(frame.columns) != set(TABLE_COLUMNS):
        raise ResultError(
            f"{table_id}: columns must be {list(TABLE_COLUMNS)}, got {list(frame.columns)}"
        )
    if frame.empty:
        raise ResultError(f"{table_id}: the table is empty")
    frame = frame.loc[:, list(TABLE_COLUMNS)].reset_index(drop=True)
    for column in ("paper", "ours", "ci_low", "ci_high", "num_seeds"):
        try:
            frame[column] = pd.to_numeric(frame[column]).astype(float)
        except (TypeError, ValueError) as error:
            raise ResultError(f"{table_id}, column {column!r}: {error}") from error
    frame["num_seeds"] = frame["num_seeds"].fillna(0).astype(int)
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


def table_cells(
    frames: Mapping[str, pd.DataFrame], decimals: int, details: Mapping[str, Mapping[str, str]]
) -> dict[str, list[str]]:
    """Checked tables as text, by column: one line per row; per metric our values and the paper's.

    The first column (without a name) holds the rows' names, then come the `details`, by row name.
    There may be several versions of the table, by who measured them: {"ours": frame}.
    """
    together = pd.concat(frames.values())
    rows = list(dict.fromkeys(together["row"]))
    words = list(dict.fromkeys(key for row in rows for key in details.get(row, {})))
    columns = {"": [str(row) for row in rows]}
    columns |= {word: [details.get(row, {}).get(word, "") for row in rows] for word in words}
    for metric, of_all in together.groupby("metric", sort=False):
        for name, frame in frames.items():
            part = frame[frame["metric"] == metric].itertuples(index=False)
            measured = {record.row: _ours(record, decimals) for record in part}
            columns[f"{metric}, {name}"] = [measured.get(row, "-") for row in rows]
        published = dict(of_all[["row", "paper"]].dropna().itertuples(index=False))
        texts = {row: f"{value:,.{decimals}f}" for row, value in published.items()}
        if texts:
            columns[f"{metric}, paper"] = [texts.get(row, "-") for row in rows]
    statuses = together.groupby("row", sort=False)["status"].unique()
    columns["status"] = ["; ".join(statuses[row]) for row in rows]
    return columns


def markdown_table(columns: Mapping[str, Sequence[str]]) -> str:
    """Markdown table padded so that it reads well as plain text; numbers stand to the right."""
    padded = []
    for i, (name, cells) in enumerate(columns.items()):
        texts = [cell.replace("|", "\\|") for cell in (name, *cells)]
        width = max(3, *map(len, texts))
        numbers = i > 0 and are_numbers(cells)
        pad = str.rjust if numbers else str.ljust
        rule = "-" * (width - 1) + ":" if numbers else "-" * width
        padded.append([pad(texts[0], width), rule, *(pad(text, width) for text in texts[1:])])
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*padded, strict=True))


def are_numbers(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, some with intervals, and none but dashes between them."""
    return all(re.match(r"[-+]?[\d,.]+( \[|$)|-$", cell) for cell in cells)


def _write(
    result_id: str, kind: str, profile: str, contents: Sequence[bytes | str], record: dict
) -> Path:
    """Write a result, which must be of this kind, and its record; returns the first file."""
    files = output_paths(result_id, profile)
    if kind_of(result_id) != kind:
        valid = f"{kind}s: {', '.join(writers(kind))}"
        raise ResultError(f"{result_id!r} is a {kind_of(result_id)}; {valid}")
    text = dumps({"id": result_id, "profile": profile, **record})
    for path, content in zip(files, [*contents, text], strict=True):
        paths.write_noted(path, content)
    return files[0]


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


def _ours(record: Any, decimals: int) -> str:
    if np.isnan(record.ours):
        return "-"
    text = f"{record.ours:,.{decimals}f}"
    if np.isnan(record.ci_low):
        return text
    return f"{text} [{record.ci_low:,.{decimals}f}, {record.ci_high:,.{decimals}f}]"


def _render(fig: Any, file_format: str, figure_id: str, dpi: float) -> bytes:
    """Picture file without dates or random ids, so that equal figures give equal bytes."""
    import matplotlib as mpl  # tables need no plotting library

    metadata = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Date": None, "Creator": None},
    }.get(file_format)
    buffer = io.BytesIO()
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": figure_id}):
        fig.savefig(buffer, format=file_format, dpi=dpi, metadata=metadata, bbox_inches="tight")
    return buffer.getvalue()


def _display(data: dict[str, str], metadata: dict[str, Any] | None = None) -> None:
    """Show a bundle in a notebook; a plain script stays silent."""
    if get_ipython() is not None:
        display(data, metadata=metadata, raw=True)
