"""The report: every figure and table of the workbook, read from the files that notebooks wrote.

Nothing in it is typed in by hand: titles follow from ids, notebooks from their sources, numbers,
captions and provenance from the files. What has no files is "not run".
"""

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from PIL import Image

from richsem import paths
from richsem.config import Profile
from richsem.workbook import notebook_source, reference, results
from richsem.workbook.report_page import PAGE

PICTURE_SIDE = 1400  # pixels of the longer side at most; the files beside the report are larger
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What a report covers.

    Attributes:
        profile: Whose results.
        results: Ids of all figures and tables it looked for.
    """

    profile: Profile
    results: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One figure or table.

    Attributes:
        id: Its id.
        title: Its name for a reader.
        status: In the words of `results`; several where rows differ.
        notebook: The notebook that writes it, "" if there is none yet.
        link: The notebook's executed copy, as seen from the report; "" if it was not run.
        caption: What it says about itself.
        alt: What the picture shows.
        picture: The picture as a data URI, "" for a table.
        cells: The table as text by column, see `results.table_cells`; empty for a figure.
        findings: What its numbers say about claims, see `results.FINDING_KEYS`.
        provenance: See `provenance.stamp`; None if it was not run.
    """

    id: str
    title: str
    status: str
    notebook: str
    link: str
    caption: str = ""
    alt: str = ""
    picture: str = ""
    cells: Mapping[str, Sequence[str]]
    findings: Sequence[Mapping[str, str]] = ()
    provenance: Mapping[str, Any] | None = None


def gather(profile: Profile, root: Path | None = None) -> list[Entry]:
    """All figures and tables of the workbook by title, those that were not run among them.

    Args:
        profile: Whose results.
        root: Folder of the figures; by default the project's.
    """
    root = root or paths.FIGURES
    notebooks = writers()
    entries = []
    for name, record in results.records(profile, root).items():
        notebook = notebooks.get(name, "")
        where = {"notebook": notebook, "link": _link(notebook, profile, root)}
        known = {"id": name, "title": title(name), **where}
        if not record.is_file():
            entries.append(Entry(**known, status=NOT_RUN, cells=published(name)))
        elif name in results.FIGURES:
            entries.append(_figure(known, record))
        else:
            entries.append(_table(known, record))
    return sorted(entries, key=lambda entry: entry.title)


def title(result_id: str) -> str:
    """What an id says: "table2_zero_shot" is "Table 2: zero shot"."""
    kind, number, words = re.fullmatch(r"(fig|table)?(\d*)_?(.*)", result_id).groups()
    kinds = {"fig": "Figure", "table": "Table", None: ""}
    head = f"{kinds[kind]} {number}".strip()
    words = words.replace("_", " ")
    return f"{head}: {words}" if head else words.capitalize()


def writers() -> dict[str, str]:
    """The notebook that writes each figure and table, by id."""
    found = {}
    for path in sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        notebook = notebook_source.read(path)
        found |= dict.fromkeys(notebook_source.result_ids(notebook, path.stem), path.stem)
    return found


def published(result_id: str) -> dict[str, list[str]]:
    """The paper's numbers of a table that was not run, as `results.table_cells`; {} without any."""
    number = re.match(r"table(\d+)_", result_id)
    values = getattr(reference, f"TABLE{number[1]}", {}) if number else {}
    rows = [
        {"row": row, "metric": str(metric), "paper": paper, "num_seeds": 0, "status": NOT_RUN}
        for row, metrics in _rows(values)
        for metric, paper in metrics.items()
    ]
    if not rows:
        return {}
    frame = pd.DataFrame(rows).reindex(columns=list(results.TABLE_COLUMNS))
    return results.table_cells(results.checked_table(frame, result_id), 1, {})


def overview(entries: Sequence[Entry]) -> pd.DataFrame:
    """One line per figure and table: what it is, whether it was run, from what, and when."""
    rows = []
    for entry in entries:
        inputs = entry.provenance["inputs"] if entry.provenance else {}
        run = entry.provenance["run"] if entry.provenance else {}
        rows.append(
            {
                "result": entry.title,
                "status": entry.status,
                "notebook": entry.notebook,
                "seeds": " ".join(map(str, inputs.get("seeds", []))),
                "configuration": inputs.get("config_hash", ""),
                "code": _commit(inputs.get("code", {})),
                "finished": run.get("finished", ""),
            }
        )
    return pd.DataFrame(rows).set_index("result")


