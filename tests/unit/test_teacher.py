"""Soft labels for a batch: the same as box by box, made only where they are needed."""

from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from tiny_dino import target_at
from torchvision.transforms.v2.functional import pil_to_tensor

from richsem.boxes import in_pixels
from richsem.models.clip import soft_labels
from richsem.structures import Batch, DetectorOutput
from richsem.training.teacher import Teacher


@pytest.fixture(scope="module")
def text(untrained, tmp_path_factory):
    return untrained.text_features(["dog", "cat", "red boat"], tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def batch(tiny_set):
    """Two images, the second narrower and padded; and one without boxes."""
    images = torch.zeros(3, 3, 64, 96)
    padding = torch.ones(3, 64, 96, dtype=torch.bool)
    for row, (index, width) in enumerate(((0, 96), (2, 64), (2, 64))):
        pixels = pil_to_tensor(tiny_set.image(index)).float() / 255
        images[row, :, :, :width] = pixels
        padding[row, :, :width] = False
    boxes = [[[0.5, 0.5, 0.4, 0.6], [0.3, 0.6, 0.2, 0.2]], [[0.5, 0.5, 1.0, 1.0]], []]
    sizes = [(64, 96), (64, 64), (64, 64)]
    targets = tuple(target_at(*b, size=s) for b, s in zip(boxes, sizes, strict=True))
    return Batch(targets=targets, images=images, padding=padding)


def test_boxes_count_from_the_image_and_padding_is_grey(untrained, text, batch, monkeypatch):
    looks = Mock(wraps=untrained.encode_crops)
    monkeypatch.setattr(untrained, "encode_crops", looks)
    Teacher(untrained, text, mode="crop")(batch)
    assert looks.call_args_list[1].args[1].tolist() == [[0, 0, 64, 64]]
    seen = []
    monkeypatch.setattr(untrained.tower, "map", lambda pixels: seen.append(pixels) or pixels)
    untrained.batch_map(batch.images, batch.padding)
    grey = untrained.normalise(torch.tensor([0.485, 0.456, 0.406])[:, None, None])
    torch.testing.assert_close(seen[0][1, :, :, 64:], grey.expand(3, 64, 32))
    torch.testing.assert_close(seen[0][0], untrained.normalise(batch.images[0]))


@pytest.mark.parametrize(("mode", "zoom"), [("roi", 1.0), ("roi", 2.0), ("crop", 1.0)])
def test_labels_are_those_of_a_single_image(untrained, text, batch, mode, zoom, monkeypatch):
    labelled = Teacher(untrained, text, mode=mode, zoom=zoom)(batch)
    first = batch.targets[0]
    monkeypatch.setattr(untrained, "config", replace(untrained.config, short_side=int(64 * zoom)))
    features = untrained.regions(batch.images[0], in_pixels(first.boxes, first.size), mode)
    expected = soft_labels(features, text, untrained.scale)
    torch.testing.assert_close(labelled.targets[0].soft_labels, expected, atol=1e-4, rtol=1e-3)
    assert [t.soft_labels.shape for t in labelled.targets] == [(2, 3), (1, 3), (0, 3)]
    sums = labelled.targets[1].soft_labels.sum(-1)
    torch.testing.assert_close(sums, torch.ones(1))
    assert not labelled.targets[0].soft_labels.requires_grad


def test_a_batch_is_looked_at_once_if_it_has_boxes(untrained, text, batch, monkeypatch):
    looks = Mock(wraps=untrained.batch_map)
    monkeypatch.setattr(untrained, "batch_map", looks)
    teacher = Teacher(untrained, text)
    labelled = teacher(batch)
    assert teacher(labelled) is labelled  # cached labels are kept
    teacher(Batch(targets=batch.targets[2:], images=batch.images[2:]))
    assert [len(look.args[0]) for look in looks.call_args_list] == [3]
    one, maps = target_at([0.5, 0.5, 1.0, 1.0]), (torch.zeros(1, 2, 2, 2),)
    with pytest.raises(ValueError, match="neither images nor soft labels"):
        Teacher(untrained, text)(Batch(targets=(one,), features=maps))
    cached = Batch(targets=(replace(one, soft_labels=torch.ones(1, 3)),), features=maps)
    assert Teacher(untrained, text)(cached) is cached


@pytest.mark.parametrize("mode", ["pred", "pred_all"])
def test_the_boxes_of_the_student(untrained, text, batch, mode):
    references = torch.tensor([[0.5, 0.5, 0.4, 0.6], [0.3, 0.6, 0.2, 0.2]]).expand(3, 2, 4)
    known = {"boxes": references[None], "last_references": references}
    output = DetectorOutput(logits=torch.zeros(1, 3, 2, 3), **known)
    same, labelled = Teacher(untrained, text, mode).label(batch, output)
    assert same is batch
    assert labelled.query_soft_labels.shape == (3, 2, 3)
    at_targets, _ = Teacher(untrained, text).label(batch, output)
    expected = at_targets.targets[0].soft_labels
    torch.testing.assert_close(labelled.query_soft_labels[0], expected, atol=1e-4, rtol=1e-3)
