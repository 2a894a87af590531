"""The report: every figure and table of the workbook, read from the files that notebooks wrote.

Nothing in it is typed in by hand: titles follow from ids, numbers, captions and provenance from the
files. A result that the user has made stands beside the one that is shipped; one without files is
"not run".
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from richsem.config import Profile
from richsem.workbook import reference, results

NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What a report covers."""

    profile: Profile  # whose results
    results: tuple[str, ...]  # ids of all figures and tables it looked for


@dataclass(frozen=True, kw_only=True)
class Version:
    """A figure or table as it was made once."""

    made_by: str  # "yours" or "shipped"
    record: Path  # its json
    content: Mapping[str, Any]  # of the json: caption, provenance and more
    numbers: pd.DataFrame  # of the csv
    status: str  # in the words of `results`; several where rows differ


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One figure or table."""

    id: str
    title: str  # its name for a reader
    notebook: str  # that writes it
    versions: Sequence[Version]  # none if it was not run
    cells: Mapping[str, Sequence[str]]  # text by column, see `results.table_cells`; {} of a figure


def gather(profile: Profile) -> list[Entry]:
    """All figures and tables of the workbook by title, those that were not run among them."""
    entries = []
    for name, notebook in results.writers("figure", "table").items():
        found = results.find(name, profile)
        versions = [_version(name, who, record) for who, record in found.items()]
        cells = {}
        if results.kind_of(name) == "table":
            cells = _cells(versions) if versions else published(name)
        known = {"id": name, "title": title(name), "notebook": notebook}
        entries.append(Entry(**known, versions=versions, cells=cells))
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
    rows = [
        {"row": row, "metric": str(metric), "paper": paper, "num_seeds": 0, "status": NOT_RUN}
        for row, metrics in _rows(values)
        for metric, paper in metrics.items()
    ]
    if not rows:
        return {}
    frame = pd.DataFrame(rows).reindex(columns=list(results.TABLE_COLUMNS))
    return results.table_cells({"ours": results.checked_table(frame, result_id)}, 1, {})


def overview(entries: Sequence[Entry]) -> pd.DataFrame:
    """What there is: a line per version of each result, whether it was run, from what, and when."""
    columns = ["result", "run", "status", "notebook", "seeds", "code", "configuration", "finished"]
    rows = []
    for entry in entries:
        nothing = dict.fromkeys(columns, "") | {"result": entry.title, "notebook": entry.notebook}
        for version in entry.versions:
            facts = fact_words(version.content["provenance"])
            own = {"run": version.made_by, "status": version.status}
            rows.append(nothing | own | {name: facts[name] for name in columns[4:]})
        if not entry.versions:
            rows.append(nothing | {"status": NOT_RUN})
    return pd.DataFrame(rows, columns=columns).set_index("result")


def claims(entries: Sequence[Entry]) -> pd.DataFrame:
    """Every claim that a result was tested for, its versions together, and the verdicts."""
    rows = []
    for entry in entries:
        found = [
            {**finding, "run": version.made_by, "result": entry.title}
            for version in entry.versions
            for finding in version.content.get("findings", ())
        ]
        order = list(dict.fromkeys(finding["claim"] for finding in found))
        rows += sorted(found, key=lambda finding: order.index(finding["claim"]))
    return pd.DataFrame(rows, columns=[*results.FINDING_KEYS, "run", "result"])


def fingerprints(entries: Sequence[Entry]) -> dict[str, str]:
    """What the report was made from: the configuration behind each result that was run."""
    return {
        f"{entry.id} ({version.made_by})": version.content["provenance"]["inputs"]["config_hash"]
        for entry in entries
        for version in entry.versions
    }


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
    known = {"made_by": made_by, "record": record, "status": status}
    return Version(**known, content=content, numbers=numbers)


def _cells(versions: Sequence[Version]) -> dict[str, list[str]]:
    """One table of all versions: their values of a metric stand beside each other."""
    frames = {version.made_by: version.numbers for version in versions}
    if len(versions) == 1:
        frames = {"ours": versions[0].numbers}
    first, last = versions[0].content, versions[-1].content
    return results.table_cells(frames, first.get("decimals", 1), last["details"] | first["details"])


def _rows(values: Mapping[Any, Any], name: str = "") -> Iterator[tuple[str, Mapping]]:
    """Rows of nested published numbers, named by the keys that lead to them."""
    numbers = {key: value for key, value in values.items() if isinstance(value, float | int)}
    if numbers:
        yield name, numbers
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{name}: {key}" if name else str(key))
