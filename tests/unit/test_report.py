"""The report says what was run, from what, and what was not."""

import dataclasses
import functools
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from richsem import paths, provenance
from richsem.operations import store
from richsem.recipes.dino_recipes import baseline
from richsem.workbook import report, results
from richsem.workbook.study import StudyConfig

FINDING = {
    "claim": "A <is> better", "difference": "+1.0 AP [-0.20, 2.20]", "seeds": "2",
    "verdict": "open: the interval includes the margin", "stated": "before",
    "mean": 1.0, "low": -0.2, "high": 2.2, "margin": 0.0,
}  # fmt: skip


class Checker(HTMLParser):
    """Collects what is in a page; fails on tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        if tag not in ("meta", "img", "br", "link", "hr", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == [] and len(checker.ids) == len(set(checker.ids))
    checker.text = " ".join(checker.text)
    return checker


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    steps: int = 3


@functools.cache
def stamp(seeds=(0, 1)):
    return provenance.stamp(Made(), seeds, {"MiniLVIS val": "abc123"}, 0.0)


def save_some(table_seeds=(0, 1), ours=47.64, findings=(FINDING,)):
    """A table with a measured row and one that was not run, and a figure."""
    row = {"row": "dino: <baseline>", "metric": "AP", "paper": 32.2, "ours": ours}
    row |= {"ci_low": 46.0, "ci_high": 49.0, "num_seeds": 2, "status": "trend at demo scale"}
    missing = row | {"row": "centernet2: baseline", "ours": np.nan, "ci_low": np.nan}
    missing |= {"ci_high": np.nan, "num_seeds": 0, "status": "not run"}
    results.save_table(
        pd.DataFrame([row, missing]), "table4_versus_detic", profile="demo",
        provenance=stamp(table_seeds), caption="Box AP, 2 seeds.", decimals=2,
        findings=[results.Finding(**finding) for finding in findings],
    )  # fmt: skip
    data = pd.DataFrame({"noise": [0, 1], "top5": [1, 0]})
    fig = data.plot("noise", figsize=(4, 3)).figure
    results.save_figure(
        fig, "fig1_noise", profile="demo", alt='A line that "falls".', data=data,
        provenance=stamp(), caption="It falls.", status="counted",
    )  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a user's results, and of the same ones as shipped with the project."""
    yours, shipped = (tmp_path_factory.mktemp(name) for name in ("yours", "shipped"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "FIGURES", yours)
        save_some()
        patch.setattr(paths, "FIGURES", shipped)
        save_some(table_seeds=tuple(range(5)), ours=47.5)
    return yours, shipped


@pytest.fixture
def some_results(figures, saved):
    shutil.copytree(saved[0], figures)
    return figures


@pytest.fixture
def both(some_results, saved):
    shutil.copytree(saved[1], paths.SHIPPED)
    return some_results


def page_of(profile="demo"):
    entries = report.gather(profile)
    return entries, read(report.page(entries, profile, stamp()))


def cells_of(entries, name):
    (cells,) = [entry.cells for entry in entries if entry.id == name]
    return cells


def test_every_result_is_there_without_other_files_and_missing_ones_are_not_run(some_results):
    entries, page = page_of()
    ids = {entry.id for entry in entries}
    assert ids == set(results.writers("figure", "table"))
    status = report.overview(entries)["status"].to_dict()
    assert status.pop("Table 4: versus detic") == "trend at demo scale; not run"
    assert status.pop("Figure 1: noise") == "counted" and set(status.values()) == {"not run"}
    assert {f"#{name}" for name in ids} <= set(page.links) and ids <= set(page.ids)
    assert f"2 of {len(entries)} figures and tables have been made" in page.text
    (picture,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert picture["alt"] == 'A line that "falls".'
    assert picture["src"].startswith("data:image/webp;base64,")
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe")]
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]  # of its own
    assert ("html", {"lang": "en"}) in page.tags
    headers = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    assert set(headers) == {"col", "row", "rowgroup"}
    entries, page = page_of("smoke")  # of which nothing was run
    assert set(report.overview(entries)["status"]) == {"not run"}
    assert "its numbers mean nothing" in page.text


def test_numbers_keep_their_digits_claims_come_first_and_provenance_is_named(some_results):
    entries, page = page_of()
    cells = cells_of(entries, "table4_versus_detic")
    assert cells["AP, ours"] == ["47.64 [46.00, 49.00]", "-"]
    assert cells["AP, paper"] == ["32.20", "32.20"]
    assert "47.64 [46.00, 49.00]" in page.text and "dino: <baseline>" in page.text
    # Claims stand before everything else, with their verdicts.
    (claim,) = report.claims(entries).to_dict("records")
    known = {"run": "yours", "result": "Table 4: versus detic", "id": "table4_versus_detic"}
    assert claim == FINDING | known
    assert page.text.index("A <is> better") < page.text.rindex("Overview")
    assert FINDING["difference"] in page.text and " open " in page.text
    # Provenance is read from the files.
    line = report.overview(entries).loc["Figure 1: noise"]
    expected = f"Made {stamp()['inputs']['config_hash']}"
    assert (line["configuration"], line["seeds"]) == (expected, "0 1")
    assert line["notebook"] == "02_clip_soft_labels"
    assert expected in page.text and "MiniLVIS val abc123" in page.text


def test_every_claim_is_a_mark_on_one_scale_and_a_link_to_its_result(figures):
    told = FINDING | {"verdict": "holds", "mean": 3.0, "low": 2.0, "high": 4.0, "margin": 1.0}
    alone = FINDING | {"verdict": "open: one seed", "mean": -2.0, "low": None, "high": None}
    save_some(findings=(told, alone))
    _, page = page_of()
    # From half a point below -2, the least, to half a point above 4: 7 points are the width.
    drawn = [a for tag, a in page.tags if tag == "line" and a.get("y1") == "50%"]
    assert [(a["x1"], a["x2"]) for a in drawn] == [("64.29%", "92.86%")]  # none of one seed
    places = [
        a["x"] for tag, a in page.tags if tag == "svg" and a.get("overflow") and "class" not in a
    ]
    assert places == ["78.57%", "7.14%"]
    margins = [a["x1"] for tag, a in page.tags if tag == "line" and a.get("stroke")]
    assert margins == ["50.00%", "35.71%"]
    assert "2 claims" in page.text and page.links.count("#table4_versus_detic") >= 3
    kinds = [a["class"] for tag, a in page.tags if tag == "g"]
    assert kinds == ["holds", "open"]


def test_what_was_not_run_shows_published_numbers_as_the_papers_and_no_claims(figures):
    entries, page = page_of()
    assert report.claims(entries).empty and "claims" not in page.ids
    cells = cells_of(entries, "table3_other_datasets")
    assert (cells[""][1], cells["AP, paper"][1]) == ("visual_genome: richsem", "7.8")
    assert set(cells["AP, ours"]) == {"-"} and set(cells["status"]) == {"not run"}
    assert report.published("extra_data_kinds") == {} and report.published("fig1_noise") == {}


def test_yours_and_the_shipped_version_stand_beside_each_other(both, monkeypatch):
    entries, page = page_of()
    lines = report.overview(entries).loc["Table 4: versus detic"].set_index("run")
    assert lines["seeds"].to_dict() == {"yours": "0 1", "shipped": "0 1 2 3 4"}
    cells = cells_of(entries, "table4_versus_detic")
    assert list(cells) == ["", "AP, yours", "AP, shipped", "AP, paper", "status"]
    assert [cells[f"AP, {who}"][0][:5] for who in ("yours", "shipped")] == ["47.64", "47.50"]
    assert report.claims(entries)["run"].tolist() == ["yours", "shipped"]
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 2
    links = {"table4_versus_detic.json", "../shipped/demo/table4_versus_detic.json"}
    assert links <= set(page.links)
    # Where nothing was run, what is shipped is shown alone.
    shutil.rmtree(both / "demo")
    (line,) = report.overview(report.gather("demo")).loc[["Figure 1: noise"]].to_dict("records")
    assert line["run"] == "shipped"
    monkeypatch.setattr(paths, "FIGURES", paths.SHIPPED)  # as while it is made
    assert list(results.find("fig1_noise", "demo")) == ["shipped"]


def test_executed_notebooks_are_linked_where_they_are(both, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", both.parent / "notebooks")
    _, page = page_of()
    assert not [link for link in page.links if link.endswith(".ipynb")]
    for folder in ("notebooks/executed", "notebooks", "notebooks/shipped"):
        copy = both.parent / folder / "demo" / "02_clip_soft_labels.ipynb"
        copy.parent.mkdir(parents=True)
        copy.write_text("{}")
        _, page = page_of()
        link = f"../../{folder}/demo/02_clip_soft_labels.ipynb"
        assert link in page.links and (both / "demo" / link).resolve() == copy.resolve()
        copy.unlink()


def test_the_page_is_saved_with_its_provenance_and_names_runs_as_the_store_does(some_results):
    page = report.page([], "demo", stamp())
    results.save_page(page, "report", profile="demo", provenance=stamp())
    target, record = results.output_paths("report", "demo")
    assert target.read_text(encoding="utf-8") == page
    assert '"abc123"' in record.read_text(encoding="utf-8")
    with pytest.raises(results.ResultError, match="is a figure; pages: report"):
        results.save_page(page, "fig1_noise", profile="demo", provenance={})
    ids = ("table2_zero_shot", "fig_scaling", "extra_data_kinds")
    names = ["Table 2: zero shot", "Figure: scaling", "Extra data kinds"]
    assert [report.title(name) for name in ids] == names
    # Runs are named as the store names them.
    runs = (baseline("smoke"), baseline("smoke", seed=1), baseline("smoke"))
    record = provenance.stamp(StudyConfig(runs=runs), [0, 1], {}, started=0.0)
    ids = record["inputs"]["runs"]
    assert len(ids) == 2 and all(name.startswith("baseline-") for name in ids)
    assert store.run_folder(runs[0]).name.startswith(ids[0]) and stamp()["inputs"]["runs"] == []
    page = read(report.page([], "smoke", record))
    assert ", ".join(ids) in page.text
