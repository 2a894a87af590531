"""The detectors of notebook 03: small, learning, published, and without weights."""

from dataclasses import replace

import pytest
import torch

from richsem.models.dino.dino import Dino
from richsem.paths import ROOT
from richsem.recipes import dino_recipes
from richsem.workbook import dissection
from richsem.workbook.dissection import learner, open_subject, paper_size
from richsem.workbook.notebook_data import DataConfig


@pytest.fixture
def config(monkeypatch):
    def vocabulary(clip, names):
        torch.manual_seed(0)
        return torch.randn(len(names), 256), 30.0

    monkeypatch.setattr(dissection, "_vocabulary", vocabulary)
    return dissection.dissection(DataConfig(profile="smoke"))


def test_smoke_does_less(config):
    demo = dissection.dissection(DataConfig(profile="demo"), seed=3)
    assert (config.steps, config.measured) < (demo.steps, demo.measured)
    assert demo.seed == 3
    published = dissection.dissection(DataConfig(profile="paper"), checkpoint="a.pth")
    assert published.measured < demo.measured


def test_the_small_detector_takes_the_classes_of_the_data(config, tiny_set, tiny_names):
    config = replace(config, start="")
    subject = open_subject(config, tiny_set)
    assert subject.names == tuple(tiny_names)
    assert not subject.detector.training
    assert subject.detector.config.scale == 30
    batch = subject.batch([0, 3])
    assert [len(target.labels) for target in batch.targets] == [3, 2]
    assert batch.padding is None
    with torch.no_grad():
        assert subject.detector(batch).logits.shape[-1] == len(tiny_names)


@pytest.mark.skipif(not (ROOT / dino_recipes.MINI_START).is_file(), reason="no pre-trained weights")
@pytest.mark.parametrize("classifier", ["text", "linear"])
def test_a_learner_starts_from_the_weights_but_not_from_their_head(config, tiny_set, classifier):
    subject = learner(config, tiny_set, classifier)
    other = learner(replace(config, seed=1), tiny_set, classifier)
    assert subject.detector.config.classifier == classifier
    assert subject.detector.training
    own, theirs = subject.detector.state_dict(), other.detector.state_dict()
    assert torch.equal(own["decoder.norm.weight"], theirs["decoder.norm.weight"])
    head = "classifier.weight" if classifier == "linear" else "classifier.projection.weight"
    assert not torch.equal(own[head], theirs[head])


def test_a_paper_size_detector_has_shapes_only():
    model = paper_size(dino_recipes.richsem("paper").detector)
    assert model.config.num_classes == 1203
    assert all(parameter.is_meta for parameter in model.parameters())
    assert 40e6 < sum(parameter.numel() for parameter in model.parameters()) < 60e6


def test_a_published_detector_counts_classes_by_the_file_s_ids(config, tiny_set, monkeypatch):
    small = replace(open_subject(replace(config, start=""), tiny_set).detector.config)

    def load(state, text):
        assert text is None
        return Dino(replace(small, num_classes=6, classifier="linear", label_embedding="table"))

    monkeypatch.setattr(dissection, "read_checkpoint", lambda path: {"bbox_embed": path})
    monkeypatch.setattr(dissection, "load_official", load)
    config = replace(config, checkpoint="a.pth")
    subject = open_subject(config, tiny_set)
    assert subject.names == ("", "dog", "cat", "red_boat", "guitar", "")
    assert subject.samples[0, 0].target.labels.tolist() == [1, 2, 3]
    monkeypatch.setattr(dissection, "load_official", lambda *_: Dino(replace(small, num_classes=4)))
    with pytest.raises(ValueError, match="category id 4"):
        open_subject(config, tiny_set)


def test_a_clear_image_has_boxes_apart(tiny_set):
    assert dissection.clear_image(tiny_set) == 4  # the boxes of the first one overlap
    with pytest.raises(ValueError, match="two to four"):
        dissection.clear_image(tiny_set.select([1, 2]))
