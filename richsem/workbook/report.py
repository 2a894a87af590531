"""The report: every figure and table of the workbook on one page, read from the notebooks' files.

Nothing in it is typed in by hand: titles follow from ids, numbers, captions and provenance from the
files. A result that the user has made stands beside the one that is shipped; one without files is
"not run". The page's text is Markdown, which nbconvert turns into HTML.
"""

import base64
import html
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from nbconvert.filters import markdown2html
from PIL import Image

from richsem import paths
from richsem.config import Profile
from richsem.workbook import reference, results

NOT_RUN = "not run"
PICTURE_SIDE = 1400  # pixels of the longer side at most; the files beside the report are larger

FRAME = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: auto; padding: 1rem; }}
h2 {{ border-top: 1px solid #888; margin-top: 2.5rem; padding-top: 1rem; }}
img {{ max-width: 100%; height: auto; background: #fff; }}
.pair {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ flex: 1 1 28rem; margin: 0; }}
.scroll {{ overflow-x: auto; }} .anchor-link {{ display: none; }}
table {{ border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.25rem 0.7rem; border-bottom: 1px solid #888; vertical-align: top; }}
th {{ text-align: left; }}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
NOTES = {
    "smoke": "**The smoke profile only checks that everything runs: its numbers mean nothing.**",
    "demo": "The demo profile is a small detector on drawn images: compare the direction of "
    "differences, not numbers.",
    "paper": "",
}
CLAIMS = """\
Claims are stated at the top of their notebook, each with the difference that could refute it. A
claim *holds* if the whole 95 % interval of the difference, paired by seed, lies above its margin,
is *refuted* if it lies below, and is *open* otherwise. Intervals are not corrected for the number
of claims: of forty differences that are nothing, one would hold by chance, so a bound that only
just clears the margin is weak evidence."""


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
        known = {"id": name, "title": title(name), "notebook": notebook}
        entries.append(ReportEntry(**known, versions=versions, cells=_cells(name, versions)))
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


def overview(entries: Sequence[ReportEntry]) -> pd.DataFrame:
    """What there is: a line per version of each result, whether it was run, from what, and when."""
    columns = ["result", "run", "status", "notebook", "seeds", "code", "configuration", "finished"]
    rows = []
    for entry in entries:
        known = dict.fromkeys(columns, "") | {"result": entry.title, "notebook": entry.notebook}
        for version in entry.versions:
            own = {"run": version.made_by, "status": version.status}
            rows.append(known | own | fact_words(version.content["provenance"]))
        if not entry.versions:
            rows.append(known | {"status": NOT_RUN})
    return pd.DataFrame(rows, columns=columns).set_index("result")


def claims(entries: Sequence[ReportEntry]) -> pd.DataFrame:
    """Every claim that a result was tested for, its versions together, and the verdicts."""
    rows = [
        {**finding, "run": version.made_by, "result": entry.title}
        for entry in entries
        for version in entry.versions
        for finding in version.content.get("findings", ())
    ]
    frame = pd.DataFrame(rows, columns=[*results.FINDING_KEYS, "run", "result"])
    place = frame.groupby(["result", "claim"], sort=False).ngroup()
    return frame.iloc[place.argsort(kind="stable")].reset_index(drop=True)


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


def _cells(result_id: str, versions: Sequence[Version]) -> dict[str, list[str]]:
    """One table of all versions: their values of a metric stand beside each other."""
    if results.kind_of(result_id) != "table" or not versions:
        return published(result_id)
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


def page(entries: Sequence[ReportEntry], profile: Profile, made_from: Mapping[str, Any]) -> str:
    """The report as a page that needs no other file; `made_from` is its own provenance."""
    head = f"RichSem workbook: report of the {profile} profile"
    num_run = sum(bool(entry.versions) for entry in entries)
    parts = [
        f"# {head}",
        f"{num_run} of {len(entries)} figures and tables have been run. Every number, caption and "
        "hash on this page was read from the files that the notebooks wrote. *Yours* is what was "
        "made here, *shipped* what came with the project; published numbers stand beside both, "
        f"labelled, and never in their place. {NOTES[profile]}",
    ]
    places = {entry.title: f"[{entry.title}](#{entry.id})" for entry in entries}
    found = claims(entries)
    if len(found):
        parts += [_heading("claims", "What was claimed, and what came out"), CLAIMS]
        parts += [_table(found, places)]
    parts += [_heading("overview", "Overview"), _table(overview(entries).reset_index(), places)]
    for entry in entries:
        parts += _section(entry)
    parts += [_heading("made-from", "What this page was made from")]
    parts += [_facts({"this page": made_from})]
    body = markdown2html("\n\n".join(parts))
    # Markdown knows no headers of rows, and does not say which cells a header belongs to.
    body = re.sub(r"<tr>\n  <td[^>]*>(.*?)</td>", r'<tr>\n  <th scope="row">\1</th>', body)
    body = re.sub(r"<th(?=>| style)", '<th scope="col"', body)
    body = body.replace("<table>", '<div class="scroll"><table>')
    return FRAME.format(title=head, body=body.replace("</table>", "</table></div>"))


def _section(entry: ReportEntry) -> list[str]:
    """Title, picture or table, and what each version was made from."""
    parts = [_heading(entry.id, entry.title)]
    if not entry.versions:
        parts.append(f"**Not run**: notebook `{entry.notebook}` makes it.")
    for version in entry.versions:
        page = results.output_paths("report", version.content["profile"])[0]
        links = [
            _link(version.record.with_suffix(".csv"), "numbers", page),
            _link(version.record, "provenance", page),
            _link(_copy(version, entry.notebook), f"notebook {entry.notebook[:2]}", page),
        ]
        parts.append(f"**{version.made_by.capitalize()}**: {version.status} ({', '.join(links)})")
    if entry.cells:
        captions = dict.fromkeys(version.content["caption"] for version in entry.versions)
        parts += [_text(caption) for caption in captions]
        parts += ["The paper's numbers, for reference; ours were not run."] * (not captions)
        parts.append(_table(pd.DataFrame(entry.cells), {}))
    elif entry.versions:
        pictures = "\n".join(_figure(version) for version in entry.versions)
        parts.append(f'<div class="pair">\n{pictures}\n</div>')
    if entry.versions:
        parts.append(_facts({v.made_by: v.content["provenance"] for v in entry.versions}))
    return parts


def _heading(anchor: str, words: str) -> str:
    return f'<h2 id="{anchor}">{html.escape(words)}</h2>'


def _figure(version: Version) -> str:
    source = _data_uri(version.record.with_suffix(".png"))
    picture = f'<img src="{source}" alt="{html.escape(version.content["alt"])}">'
    words = html.escape(f"{version.made_by}: {version.content['caption']}")
    return f"<figure>\n{picture}\n<figcaption>{words}</figcaption>\n</figure>"


def _table(frame: pd.DataFrame, places: Mapping[str, str]) -> str:
    """A frame of texts in Markdown; cells named in `places` become links."""
    return results.markdown_table(
        {name: [places.get(cell, _text(cell)) for cell in frame[name]] for name in frame}
    )


def _facts(records: Mapping[str, Mapping[str, Any]]) -> str:
    """What results were made from, beside each other, and the runs behind them."""
    facts = {who: fact_words(record) for who, record in records.items()}
    names = list(next(iter(facts.values())))
    table = {"made from": names, **{who: list(words.values()) for who, words in facts.items()}}
    parts = [_table(pd.DataFrame(table), {})]
    for who, record in records.items():
        if runs := record["inputs"].get("runs"):
            head = f"{len(runs)} runs ({who}), each shown by <code>python -m richsem runs show NAME"
            names = f"{head}</code></summary>{', '.join(runs)}"
            parts.append(f"<details><summary>{names}</details>")
    return "\n\n".join(parts)


def _link(file: Path, words: str, page: Path) -> str:
    """Words with a link from the page to a file, if that is there."""
    if not file.is_file():
        return words
    return f"[{words}]({Path(os.path.relpath(file, page.parent)).as_posix()})"


def _copy(version: Version, notebook: str) -> Path:
    """Where the executed notebook of a version is; runs with `--into` keep theirs nearer."""
    copy = Path(version.content["profile"], f"{notebook}.ipynb")
    if version.made_by == "shipped":
        return paths.NOTEBOOKS / "shipped" / copy
    nearer = paths.FIGURES.parent / "notebooks" / copy
    return nearer if nearer.is_file() else paths.NOTEBOOKS / "executed" / copy


def _text(words: str) -> str:
    """Words that Markdown must not read as marks of its own."""
    return re.sub(r"([\\`*_])", r"\\\1", html.escape(str(words), quote=False))


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
