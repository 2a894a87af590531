"""Figure 4: examples by a rule, with arrows where only one run finds a rare object."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import FancyArrowPatch

from richsem.evaluation import Detections
from richsem.workbook import qualitative
from richsem.workbook.figures import training_charts


def detections(dataset, boxes):
    """Detections (image, box number, score, category id) exactly on annotated boxes."""
    rows = []
    for image, box, _, category in boxes:
        left, top, right, bottom = dataset.boxes_of(image)[0][box]
        rows.append((dataset.image_ids[image], category, [left, top, right - left, bottom - top]))
    images, categories, xywh = zip(*rows, strict=True)
    return Detections(
        image_id=np.array(images), category_id=np.array(categories), bbox_xywh=np.array(xywh),
        score=np.array([score for _, _, score, _ in boxes]),
    )  # fmt: skip


@pytest.fixture
def seen(tiny_set):
    """Class 1 is rare: the first box of image 0, the second of images 3 and 4."""
    found = {
        "baseline": detections(tiny_set, [(4, 1, 0.9, 1), (0, 0, 0.2, 1), (3, 1, 0.8, 2)]),
        "RichSem": detections(tiny_set, [(0, 0, 0.5, 1), (3, 1, 0.8, 1), (0, 1, 0.7, 1)]),
    }
    return qualitative.shown(found, 0.3)


def test_only_boxes_above_the_score_are_seen(seen):
    assert [len(found) for found in seen.values()] == [2, 3]


def test_outcomes_of_boxes_and_detections(tiny_set, seen):
    outcomes, right = qualitative.box_outcomes(tiny_set, seen["baseline"])
    assert outcomes.tolist().count(qualitative.FOUND) == 1
    assert outcomes[tiny_set.offsets[3] + 1] == qualitative.MISNAMED
    assert outcomes[0] == qualitative.UNSEEN
    assert right.tolist() == [True, False]


def test_images_are_ranked_by_the_gain(tiny_set, seen):
    outcomes = qualitative.outcome_frame(tiny_set, seen)
    assert outcomes["image"].tolist() == [0, 3, 4]
    ranked = qualitative.ranking(outcomes)
    assert ranked.index.tolist() == [0, 3, 4]  # two gains in the order of images, then the loss
    assert ranked["gain"].tolist() == [1.0, 1.0, -1.0]
    assert ranked["objects"].tolist() == [1, 1, 1]


def test_both_ends_are_chosen_by_one_rule():
    ranked = pd.DataFrame({"gain": [0.5, 0.5, 0.0, -0.5, -0.5, -1.0]}, index=[3, 8, 1, 2, 9, 4])
    assert qualitative.ends(ranked, 3) == ([3, 8, 1], [4, 2, 9])
    assert qualitative.ends(ranked, 20) == ([3, 8, 1, 2, 9, 4], [4, 2, 9, 1, 3, 8])
    for count in (0, 21):
        with pytest.raises(ValueError, match=f"IMAGES is {count}; a figure shows 1 to 20"):
            qualitative.ends(ranked, count)
    with pytest.raises(ValueError, match="no image of this split has an object of a rare class"):
        qualitative.ends(ranked[:0], 1)


def test_changes_are_images_that_gain_or_lose(tiny_set, seen):
    none, some = seen["baseline"], seen["RichSem"]
    changes = qualitative.largest_changes
    assert changes(tiny_set, {"a": none, "b": some}, 1) == [0, 4]
    assert changes(tiny_set, {"a": some, "b": none}, 9) == [4, 0, 3]
    assert changes(tiny_set, {"a": some, "b": some}, 9) == []
    assert changes(tiny_set.select([1, 2]), {"a": none, "b": some}, 9) == []


def test_tables_count_what_is_found_and_shown(tiny_set, seen):
    table = qualitative.outcome_table(qualitative.outcome_frame(tiny_set, seen))
    assert table.loc["baseline"].tolist() == pytest.approx([100 / 3] * 3)
    assert table.loc["RichSem"].tolist() == pytest.approx([200 / 3, 0, 100 / 3])
    clutter = qualitative.clutter_table(tiny_set, seen)
    assert clutter["boxes per image"].tolist() == [0.4, 0.6]
    assert clutter.loc["RichSem", "right, percent"] == pytest.approx(200 / 3)
    assert clutter.loc["baseline", "right of the rare, percent"] == 100


def test_arrows_point_at_what_only_one_run_finds(tiny_set, seen):
    outcomes = qualitative.outcome_frame(tiny_set, seen)
    rows = qualitative.examples(tiny_set, seen, outcomes, [0, 4])
    assert [panel.title for panel in rows[0]] == [
        "annotated",
        "baseline: 0 of 1 rare",
        "RichSem: 1 of 1 rare",
    ]
    assert qualitative.arrows(rows) == [0, 1, 1]
    np.testing.assert_allclose(rows[0][2].arrows_xyxy, tiny_set.boxes_of(0)[0][:1])
    fig = training_charts.side_by_side(rows)
    drawn = [sum(isinstance(patch, FancyArrowPatch) for patch in ax.patches) for ax in fig.axes]
    assert drawn == [0, 0, 1, 0, 1, 0]
    fig.canvas.draw()


def test_an_object_that_both_find_gets_no_arrow(tiny_set, seen):
    both = seen | {"baseline": seen["RichSem"]}
    outcomes = qualitative.outcome_frame(tiny_set, both)
    assert qualitative.arrows(qualitative.examples(tiny_set, both, outcomes, [0, 3])) == [0, 0, 0]


def test_boxes_become_a_tidy_table(tiny_set, seen):
    nothing = {run: qualitative.shown({run: found}, 2.0)[run] for run, found in seen.items()}
    for shown, number in ((seen, 4), (nothing, 3)):
        outcomes = qualitative.outcome_frame(tiny_set, shown)
        rows = qualitative.examples(tiny_set, shown, outcomes, [0])
        frame = qualitative.box_frame(tiny_set, rows, [0])
        assert len(frame) == number + (shown is seen)
        assert frame.loc[frame["panel"] == "annotated", "rare"].tolist() == [True, False, False]
    assert set(frame["image_id"]) == {1}


def test_a_title_is_written_once_per_column_unless_it_changes(tiny_set, seen):
    outcomes = qualitative.outcome_frame(tiny_set, seen)
    rows = qualitative.examples(tiny_set, seen, outcomes, [0, 4])
    rows[1][0] = replace(rows[1][0], title="annotated")
    titles = [
        ax.get_title() or ax.get_title(loc="left") for ax in training_charts.side_by_side(rows).axes
    ]
    assert titles[0] == "annotated" and titles[3] == ""
    assert titles[5] == "RichSem: 0 of 1 rare"
