"""Every figure is drawn from plain numbers, without warnings, also where some are missing."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from PIL import Image
from workbook_toys import legend, outlines, titles, words

from richsem.data.sampling import alternate
from richsem.data.transforms import Picture
from richsem.workbook import error_verdicts as verdicts
from richsem.workbook import panels, zero_shot
from richsem.workbook.figures import charts, detector_parts, extra_data, run_charts, signal_charts
from richsem.workbook.figures.drawing import panel_figure
from richsem.workbook.figures.style import SERIES_COLORS

pytestmark = pytest.mark.usefixtures("figure_style")
rng = np.random.default_rng(0)


def table_of(columns, rows):
    return pd.DataFrame(rows, columns=columns.split())


def tail(groups="rcf", name="LVIS"):
    draws, most = np.random.default_rng(0), {"r": 5, "c": 50, "f": 900}
    rows = [(name, i, g, int(draws.integers(0, most[g]))) for g in groups for i in range(20)]
    return table_of("dataset category group instances", rows)


def soft_label(count):
    seen = view(1, count)
    return charts.soft_label_figure({"clean": seen, "noise 0.5": seen})


PICTURE = Image.new("RGB", (64, 48))
CURVE = zero_shot.noise_curve(rng.integers(0, 30, (3, 2, 60)), np.arange(60) % 7, (0.0, 0.5, 1.0))
CURVES = pd.concat({"roi": CURVE, "crop": CURVE}, names=["reading"]).reset_index(level=0)
NOISE = partial(charts.lines_figure, CURVES, "scale", "accuracy", "k", panel="reading")

PROBE = table_of("data group accuracy", [(d, g, 50.0) for d in ("LVIS", "INet") for g in "rcf"])
IMAGE, BOX = rng.random((48, 64, 3)), np.array([10.0, 12.0, 40.0, 44.0])
MAP = rng.random((6, 8))
MAPS = {"level 0": MAP, "level 1": np.full((3, 4), np.nan)}
PEAKS = {"level 0": np.array([[1, 2], [3, 3]]), "level 1": np.zeros((0, 2))}
CELLS = 2 * [[rng.random((9, 2)) * 40, rng.random((2, 2))]]
QUERIES = {kind: rng.random((3, 4)) * 40 for kind in ("positive", "negative")}
FOUND = (rng.random((5, 4)) * 40, rng.random(5))
WAY = {name: rng.random(4) * 40 for name in ("annotated", "proposal", "layer 1")}
OBJECTS = [(i, k, s) for i in (0, 1) for k in (0, 1) for s in ("proposal", "layer 1")]
STAGES = table_of("image object stage iou", [(*o, rng.random()) for o in OBJECTS])


def look(reference=(0.5, 0.5, 0.25, 0.5), levels=3, even=False):
    """An attention of one image, and its only query."""
    weights = torch.full((1, 1, 2, levels, 2), 1 / 6) if even else torch.rand(1, 1, 2, levels, 2)
    references = torch.tensor(reference).expand(1, 1, levels, -1)
    locations = torch.rand(1, 1, 2, levels, 2, 2)
    return SimpleNamespace(references=references, locations=locations, weights=weights), 0


NAMES, FALLING = tuple(f"class {i}" for i in range(12)), np.linspace(0.3, 0.0, 12)
SHARES = pd.DataFrame({"easy": [0.9, 0.02], "hard": [0.1, 0.98]}, index=["BCE", "focal"])
RIGHT = np.linspace(0.01, 0.99, 5)
FOCAL = {"BCE": -np.log(RIGHT), "focal": -((1 - RIGHT) ** 2) * np.log(RIGHT)}
PATH = np.array([[0.5, 0.5], [0.9, 0.1], [0.999, 0.001]])
TARGETS = {"hard": np.array([1.0, 0.0]), "soft": np.array([0.7, 0.3])}


def view(true=0, count=12):
    label = {"names": NAMES[:count], "probabilities": FALLING[:count]}
    boxes = {"true_box": (2, 3, 30, 20), "moved_box": (3, 4, 31, 22)}
    return SimpleNamespace(image=PICTURE, crop=PICTURE, true_name=NAMES[true], **boxes, **label)


def steps(groups="rcf"):
    table = pd.DataFrame({"images": [0, *np.geomspace(2, 900, 8)]})
    share = table["images"] / 1000
    table["group"] = [groups[i % len(groups)] for i in range(9)]
    return table.assign(present=share, absent=1 - share, drawn=0.2 * share, seen=0.2 * share)


BOXES = [[0, 0, 40, 30], [0, 0, 40, 30], [20, 1, 38, 25]]


def picture(*labels):
    image = torch.full((3, 30, 40), 128, dtype=torch.uint8)
    return Picture(image=image, boxes_xyxy=torch.tensor(BOXES).float(), labels=torch.tensor(labels))


def panel(**words):
    return panels.of_target(picture(1, 0, -1), ["hot_dog", "cat"], **words)


COUNTS = table_of("group hard own others", [(g, 5.0, 1.0, 20.0) for g in "rcf"])
KINDS = ("aw", "at", "bw", "bt")
FITS = table_of("source stage iou", [(*k, iou) for k in KINDS for iou in rng.random(30)])
YARDSTICK = pd.DataFrame({"scale": [0.0, 1.0], "iou": [1.0, 0.4]})
SIZES = pd.DataFrame({"what": ["scenes", "mosaics"] * 20, "side": rng.random(40)})
SHOWS = table_of(
    "sampling images shows",
    [(name, n, n * k) for k, name in ((1, "once"), (2, "t = 1")) for n in (0, 1, 10, 100)],
)
TURNS = table_of(
    "ratio step extra place",
    [(f"1 : {b}", step, *alternate(step, (1, b))) for b in (0, 1, 4) for step in range(8)],
)
SWITCHES = pd.DataFrame(
    {"unlabelled": [True, False, True], "detection": [True] * 3}, index=["boxes", "class", "soft"]
)

VERDICTS = pd.DataFrame(
    1 / 9, index=["LVIS", "COCO"], columns=[*verdicts.VERDICTS, verdicts.MISSED]
)
PRECISION = pd.DataFrame({"recall": [0.5, 0.5, 1.0], "precision": [1.0, 0.5, 2 / 3]})
CAPS = pd.DataFrame({"cap": [10, 300] * 3, "group": list("rrffcc"), "ap": np.arange(6.0)})
CLASS_AP = pd.DataFrame({"group": list("rrffff"), "ap": [10.0, 30, 50, 50, 60, 80]})
COSTS = [(error, group, 1.25) for error in verdicts.ERRORS for group in ("r", "f", "all")]
LOST = table_of("error group lost", COSTS)
CALIBRATION = table_of("group score correct number", [("r", 0.1, 0.0, 100), ("r", 0.9, 1.0, 3)])
EXAMPLE = panels.Panel(
    image=np.zeros((20, 30, 3), dtype=np.uint8), origin=(100, 50), title="one",
    boxes_xyxy=[[105, 55, 115, 65], [105, 55, 116, 65], *[[100, 50, 105, 60]] * 2],
    names=["red_boat", "+ red_boat 0.90", "x dog 0.50", "? cat 0.20"],
    kinds=["annotated", "right", "wrong", "ignored"],
)  # fmt: skip
LEARNING = table_of(
    "detector run seed step cpu_seconds metric value",
    [
        (detector, run, seed, step, cost * step, metric, gain * step + seed)
        for detector, gain in (("dino", 1.0), ("centernet2", 2.0))
        for run, cost in (("baseline", 1.0), ("richsem", 3.0))
        for seed in (0, 2)
        for step in (10, 20)
        for metric in ("AP", "AP_r", "AP_c")
    ],
)
ONE_DETECTOR = LEARNING.query("detector == 'dino' and metric == 'AP'").drop(columns="detector")
CLASSES = pd.DataFrame({"a": [50, 10, 20, 30], "b": [60, 10, 20, 10], "group": list("rcff")})
SEEDS = [(arm, seed, "AP_r", 9 + seed) for arm in ("long", "short") for seed in (0, 1, 2)]
ARMS = table_of("arm seed metric value", SEEDS)
DROPPED = table_of(
    "arm drop metric mean low high",
    [
        (arm, drop, metric, level - drop, level - 2, level)
        for arm, level in (("baseline", 20.0), ("soft", 23.0))
        for drop in (0.5, 0.0)
        for metric in ("AP", "AP_r")
    ],
)
LINES = partial(run_charts.scarce_figure, panels={"(a)": ["baseline"], "(b)": ["baseline", "soft"]})
PARTS = pd.DataFrame({"backbone": [20, 30], "neck": [3, 4], "dust": [0.01, 0.02]}, index=["S", "L"])

GROWTH = pd.DataFrame(
    {"grows": "boxes", "part": list("aabb"), "size": [1, 10] * 2, "seconds": [0.1, 1.0, 0.2, 0.3]}
)
FIGURES = [
    partial(charts.frequency_figure, pd.concat([tail(), tail(name="VG")])),
    partial(charts.frequency_figure, tail("cf")),  # without rare classes
    partial(charts.frequency_figure, tail("rrrccccfffff")),  # too many classes for hatches
    partial(NOISE, band=("ci_low", "ci_high"), ylim=(0, 100)),
    partial(charts.lines_figure, CURVES, "k", "accuracy", "scale", xscale="log", xticks=(5, 10)),
    partial(charts.view_figure, view(11)),
    partial(charts.bars_figure, PROBE, "group", "accuracy", "data", ylim=(0, 100)),
    partial(charts.bars_figure, PROBE[:3], "group", "accuracy", "data"),  # of one set
    partial(soft_label, 30),
    partial(soft_label, 4),
    partial(detector_parts.code_figure, {"y": MAP, "x": MAP}, {"T": MAP}, {"T": (1, 2)}),
    partial(detector_parts.cells_figure, [IMAGE, IMAGE], CELLS, ["a", "b"]),
    partial(detector_parts.attention_figure, IMAGE, {"a": look(), "b": look()}, 2),
    partial(detector_parts.attention_figure, IMAGE, {"a": look((0.5, 0.5), levels=5)}, 1),
    partial(detector_parts.proposals_figure, IMAGE, *FOUND, BOX[None], MAPS, PEAKS),
    partial(
        detector_parts.matching_figure, IMAGE, {"A dog": BOX}, BOX[None] + np.zeros((3, 1)),
        {"L1": np.ones((3, 1)), "sum": np.eye(3, 1)}, np.array([2]),
    ),
    partial(detector_parts.boxes_figure, [IMAGE], [QUERIES | {"annotated": BOX}], ["a"]),
    partial(detector_parts.boxes_figure, [IMAGE], [WAY], ["a"], stages=True),
    partial(detector_parts.mask_figure, {"a": np.eye(6, dtype=bool)}, {"a": {"one": 2, "two": 4}}),
    partial(detector_parts.stages_figure, STAGES),
    partial(signal_charts.hard_and_soft_figure, [view(), view(3), view()]),
    partial(signal_charts.hard_and_soft_figure, [view(count=3)]),
    partial(signal_charts.label_figure, {name: (NAMES, FALLING) for name in NAMES[:5]}),
    partial(signal_charts.label_figure, {"t": (NAMES[:2], FALLING[:2])}, marked=NAMES[0]),
    partial(signal_charts.label_figure, dict.fromkeys("ab", (["of long words " * 9], [1.0]))),
    partial(signal_charts.response_figure, FALLING, {"a": 0 * FALLING, "b": FALLING}, NAMES, 0),
    partial(signal_charts.soft_count_figure, COUNTS),
    partial(signal_charts.soft_count_figure, COUNTS[1:]),  # without rare classes
    partial(signal_charts.focal_figure, RIGHT, FOCAL, SHARES),
    partial(signal_charts.federated_figure, {"a": steps(), "b": steps("cf")}),
    partial(panel_figure, [panel(title="a", note="b\nc")] * 3, columns=2),
    partial(panel_figure, [panel()] * 4, columns=2, row_names=["one", "two"]),
    partial(extra_data.iou_figure, FITS),
    partial(extra_data.iou_figure, FITS[:60]),  # of one kind
    partial(extra_data.yardstick_figure, YARDSTICK, {"scenes": 0.1, "tiles": 0.5}),
    partial(extra_data.size_figure, SIZES),
    partial(extra_data.shows_figure, SHOWS),
    partial(run_charts.class_ap_figure, CLASS_AP[-1:]),
    partial(run_charts.growth_figure, GROWTH),
    partial(run_charts.curves_figure, ONE_DETECTOR),
    partial(run_charts.arms_figure, ARMS[ARMS["seed"] == 0], ("AP_r",)),  # no interval
    partial(LINES, DROPPED.assign(low=np.nan, high=np.nan)),
    partial(run_charts.gain_figure, CLASSES.rename(columns={"a": "teacher", "b": "gain"})),
]  # fmt: skip


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.func.__name__)
def test_a_figure_is_drawn_without_warnings(draw):
    fig = draw()
    assert plt.get_fignums() == [fig.number]


def test_every_public_figure_function_is_drawn():
    modules = (charts, detector_parts, extra_data, run_charts, signal_charts)
    names = [(m.__name__.split(".")[-1], name) for m in modules for name in vars(m)]
    public = {f"{module}.{name}" for module, name in names if name.endswith("_figure")}
    here = Path(__file__).read_text(encoding="utf-8")
    # Drawn in the tests of what it counts: run_charts.scaling_figure.
    assert [name for name in public if name not in here] == []


def test_categories_are_shown_from_the_most_frequent_with_their_gains_below():
    fig = charts.frequency_figure(tail())
    heights = np.nansum([bars.get_data().values for bars in fig.axes[0].patches], axis=0)
    assert heights.tolist() == sorted(heights, reverse=True)
    assert len(heights) == (tail()["instances"] > 0).sum()
    line = NOISE().axes[0].lines[1]
    expected = CURVE[CURVE["k"] == 10]
    np.testing.assert_array_equal(line.get_xdata(), expected["scale"])
    np.testing.assert_array_equal(line.get_ydata(), expected["accuracy"])
    rows = [("own", 9, "c", 4.0), ("own", 5, "r", np.nan), ("own", 5, "r", -1.0)]
    frame = table_of("dataset instances group gain", [*rows, ("own", 0, "r", 3.0)])
    bars, gains = charts.own_tail_figure(frame).axes
    assert np.nansum([bar.get_data().values for bar in bars.patches], axis=0).tolist() == [9, 5, 5]
    places = [points.get_offsets().tolist() for points in gains.collections[::2]]
    assert places == [[[0, 4]], [[2, -1], [3, 3]]]
    assert legend(gains) == ["common: +4.0", "rare: +1.0"]
    assert gains.xaxis.get_major_formatter()(0) == "1"


def test_groups_levels_and_series_are_told_apart_without_colour():
    ticks = {"xscale": "log", "xticks": (10, 300), "xticklabels": (10, 300)}
    caps = charts.lines_figure(CAPS, "cap", "ap", "group", **ticks).axes[0]
    assert legend(caps) == ["rare", "common", "frequent"]
    assert words(caps.get_xticklabels()) == ["10", "300"]
    below = NOISE(columns=1, xlabel="noise", ylabel="%").axes  # what panels share is said once
    assert [ax.get_xlabel() for ax in below] == ["", "noise"]
    assert [ax.get_ylabel() for ax in below] == ["%", "%"]
    for lines in (NOISE().axes[0].lines, caps.lines):
        assert len({line.get_marker() for line in lines}) == len(lines) > 1
    bare = NOISE(look={"marker": ""}, yscale="log").axes[0]
    assert len({line.get_linestyle() for line in bare.lines}) == 2
    attention = detector_parts.attention_figure(IMAGE, {"a": look()}, 1)
    assert legend(attention) == ["level 0", "level 1", "level 2"]


def test_the_true_class_is_marked_and_maps_have_a_common_scale_if_it_is_named():
    hatches = [bar.get_hatch() for bar in soft_label(12).axes[1].patches]
    assert [i for i, hatch in enumerate(hatches) if hatch] == [1] and len(hatches) == 10
    ticks = words(signal_charts.hard_and_soft_figure([view(11)]).axes[1].get_yticklabels())
    assert ticks[-1] == NAMES[11] and len(ticks) == 7  # though the teacher thinks otherwise
    maps = {"faint": np.array([[0.1, 0.2]]), "bright": np.array([[0.0, 0.8]])}
    figs = [detector_parts.maps_figure(IMAGE, maps, largest=largest) for largest in (None, 1.0)]
    limits = [[ax.images[0].get_clim() for ax in fig.axes[1:3]] for fig in figs]
    assert limits == [[(0.1, 0.2), (0.0, 0.8)], [(0.0, 1.0)] * 2]


def test_a_look_is_put_into_pixels_where_area_is_weight():
    even = look(even=True)
    ax = detector_parts.attention_figure(IMAGE, {"a": even}, 1).axes[0]
    (box,) = outlines(ax)
    assert box.get_bbox().extents.tolist() == [24, 12, 40, 36]
    places = ax.collections[1].get_offsets()  # of level 0, after its mark in the legend
    expected = even[0].locations[0, 0, :, 0].reshape(-1, 2) * torch.tensor([64, 48])
    np.testing.assert_allclose(places, expected, rtol=1e-5)
    assert ax.get_xlabel() == "33%, 33%, 33% by level"
    # The average weight has the area in the legend.
    sizes = np.concatenate([own.get_sizes() for own in ax.collections])
    assert np.ptp(sizes) == pytest.approx(0, abs=1e-4)


def test_boxes_have_names_and_a_student_s_bars_begin_at_the_start():
    boxes = [{"candidates": FOUND[0], "largest": BOX}, {"candidates": BOX, "largest": BOX}]
    fig = detector_parts.boxes_figure([IMAGE] * 2, boxes, ["a", "b"])
    assert legend(fig) == ["candidates", "largest"] and len(outlines(fig.axes[0])) == 6
    paths = {"hard": PATH, "soft": PATH}
    pull = signal_charts.pull_figure(NAMES[:2], paths, TARGETS, [0, 1, 8], 0.5)
    bars = pull.axes[1].patches  # after one step
    assert [bar.get_x() for bar in bars] == [0.5, 0.5]
    assert [bar.get_width() for bar in bars] == pytest.approx([0.4, -0.4])


def test_targets_share_outlines_and_switches_are_told_in_words():
    ax = panel_figure([panel()], columns=1).axes[0]
    assert [line.get_bbox().extents.tolist() for line in outlines(ax)] == [BOXES[0], BOXES[2]]
    assert {line.get_linestyle() for line in outlines(ax)} == {"solid"}
    assert words(ax) == ["cat", "hot dog", "?"]
    # Known objects are dashed.
    known = panels.of_known(picture(0, 0, 1))
    lines = outlines(panel_figure([known], columns=1).axes[0])
    looks = {own.get_bbox().extents.tolist()[0]: own for own in lines}  # by the left side
    first, last = (looks[BOXES[k][0]] for k in (0, 2))
    assert [to_hex(own.get_ec()) for own in (first, last)] == [SERIES_COLORS[1], SERIES_COLORS[0]]
    assert first.get_linestyle() == "solid" != last.get_linestyle()
    levels = {"unlabelled": panel(), "detection": panel()}
    below = extra_data.supervision_figure(levels, SWITCHES).axes[2]
    assert words(below) == ["on", "on", "off", "on", "on", "on"]
    assert words(below.get_yticklabels()) == ["boxes", "class", "soft"]
    for number, columns, rows in ((0, 2, ()), (3, 2, ("one",)), (3, 0, ())):
        with pytest.raises(ValueError, match="panels"):
            panel_figure([panel()] * number, columns=columns, row_names=rows)


def test_the_timeline_counts_each_sets_own_steps():
    ax = extra_data.timeline_figure(TURNS).axes[0]
    bars = [bar for own in ax.containers for bar in own]
    shown = sorted(
        (round(bar.get_y() + 0.35), bar.get_x(), text.get_text(), bool(bar.get_hatch()))
        for bar, text in zip(bars, ax.texts, strict=True)
    )
    *_, numbers, extra = zip(*shown[8:16], strict=True)  # of the second ratio
    assert numbers == tuple("00112233") and extra == (False, True) * 4


def test_examples_have_boxes_of_three_kinds():
    ax = panel_figure([EXAMPLE] * 3, columns=2).axes[0]
    assert words(ax) == ["red boat", "+ red boat 0.90", "x dog 0.50", "? cat 0.20"]
    assert ax.texts[0].xy[1] == 65  # at the foot
    assert ax.texts[2].xy[1] < ax.texts[3].xy[1]  # two names at one place
    assert len({text.get_color() for text in ax.texts}) == 4
    assert len(ax.patches) == 3  # an object, two places
    assert (ax.get_xlim(), ax.get_ylim()) == ((100, 130), (70, 50))
    assert titles(panel_figure([EXAMPLE] * 3, columns=1)) == ["one", "", ""]  # said once


def test_verdicts_and_curves_are_named():
    ax = run_charts.parts_figure(VERDICTS, "share").axes[0]
    assert legend(ax) == [*verdicts.VERDICTS, verdicts.MISSED]
    assert max(patch.get_x() + patch.get_width() for patch in ax.patches) == pytest.approx(1)
    assert words(ax) == ["11%"] * 18
    none_missed = run_charts.parts_figure(VERDICTS.assign(missed=0.0), "share")
    assert legend(none_missed.axes[0]) == list(verdicts.VERDICTS)
    # The strong line is the highest precision at that recall or more.
    curves = {"LVIS": PRECISION, "COCO": PRECISION}
    ax = run_charts.precision_recall_figure(curves, "dog").axes[0]
    assert legend(ax) == ["LVIS", "COCO"]
    assert list(ax.lines[1].get_ydata()) == pytest.approx([1, 1, 2 / 3, 2 / 3])


def test_means_costs_and_numbers_are_written_beside_their_marks():
    ax = run_charts.class_ap_figure(CLASS_AP).axes[0]
    assert words(ax) == ["mean 20.0", "mean 60.0"]
    assert words(ax.get_yticklabels()) == ["rare (2)", "frequent (4)"]
    assert sum(len(c.get_offsets()) for c in ax.collections if len(c.get_offsets()) > 1) >= 6
    ax = charts.bars_figure(LOST, "error", "lost", "group", digits=1).axes[0]
    assert words(ax.get_xticklabels()) == list(verdicts.ERRORS)
    assert len(ax.patches) == 3 * len(verdicts.ERRORS)
    assert legend(ax) == ["rare", "frequent", "all"]
    above, below = run_charts.calibration_figure(CALIBRATION).axes
    assert legend(above) == ["score = share correct", "rare"]
    assert below.lines[0].get_ydata().tolist() == [100, 3]


def test_learning_curves_of_each_detector_against_steps_and_cpu_seconds():
    fig = run_charts.curves_figure(LEARNING)
    metrics = ["DINO: AP", "DINO: AP$_r$", "CenterNet2: AP", "CenterNet2: AP$_r$"]
    assert titles(fig) == [title for title in metrics for _ in range(2)]
    assert words(fig.legends[0].get_texts()) == ["baseline", "RichSem"]
    # seaborn adds empty lines for the legend.
    lines = [[line for line in ax.lines if len(line.get_xdata())] for ax in fig.axes[4:6]]
    richsem = [own[1].get_xydata().tolist() for own in lines]
    assert richsem == [[[10, 21], [20, 41]], [[30, 21], [60, 41]]]


def test_runs_and_parts_are_named():
    arms = run_charts.arms_figure(ARMS, ("AP_r",)).axes[0]
    assert words(arms.get_xticklabels()) == ["long", "short"]
    assert "rare (1 of 1 up)" in legend(run_charts.classes_figure(CLASSES, "a", "b").axes[0])
    dropped = LINES(DROPPED)
    assert titles(dropped) == ["(a)", "(b)", "", ""]
    baseline, soft = dropped.axes[1].get_lines()[:2]
    assert legend(dropped.axes[1]) == ["baseline", "soft"]
    assert soft.get_xdata().tolist() == [0.0, 0.5] and soft.get_ydata()[0] > baseline.get_ydata()[0]
    # Parts too small to see are summed, and left out if their sum is, too.
    small = {part: [0.006] for part in "abc"}
    ax = run_charts.parts_figure(pd.DataFrame({"backbone": [0.982], **small}), "share").axes[0]
    assert max(bar.get_x() + bar.get_width() for bar in ax.patches) == pytest.approx(1)
    assert legend(ax) == ["backbone", "others"]
    ax = run_charts.parts_figure(PARTS.div(PARTS.sum(axis=1), axis=0), "share").axes[0]
    assert legend(ax) == ["backbone", "neck"]
