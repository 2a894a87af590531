"""The detectors of notebooks 03 and 04: opened, read, and learning by heart."""

from dataclasses import replace
from unittest import mock

import pytest
import torch
from tiny_dino import LINEAR, SIDE, image_batch, target, tiny_dino
from tiny_losses import dino_criterion

from richsem.boxes import in_pixels
from richsem.losses.centernet2_criterion import CenterNet2Criterion
from richsem.models.backbones import BackboneConfig
from richsem.models.dino.dino import Dino
from richsem.paths import ROOT
from richsem.recipes import dino_recipes
from richsem.recipes.centernet2_recipes import MINI_LOSS
from richsem.training.checkpoint import save_detector
from richsem.training.optim import OptimConfig
from richsem.workbook import anatomy as parts
from richsem.workbook import subjects
from richsem.workbook.notebook_data import DataConfig


def vocabulary(names):
    torch.manual_seed(0)
    return torch.randn(len(names), 256), 30.0


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(subjects, "_vocabulary", vocabulary)
    return subjects.configure_dino(DataConfig(profile="smoke"))


def test_smoke_does_and_learns_less(config, two_stages):
    demo = subjects.configure_dino(DataConfig(profile="demo"), seed=3)
    assert (config.steps, config.measured) < (demo.steps, demo.measured) and demo.seed == 3
    published = subjects.configure_dino(DataConfig(profile="paper"), checkpoint="a.pth")
    assert published.measured < demo.measured
    demo = subjects.configure_cascade(DataConfig(profile="demo"), seed=3, folder="run")
    assert (two_stages.steps, two_stages.learnt) < (demo.steps, demo.learnt)
    assert (demo.seed, demo.given) == (3, "run")


def test_the_small_detector_takes_the_classes_of_the_data(config, tiny_set, tiny_names):
    subject = subjects.open_dino(config, tiny_set)
    assert subject.names == tuple(tiny_names) and not subject.detector.training
    assert subject.detector.config.scale == 30
    batch = subject.batch([0, 3])
    assert [len(target.labels) for target in batch.targets] == [3, 2] and batch.padding is None
    with torch.no_grad():
        assert subject.detector(batch).logits.shape[-1] == len(tiny_names)


@pytest.mark.skipif(not (ROOT / dino_recipes.MINI_START).is_file(), reason="no pre-trained weights")
@pytest.mark.parametrize("classifier", ["text", "linear"])
def test_a_learner_starts_from_the_weights_but_not_from_their_head(config, tiny_set, classifier):
    subject = subjects.learner(config, tiny_set, classifier)
    other = subjects.learner(replace(config, seed=1), tiny_set, classifier)
    assert subject.detector.config.classifier == classifier and subject.detector.training
    own, theirs = subject.detector.state_dict(), other.detector.state_dict()
    assert torch.equal(own["decoder.norm.weight"], theirs["decoder.norm.weight"])
    head = "classifier.weight" if classifier == "linear" else "classifier.projection.weight"
    assert not torch.equal(own[head], theirs[head])


def test_a_published_detector_counts_classes_by_the_file_s_ids(config, tiny_set, monkeypatch):
    small = subjects.open_dino(config, tiny_set).detector.config
    linear = replace(small, num_classes=6, classifier="linear", label_embedding="table")
    loads = mock.Mock(return_value=Dino(linear))
    monkeypatch.setattr("richsem.models.weight_files.read", lambda path: {"bbox_embed": path.name})
    monkeypatch.setattr(subjects, "load_official", loads)
    config = replace(config, given="a.pth")
    subject = subjects.open_dino(config, tiny_set)
    loads.assert_called_once_with({"bbox_embed": "a.pth"}, None)
    assert subject.names == ("", "dog", "cat", "red_boat", "guitar", "")
    assert subject.samples[0, 0].target.labels.tolist() == [1, 2, 3]
    loads.return_value = Dino(replace(small, num_classes=4))
    with pytest.raises(ValueError, match="category id 4"):
        subjects.open_dino(config, tiny_set)


@pytest.fixture(scope="module")
def two_stages():
    return subjects.configure_cascade(DataConfig(profile="smoke"))


@pytest.fixture(scope="module")
def subject(two_stages, tiny_set):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subjects, "_vocabulary", vocabulary)
        yield subjects.open_cascade(two_stages, tiny_set)


@pytest.fixture(scope="module")
def scenes(subject):
    return subject.batch([0, 2, 3])


@pytest.fixture(scope="module")
def output(subject, scenes):
    with torch.no_grad():
        return subject.detector.eval()(scenes)