def claims(entries: Sequence[Entry]) -> pd.DataFrame:
    """Every claim that a result was tested for, in the order of the entries, and its verdict."""
    rows = [{**found, "result": entry.title} for entry in entries for found in entry.findings]
    return pd.DataFrame(rows, columns=[*results.FINDING_KEYS, "result"])


def fingerprints(entries: Sequence[Entry]) -> dict[str, str]:
    """What the report was made from: the configuration behind each result that was run."""
    ran = {entry.id: entry.provenance for entry in entries if entry.provenance}
    return {name: record["inputs"]["config_hash"] for name, record in ran.items()}


def page(entries: Sequence[Entry], profile: Profile, made_from: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file.

    Args:
        entries: As `gather` gives them.
        profile: Whose results these are.
        made_from: Provenance of the report itself.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["facts"] = facts
    environment.filters["is_number"] = _is_number
    environment.globals["zip"] = zip
    table = overview(entries).reset_index()
    return environment.from_string(PAGE).render(
        entries=entries,
        profile=profile,
        columns=[name for name in table if name != "result"],
        lines=list(zip(entries, table.to_dict("records"), strict=True)),
        made_from=made_from,
        keys=results.FINDING_KEYS,
        num_claims=sum(len(entry.findings) for entry in entries),
        num_run=sum(entry.provenance is not None for entry in entries),
    )


def facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as words for a reader."""
    inputs, run = record["inputs"], record["run"]
    return {
        "code": _commit(inputs["code"]),
        "configuration": f"{inputs['config']['class']} {inputs['config_hash']}",
        "data": ", ".join(f"{name} {value}" for name, value in inputs["data"].items()),
        "seeds": " ".join(map(str, inputs["seeds"])),
        "device": record["environment"]["device"],
        "time": f"{run['wall_seconds']:.0f} s, finished {run['finished']}",
    }


# --- inside --------------------------------------------------------------------------------------


def _figure(known: Mapping[str, str], record: Path) -> Entry:
    content = json.loads(record.read_bytes())
    return Entry(
        **known,
        status=content.get("status", results.usual_status(content["profile"])),
        caption=content["caption"],
        alt=content["alt"],
        picture=_data_uri(record.with_suffix(".png")),
        cells={},
        findings=content.get("findings", ()),
        provenance=content["provenance"],
    )


def _table(known: Mapping[str, str], record: Path) -> Entry:
    content = json.loads(record.read_bytes())
    frame = results.checked_table(pd.read_csv(record.with_suffix(".csv")), known["id"])
    return Entry(
        **known,
        status="; ".join(frame["status"].unique()),
        caption=content["caption"],
        cells=results.table_cells(frame, content.get("decimals", 1), content["details"]),
        findings=content.get("findings", ()),
        provenance=content["provenance"],
    )


def _data_uri(path: Path) -> str:
    """The picture, scaled down: photographs as JPEG, line art as PNG of 256 colours."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    photograph, line_art = _saved(picture, "jpeg", quality=88), _saved(picture, "png")
    kind, content = "jpeg", photograph
    if 2 * len(photograph) > len(line_art):  # JPEG blurs lines, and gains little on them
        few = picture.quantize(256, dither=Image.Dither.NONE)
        kind, content = "png", _saved(few, "png", optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _link(notebook: str, profile: Profile, root: Path) -> str:
    """Path from `root/<profile>` to an executed notebook; runs with `--into` keep theirs nearer."""
    for folder in ("notebooks/executed", "notebooks"):
        copy = f"{folder}/{profile}/{notebook}.ipynb"
        if notebook and (root.parent / copy).is_file():
            return f"../../{copy}"
    return ""


def _rows(values: Mapping[Any, Any], name: str = "") -> Iterator[tuple[str, Mapping]]:
    """Rows of nested published numbers, named by the keys that lead to them."""
    numbers = {key: value for key, value in values.items() if isinstance(value, float | int)}
    if numbers:
        yield name, numbers
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{name}: {key}" if name else str(key))


def _commit(code: Mapping[str, Any]) -> str:
    name = str(code.get("commit") or code.get("version") or "")[:10]
    return name + " with uncommitted changes" * bool(code.get("dirty"))


def _is_number(text: str) -> bool:
    return bool(re.match(r"[-+]?[\d,.]+( \[|$)|-$", text))
