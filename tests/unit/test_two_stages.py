"""What notebook 04 reads off a two-stage detector."""

from dataclasses import replace

import pytest
import torch

from richsem.training.checkpoint import save_detector
from richsem.workbook import two_stages
from richsem.workbook.anatomy import pixel_boxes
from richsem.workbook.notebook_data import DataConfig
from richsem.workbook.overfit import detections, learn_by_heart


@pytest.fixture(scope="module")
def config():
    return two_stages.study(DataConfig(profile="smoke"))


@pytest.fixture(scope="module")
def subject(config, tiny_set):
    def vocabulary(clip, names):
        torch.manual_seed(0)
        return torch.randn(len(names), 256), 30.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_stages, "_vocabulary", vocabulary)
        yield two_stages.open_two_stages(config, tiny_set)


@pytest.fixture(scope="module")
def batch(subject):
    return subject.batch([0, 2, 3])


@pytest.fixture(scope="module")
def output(subject, batch):
    with torch.no_grad():
        return subject.detector.eval()(batch)


def test_smoke_learns_less(config):
    demo = two_stages.study(DataConfig(profile="demo"), seed=3, folder="run")
    assert (config.steps, config.learnt) < (demo.steps, demo.learnt)
    assert (demo.seed, demo.folder) == (3, "run")


def test_the_subject_has_the_classes_of_the_data(subject, tiny_names, batch):
    assert subject.names == tuple(tiny_names)
    assert subject.detector.config.scale == 30
    assert [len(target.labels) for target in batch.targets] == [3, 0, 2]


def test_wanted_centres_have_the_detectors_cells(subject, batch, output):
    cells, wanted = two_stages.wanted_centers(subject, batch)
    assert torch.equal(cells.points, output.cells.points)
    maps = two_stages.maps_of_levels(wanted[0].heat, cells)
    assert {name: own.shape for name, own in maps.items()} == {
        "stride 16": (16, 16), "stride 32": (8, 8), "stride 64": (4, 4), "stride 128": (2, 2)
    }  # fmt: skip
    x, y = pixel_boxes(batch.targets[0].boxes, batch.targets[0])[0].view(2, 2).mean(0).tolist()
    assert maps["stride 16"][int(y // 16), int(x // 16)] == 1
    table = two_stages.levels_in_charge(cells, wanted)
    assert table["centres"].sum() == sum(len(one.peaks) for one in wanted) >= 5
    assert table["cells that tell sides"].sum() == sum(int((w.rows >= 0).sum()) for w in wanted)


def test_more_proposals_find_more(output, batch):
    table = two_stages.proposal_recall(output, batch, (1, 10, 50), (0.1, 0.5))
    assert table.index.tolist() == [1, 10, 50]
    assert (table.diff().dropna() >= 0).all(axis=None)
    assert (table["IoU 0.1"] >= table["IoU 0.5"]).all()


def test_paths_lead_from_the_proposal_to_the_last_box(output, batch):
    paths = two_stages.region_paths(output, batch)
    assert set(paths["image"]) == {0, 2}
    assert paths["stage"].tolist()[:4] == ["proposal", "stage 1", "stage 2", "stage 3"]
    assert len(paths) == 4 * 5
    region = int(paths["region"].iloc[0])
    way = two_stages.path_of(output, region)
    assert torch.equal(way[0], output.stages[0].boxes[region])
    assert torch.equal(way[-1], output.stages[-1].refined[region])


def test_a_higher_threshold_leaves_fewer_regions(output, batch):
    table = two_stages.positives_by_overlap(output, batch, (0.1, 0.9))
    assert table.index.tolist() == ["stage 1", "stage 2", "stage 3"]
    assert (table["IoU 0.1"] >= table["IoU 0.9"]).all()
    assert table["IoU 0.1"].max() > 0


def test_it_learns_by_heart_as_the_first_detector_does(subject, config, batch):
    rows = learn_by_heart(subject.detector, subject.criterion, batch, 2, config.optim)
    assert {"total", "heatmap", "distance", "class", "box"} < set(rows.columns)
    assert len(detections(subject.detector, batch)) == 3


def test_a_trained_run_is_looked_at(subject, config, tiny_set, tmp_path):
    classes = [{"id": i, "name": name} for i, name in enumerate(subject.names)]
    save_detector(tmp_path, subject.detector, {"classes": classes})
    opened = two_stages.open_two_stages(replace(config, folder=str(tmp_path)), tiny_set)
    assert torch.equal(opened.detector.text, subject.detector.text)
    fewer = replace(config, folder=str(tmp_path))
    other = tiny_set.__class__.load(tiny_set.path, tiny_set.image_root)
    object.__setattr__(other, "categories", other.categories[:2])
    with pytest.raises(ValueError, match="not a CenterNet2 for the 2 classes"):
        two_stages.open_two_stages(fewer, other)
