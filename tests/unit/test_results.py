import json

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from richsem.workbook import results
from richsem.workbook.figures.style import apply_style
from richsem.workbook.results import ResultError

NUMBERS = pd.DataFrame({"noise": [0.0, 1.0], "top5": [0.5, 1 / 3]})
LINE = {"row": "top-1", "metric": "all", "paper": 29.6, "ours": 66.25, "ci_low": 64.0}
LINE |= {"ci_high": 68.0, "num_seeds": 3, "status": "trend at demo scale"}
NOTHING = {"ours": None, "ci_low": None, "ci_high": None, "num_seeds": 0, "status": "not run"}


def draw(width=5.0):
    apply_style()
    fig, axes = plt.subplots(figsize=(width, 3.0))
    axes.plot(NUMBERS["noise"], NUMBERS["top5"], marker="o", label="top-5")
    axes.legend()
    return fig


def save(fig, figure_id="fig1_noise", **changes):
    options = {"profile": "smoke", "alt": "A line.", "data": NUMBERS, "provenance": {"seed": 1}}
    results.save_figure(fig, figure_id, **options | changes)


def save_table(frame, **options):
    results.save_table(frame, "table2_zero_shot", profile="demo", provenance={}, **options)


def test_a_figure_is_written_in_all_forms_and_closed(figures):
    fig = draw()
    save(fig)
    files = sorted(path.name for path in (figures / "smoke").iterdir())
    assert files == [f"fig1_noise.{ending}" for ending in ("csv", "json", "pdf", "png", "svg")]
    assert not plt.fignum_exists(fig.number)
    pd.testing.assert_frame_equal(pd.read_csv(figures / "smoke" / "fig1_noise.csv"), NUMBERS)
    record = json.loads((figures / "smoke" / "fig1_noise.json").read_text())
    assert record["alt"] == "A line." and record["provenance"] == {"seed": 1}
    # Equal figures give equal bytes.
    files = results.output_paths("fig1_noise", "smoke")
    before = [path.read_bytes() for path in files]
    save(draw())
    assert before == [path.read_bytes() for path in files] and b"/CreationDate" not in before[1]


def test_the_notebook_shows_a_small_picture_with_alt_text_and_caption(figures, monkeypatch):
    shown = []
    monkeypatch.setattr(results, "get_ipython", object)
    monkeypatch.setattr(results, "display", lambda data, **options: shown.append((data, options)))
    save(draw(), caption="It falls.")
    (picture, options), (caption, _) = shown
    assert options["metadata"] == {"image/png": {"alt": "A line."}}
    file_size = (figures / "smoke" / "fig1_noise.png").stat().st_size
    assert len(picture["image/png"]) * 3 / 4 < file_size / 2
    assert "It falls." in caption["text/markdown"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"figure_id": "fig1"}, "unknown result 'fig1'; valid: fig3_frequency, fig1_noise"),
        ({"figure_id": "datasets"}, "'datasets' is a table"),
        ({"profile": "full"}, "unknown profile 'full'"),
        ({"alt": " "}, "alt text is missing"),
        ({"status": "not run"}, "status 'not run'; valid: reproduced"),
        ({"data": NUMBERS[:0]}, "no numbers"),
        ({"fig": 6.5}, "fig1_noise: in a column of 3.4 inches its text has 4.9 points, below 5"),
    ],
)
def test_incomplete_figures_are_refused(figures, changes, message):
    fig = draw(changes.pop("fig", 5.0))
    with pytest.raises(ResultError, match=message):
        save(fig, **changes)
    assert not figures.exists()
    plt.close(fig)


def test_a_table_is_written_tidy_and_readable_and_the_papers_value_never_becomes_ours(figures):
    other = LINE | {"metric": "r", "paper": 16.2} | NOTHING
    frame = pd.DataFrame([LINE, other, LINE | {"row": "top-5"}])
    save_table(frame, caption="Top.", details={"top-1": {"labels": "boxes"}})
    text = (figures / "demo" / "table2_zero_shot.md").read_text()
    assert text.splitlines() == [
        "Top.",
        "",
        "|       | labels |         all, ours | all, paper | r, ours | r, paper "
        "| status                       |",
        "| ----- | ------ | ----------------: | ---------: | ------: | -------: "
        "| ---------------------------- |",
        "| top-1 | boxes  | 66.2 [64.0, 68.0] |       29.6 |       - |     16.2 "
        "| trend at demo scale; not run |",
        "| top-5 |        | 66.2 [64.0, 68.0] |       29.6 |       - |        - "
        "| trend at demo scale          |",
    ]
    tidy = pd.read_csv(figures / "demo" / "table2_zero_shot.csv")
    assert list(tidy.columns) == list(results.TABLE_COLUMNS)
    assert tidy["ours"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "done"}, "unknown status 'done'; valid: reproduced"),
        ({"status": "not run"}, "'not run' with a value in `ours`"),
        ({"ours": None}, "'trend at demo scale' with no value in `ours`"),
        (NOTHING | {"status": "reference only", "paper": None}, "without a value in `paper`"),
        ({"ci_low": None}, "both ci_low and ci_high"),
        (NOTHING | {"ci_low": 1.0, "ci_high": 2.0}, "only beside a value in `ours`"),
        ({"ci_low": 70.0}, "ci_low 70.0 is above ci_high 68.0"),
        ({"num_seeds": 0}, "counts the seeds"),
        ({"paper": "a lot"}, "column 'paper'"),
        (pd.DataFrame([LINE]).drop(columns="paper"), "columns must be"),
        (pd.DataFrame([LINE, LINE]), "'top-1' has 'all' twice"),
        (pd.DataFrame([LINE])[:0], "empty"),
    ],
)
def test_contradictions_in_a_table_are_refused(figures, changes, message):
    frame = pd.DataFrame([LINE | changes]) if isinstance(changes, dict) else changes
    with pytest.raises(ResultError, match=message):
        save_table(frame)
    assert not figures.exists()


def test_a_part_of_the_images_reproduces_nothing():
    status = results.usual_status
    assert (status("paper"), status("demo", part=True)) == ("reproduced", "trend at demo scale")
    assert status("paper", part=True) == "subset of the images"
    assert status("paper", part=True, published=False) == "ours only"


def test_findings_are_kept_with_the_result(figures):
    finding = {"claim": "A < B", "difference": "+1.0 AP", "seeds": "2", "verdict": "holds"}
    finding |= {"stated": "after", "mean": 1.0, "low": 0.5, "high": 1.5, "margin": 0.0}
    save_table(pd.DataFrame([LINE]), findings=[results.Finding(**finding)])
    record = json.loads((figures / "demo" / "table2_zero_shot.json").read_text())
    assert record["findings"] == [finding]