def test_wanted_centres_have_the_detectors_cells(subject, tiny_names, scenes, two_stages, output):
    assert subject.names == tuple(tiny_names) and subject.detector.config.scale == 30
    assert [len(target.labels) for target in scenes.targets] == [3, 0, 2]
    cells, wanted = parts.wanted_centers(subject.detector, MINI_LOSS.ranges, scenes)
    assert torch.equal(cells.points, output.cells.points)
    maps = parts.maps_of_levels(wanted[0].heat, cells)
    assert {name: own.shape for name, own in maps.items()} == {
        "stride 16": (16, 16), "stride 32": (8, 8), "stride 64": (4, 4), "stride 128": (2, 2)
    }  # fmt: skip
    x, y = in_pixels(scenes.targets[0].boxes, scenes.targets[0].size)[0].view(2, 2).mean(0).tolist()
    assert maps["stride 16"][int(y // 16), int(x // 16)] == 1
    table = parts.levels_in_charge(cells, wanted)
    assert table["centres"].sum() == sum(len(one.peaks) for one in wanted) >= 5
    assert table["cells that tell sides"].sum() == sum(int((w.rows >= 0).sum()) for w in wanted)


def test_more_proposals_find_more_and_paths_lead_from_them_to_the_last_box(output, scenes):
    table = parts.proposal_recall(output, scenes, (1, 10, 50), (0.1, 0.5))
    assert table.index.tolist() == [1, 10, 50] and (table.diff().dropna() >= 0).all(axis=None)
    assert (table["IoU 0.1"] >= table["IoU 0.5"]).all()
    table = parts.positives_by_overlap(output, scenes, (0.1, 0.9))
    assert table.index.tolist() == ["stage 1", "stage 2", "stage 3"]
    assert (table["IoU 0.1"] >= table["IoU 0.9"]).all() and table["IoU 0.1"].max() > 0
    paths = parts.region_paths(output, scenes)
    assert set(paths["image"]) == {0, 2}
    assert paths["stage"].tolist() == 5 * ["proposal", "stage 1", "stage 2", "stage 3"]
    region = int(paths["region"].iloc[0])
    way = parts.paths_of(output)[:, region]
    assert torch.equal(way[0], output.stages[0].boxes[region])
    assert torch.equal(way[-1], output.stages[-1].refined[region])


def test_it_learns_by_heart_and_a_trained_run_is_looked_at(
    subject, two_stages, scenes, tiny_set, tmp_path
):
    loss = CenterNet2Criterion(MINI_LOSS, len(subject.names), tiny_set.image_counts())
    rows = subjects.learn_by_heart(subject.detector, loss, scenes, 2, two_stages.optim)
    assert {"total", "heatmap", "distance", "class", "box"} < set(rows.columns)
    assert len(subjects.detections(subject.detector, scenes)) == 3
    classes = [{"id": i, "name": name} for i, name in enumerate(subject.names)]
    save_detector(tmp_path, subject.detector, {"classes": classes})
    opened = subjects.open_cascade(replace(two_stages, given=str(tmp_path)), tiny_set)
    assert torch.equal(opened.detector.text, subject.detector.text)
    other = replace(tiny_set, categories=tiny_set.categories[:2])
    with pytest.raises(ValueError, match="not a CenterNet2 for the 2 classes"):
        subjects.open_cascade(replace(two_stages, given=str(tmp_path)), other)


BATCH = image_batch(target(2))
OPTIM = OptimConfig(lr=2e-3, clip_norm=1.0, schedule="constant")


def detector_of(trainable=False):
    backbone = BackboneConfig(name="test_resnet", strides=(8, 16), trainable=trainable)
    return tiny_dino(backbone=backbone, **LINEAR | {"proposal_classifier": "agnostic"})


def test_the_loss_falls_and_the_object_is_found_and_the_same_seed_learns_the_same():
    detector = detector_of()
    history = subjects.learn_by_heart(detector, dino_criterion(), BATCH, 100, OPTIM)
    assert history["step"].tolist() == list(range(1, 101))
    assert {"total", "class", "giou", "denoising_class"} <= set(history.columns)
    assert history["total"].iloc[-5:].mean() < 0.4 * history["total"].iloc[:5].mean()
    assert not detector.training
    (found,) = subjects.detections(detector, BATCH, threshold=0.2)
    assert found.recognised.tolist() == [True] and found.labels[0] == 2
    known = (dino_criterion(), BATCH, 3, OPTIM)
    runs = [subjects.learn_by_heart(detector_of(), *known, seed=seed) for seed in (5, 5, 6)]
    assert runs[0].equals(runs[1]) and not runs[0].equals(runs[2])


def test_features_are_kept_behind_a_frozen_backbone_and_recognised_needs_class_and_place():
    frozen = detector_of()
    ready = subjects.with_features(frozen, BATCH)
    assert len(ready.features) == 2 and subjects.with_features(frozen, ready) is ready
    assert subjects.with_features(detector_of(trainable=True), BATCH) is BATCH
    own, label = BATCH.targets[0], torch.tensor([2])
    box = in_pixels(own.boxes, own.size)
    found = [(label, box), (label - 1, box), (label, box + 0.4 * SIDE), (label[:0], box[:0])]
    right = [subjects.recognised(*one, own).tolist() for one in found]
    assert right == [[True], [False], [False], [False]]
    known = {"labels": torch.zeros(3).long(), "boxes_xyxy": torch.zeros(3, 4)}
    found = subjects.Found(recognised=torch.tensor([True, False]), **known)
    assert found.surplus == 2
