"""The report: every figure and table of the workbook on one page, read from the notebooks' files.

Nothing in it is typed in by hand: titles follow from ids, numbers, captions and provenance from the
files. A result that the user has made stands beside the one that is shipped; one without files is
"not run". How the page looks is in `report.html`.
"""

import base64
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from PIL import Image

from richsem import paths
from richsem.config import Profile
from richsem.workbook import reference, reproduced, results, study

NOT_RUN = "not run"
TEMPLATE = Path(__file__).with_suffix(".html")
PICTURE_WIDTH = 800  # pixels at most; the files beside the report are larger


@dataclass(frozen=True, kw_only=True)
class Version:
    """A figure or table as it was made once."""

    made_by: str  # "yours" or "shipped"
    record: Path  # its json
    content: Mapping[str, Any]  # of the json: caption, provenance and more
    numbers: pd.DataFrame  # of the csv
    status: str  # in the words of `results`; several where rows differ


@dataclass(frozen=True, kw_only=True)
class ReportEntry:
    """One figure or table."""

    id: str
    title: str  # its name for a reader
    notebook: str  # that writes it
    versions: Sequence[Version]  # none if it was not run
    cells: Mapping[str, Sequence[str]]  # text by column, see `results.table_cells`; {} of a figure


def gather(profile: Profile) -> list[ReportEntry]:
    """All figures and tables of the workbook by title, those that were not run among them."""
    entries = []
    for name, notebook in results.writers("figure", "table").items():
        found = results.find(name, profile)
        versions = [_version(name, who, record) for who, record in found.items()]
        told = {"versions": versions, "cells": published(name)}
        if versions and results.kind_of(name) == "table":
            told["cells"] = _cells(versions)
        entries.append(ReportEntry(id=name, title=title(name), notebook=notebook, **told))
    return sorted(entries, key=lambda entry: entry.title)


def title(result_id: str) -> str:
    """What an id says: "table2_zero_shot" is "Table 2: zero shot"."""
    kind, number, words = re.fullmatch(r"(fig|table)?(\d*)_?(.*)", result_id).groups()
    kinds = {"fig": "Figure", "table": "Table", None: ""}
    head = f"{kinds[kind]} {number}".strip()
    words = words.replace("_", " ")
    return f"{head}: {words}" if head else words.capitalize()


def published(result_id: str) -> dict[str, list[str]]:
    """The paper's numbers of a table that was not run, as `results.table_cells`; {} without any."""
    number = re.match(r"table(\d+)_", result_id)
    values = getattr(reference, f"TABLE{number[1]}", {}) if number else {}
    # Rows are named by the keys that lead to them: "dino: baseline: AP" -> 32.2.
    (flat,) = pd.json_normalize(values, sep=": ").to_dict("records")
    rows = [
        (*key.rpartition(": ")[::2], paper)
        for key, paper in flat.items()
        if isinstance(paper, float | int)
    ]
    if not rows:
        return {}
    frame = pd.DataFrame(rows, columns=["row", "metric", "paper"])
    frame = frame.assign(num_seeds=0, status=NOT_RUN).reindex(columns=list(results.TABLE_COLUMNS))
    return results.table_cells({"ours": results.checked_table(frame, result_id)}, 1, {})


def overview(entries: Sequence[ReportEntry]) -> pd.DataFrame:
    """What there is: a line per version of each result, whether it was run, from what, and when."""
    columns = ["result", "run", "status", "notebook", "seeds", "code", "configuration", "finished"]
    rows = []
    for entry in entries:
        line = dict.fromkeys(columns, "") | {"result": entry.title, "notebook": entry.notebook}
        for version in entry.versions:
            own = {"run": version.made_by, "status": version.status}
            rows.append(line | own | fact_words(version.content["provenance"]))
        if not entry.versions:
            rows.append(line | {"status": NOT_RUN})
    return pd.DataFrame(rows, columns=columns).set_index("result")


