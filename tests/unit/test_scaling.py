"""Notebook 12: what is counted, what is quoted, and that the two never mix."""

import subprocess
import sys

import numpy as np
import pytest
from toys import small_run

from richsem.config import with_settings
from richsem.operations import cost
from richsem.operations.cost import count_parameters, on_meta
from richsem.workbook import growth, reference, results, scaling
from richsem.workbook.figures import run_charts as plots

SMALL = scaling.ScalingConfig(
    ladder=("R50", "Swin-T"), curves=("R50", "Swin-T"), short_side=96, short_sides=(64, 96)
)


@pytest.fixture(scope="module")
def parts():
    return scaling.parts_frame(SMALL)


@pytest.fixture(scope="module")
def sizes():
    return scaling.size_frame(SMALL)


def test_r50_is_the_published_size_and_the_ladder_differs_in_backbone_and_neck_only(parts):
    """DINO's R50 with four scales has 47 M parameters; text heads take the place of linear ones."""
    assert parts.loc["R50"].sum() == pytest.approx(47.9, abs=0.05)
    assert parts.loc["R50", "backbone"] == pytest.approx(23.45, abs=0.01)
    same = [name for name in parts if name not in ("backbone", "neck")]
    assert parts.loc["R50", same].equals(parts.loc["Swin-T", same].rename("R50"))
    flops = scaling.flops_frame(SMALL)
    assert flops.loc["R50", "encoder"] == flops.loc["Swin-T", "encoder"] > 0
    assert flops.loc["R50", "semantic"] == 0  # training only


def test_sizes_are_smaller_than_published_and_smoke_counts_less_of_the_same():
    frame = scaling.focal_huge_candidates(scaling.scaling("smoke"))
    ours = frame.loc["RichSem, 4 scales (ours)", "parameters (M)"]
    detector = on_meta(scaling.rung(SMALL, "FocalNet-H"))
    assert ours == pytest.approx(sum(count_parameters(detector).values()) / 1e6)
    assert np.allclose(frame.sum(axis=1), reference.TABLE1[scaling.RICHSEM]["parameters (M)"])
    classifiers = frame.loc[[name for name in frame.index if "22k" in name], "parameters (M)"]
    assert classifiers.min() < 747 < classifiers.max() and len(classifiers) == 2
    frame = scaling.backbone_frame()
    assert list(frame.index) == list(reference.TABLE1)
    known = frame.dropna()
    assert (known["backbone"] < known["published"]).all()
    assert list(frame.index[frame["backbone"].isna()]) == ["InternImage-H, DINO"]
    smoke, demo = scaling.scaling("smoke"), scaling.scaling("demo")
    assert set(smoke.ladder) < set(demo.ladder) and demo == scaling.scaling("paper")
    assert scaling.image_size(demo, 800) == (800, 1344)


def test_cost_grows_with_the_image_and_the_backbone_and_checkpoints_keep_less(sizes):
    assert list(sizes["pixels"][:2]) == [64 * 128 / 1e6, 96 * 160 / 1e6]
    for column in ("gflop", "activations"):
        table = sizes.pivot(index="system", columns="short_side", values=column)
        assert (table[96] > table[64]).all() and (table.loc["Swin-T"] > table.loc["R50"]).all()
    frame = scaling.checkpoint_frame(SMALL)
    assert (frame["checkpoints"] < frame["all kept"]).all() and (frame["largest block"] > 0).all()


def test_the_table_quotes_precision_and_counts_size(parts):
    frame, words = scaling.table1(parts, scaling.flops_frame(SMALL), scaling.backbone_frame())
    frame = results.checked_table(frame, "table1_scaling")
    precision = frame[frame["metric"].isin(["AP", "AP_r"])]
    assert precision["ours"].isna().all()
    assert set(precision["status"]) == {"reference only", "not run"}
    quoted = frame[frame["paper"].notna()]
    assert set(quoted["row"]) == set(reference.TABLE1)
    values = [value for row in reference.TABLE1.values() for value in row.values()]
    assert len(quoted) == sum(not isinstance(value, str) for value in values)
    assert set(frame.loc[frame["ours"].notna(), "status"]) == {"counted"}
    assert set(words) == set(frame["row"])


@pytest.mark.usefixtures("figure_style")
def test_the_figure_shows_all_numbers_and_hollow_markers_for_published_ones(parts, sizes):
    frame = scaling.figure_frame(parts, sizes)
    assert set(frame.loc[frame["panel"].isin(["AP", "AP_r"]), "kind"]) == {"published"}
    fig = plots.scaling_figure(frame)
    published, ladder, *curves = fig.axes
    assert all(line.get_markerfacecolor() == "none" for line in published.lines)
    shown = {tuple(point) for line in published.lines for point in line.get_xydata()}
    assert (747, 61.2) in shown and len(ladder.patches) == 2 * len(parts)
    totals = frame[frame["panel"].isin(["backbone", "rest"])].groupby("system")["y"].sum()
    assert {text.get_text() for text in ladder.texts} == {f"{number:.0f}" for number in totals}
    drawn = [y for line in curves[0].lines for y in line.get_ydata()]
    assert drawn == sizes["gflop"].tolist()


def test_what_runs_need_is_stated_only_for_as_many_gpus_as_can_share_their_batches():
    run = small_run("nowhere")
    settings = ["detector.num_classes=3", "train.batch_size=16", "train.extra_batch_size=16"]
    run = with_settings(run, settings)
    frame = scaling.machines_frame({"a": run}, 50.0)
    assert frame.loc["a", 32].isna().all() and frame.loc["a", 1]["GB sent per step"] == 0
    memory, alone, eight = cost.training_memory(run), *(frame.loc["a", n] for n in (1, 8))
    assert (alone["images at a time"], eight["images at a time"]) == (16, 2)
    assert eight["GB on each"] == memory.per_device(2) / 1e9
    assert eight["GB sent per step"] == pytest.approx(2 * 7 / 8 * memory.gradients / 1e9)
    assert alone["days"] == pytest.approx(8 * eight["days"])
    assert alone["days"] * 86_400 * 50e12 == pytest.approx(cost.training_flops(run))


@pytest.mark.parametrize("processes", [0, 2])
def test_growth_is_measured_on_every_picture_once(processes, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert growth._streaming(3, processes)() == 3


def test_growth_counts_less_than_a_tick_of_the_clock_and_processes_that_were_started():
    start = growth._processor_seconds()
    sum(range(50_000))
    assert 0 < growth._processor_seconds() - start < 0.01
    start = growth._processor_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
    assert growth._processor_seconds() - start > 0.05