def claims(entries: Sequence[ReportEntry]) -> pd.DataFrame:
    """Every claim that a result was tested for, its versions together, and the verdicts.

    Columns: those of `results.Finding` (numbers in points), run, result and its id. Results made
    before claims said when they were stated leave that open.
    """
    rows = [
        {"stated": ""} | finding | {"run": version.made_by, "result": entry.title, "id": entry.id}
        for entry in entries
        for version in entry.versions
        for finding in version.content.get("findings", ())
    ]
    frame = pd.DataFrame(rows, columns=[*results.Finding._fields, "run", "result", "id"])
    frame = frame.astype(dict.fromkeys(("mean", "low", "high", "margin"), float))
    place = frame.groupby(["result", "claim"], sort=False).ngroup()
    return frame.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def at_once(claims: pd.DataFrame) -> pd.DataFrame:
    """The same `claims`, at least one, each result's judged at once, too: `study.at_once`."""
    words = claims["difference"].str.split().str[1]  # "+1.0 AP [-0.20, 2.20]"
    claims = claims.dropna(subset=["mean", "margin"])  # of older results words alone are known
    claims = claims.assign(metric=words, seeds=claims["seeds"].astype(int))
    tables = [study.at_once(own) for _, own in claims.groupby(["id", "run"], sort=False)]
    return pd.concat(tables)


def fact_words(record: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as words for a reader."""
    inputs, run = record["inputs"], record["run"]
    code = inputs["code"]
    commit = str(code.get("commit") or code.get("version") or "")[:10]
    return {
        "seeds": " ".join(map(str, inputs["seeds"])),
        "code": commit + " with uncommitted changes" * bool(code.get("dirty")),
        "configuration": f"{inputs['config']['class']} {inputs['config_hash']}",
        "data": ", ".join(f"{name} {value}" for name, value in inputs["data"].items()),
        "device": record["environment"]["device"],
        "seconds": f"{run['wall_seconds']:.0f}",
        "finished": run["finished"],
    }


def _version(result_id: str, made_by: str, record: Path) -> Version:
    content, numbers = json.loads(record.read_bytes()), pd.read_csv(record.with_suffix(".csv"))
    if results.kind_of(result_id) == "table":
        numbers = results.checked_table(numbers, result_id)
        status = "; ".join(numbers["status"].unique())
    else:
        status = content.get("status", results.usual_status(content["profile"]))
    return Version(made_by=made_by, record=record, content=content, numbers=numbers, status=status)


def _cells(versions: Sequence[Version]) -> dict[str, list[str]]:
    """One table of all versions: their values of a metric stand beside each other."""
    alone = len(versions) == 1
    frames = {"ours" if alone else version.made_by: version.numbers for version in versions}
    first, last = versions[0].content, versions[-1].content
    return results.table_cells(frames, first.get("decimals", 1), last["details"] | first["details"])


def page(entries: Sequence[ReportEntry], profile: Profile, made_from: Mapping[str, Any]) -> str:
    """The report as a page that needs no other file; `made_from` is its own provenance."""
    jinja = Environment(autoescape=True, undefined=StrictUndefined)
    folder = results.output_paths("report", profile)[0].parent
    jinja.filters |= {
        "facts": _facts,
        "data_uri": _data_uri,
        "kind": lambda cells: "number" if results.are_numbers(cells) else "text",
        "below": lambda file: Path(os.path.relpath(file, folder)).as_posix(),
    }
    jinja.globals |= {"zip": zip, "copy": _copy}
    jinja.tests["begins"] = str.startswith
    return jinja.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        profile=profile,
        entries=entries,
        claims=claims(entries).replace({np.nan: None}).to_dict("records"),
        overview=overview(entries).reset_index().to_dict("list"),
        reproduced=reproduced.in_words(reproduced.compared(profile)).splitlines(),
        made_from=made_from,
    )


def _facts(records: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """What results were made from, beside each other, by column."""
    facts = pd.DataFrame({who: fact_words(record) for who, record in records.items()})
    return facts.rename_axis("made from").reset_index().to_dict("list")


def _copy(version: Version, notebook: str) -> Path:
    """Where the executed notebook of a version is; runs with `--into` keep theirs nearer."""
    copy = Path(version.content["profile"], f"{notebook}.ipynb")
    if version.made_by == "shipped":
        return paths.NOTEBOOKS / "shipped" / copy
    nearer = paths.FIGURES.parent / "notebooks" / copy
    return nearer if nearer.is_file() else paths.NOTEBOOKS / "executed" / copy


def _data_uri(path: Path) -> str:
    """The picture, scaled down, as WebP: photographs with small losses, line art in 256 colours."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
    picture.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
    few = picture.quantize(256, dither=Image.Dither.NONE).convert("RGB")
    photograph, line_art = io.BytesIO(), io.BytesIO()
    picture.save(photograph, "webp", quality=82, method=6)
    few.save(line_art, "webp", lossless=True)
    # Losses blur lines, and gain little on them.
    content = line_art if 2 * photograph.tell() > line_art.tell() else photograph
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
