"""Teachers that know less: what of a soft label is kept, and what becomes of the rest."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from toys import exactly

from richsem.data.altered import AlteredTeacher, ShuffledTeacher, WrongLabels
from richsem.data.samples import DetectionTrainingSet
from richsem.data.transforms import TransformConfig
from richsem.training.controls import extra_epoch

CLASSES = 30
AS_IT_IS = TransformConfig(flip=0, crop=0, short_sides=(64,), max_side=10_000)
TEXT = normalize(torch.randn(CLASSES, 8, generator=torch.Generator().manual_seed(0)), dim=1)


class Labelled(DetectionTrainingSet):
    """A set whose soft labels say which image and box they are of; classes may be unknown."""

    unknown = False

    def __getitem__(self, key):
        sample = super().__getitem__(key)
        labels, draw = sample.target.labels, torch.Generator().manual_seed(key[0])
        soft = torch.rand(len(labels), CLASSES, generator=draw)
        labels = torch.full_like(labels, -1) if self.unknown else labels
        own = replace(sample.target, labels=labels, soft_labels=soft / soft.sum(1, True))
        return replace(sample, target=own)


@pytest.fixture
def plain(tiny_set):
    return Labelled(tiny_set, AS_IT_IS)


def test_a_shuffled_teacher_keeps_its_words_and_loses_the_image(plain):
    shuffled = ShuffledTeacher(plain, seed=1)
    said = [plain[index, 0].target.soft_labels for index in range(len(plain))]
    came_from = []
    for index in range(len(plain)):
        before, after = plain[index, 0].target, shuffled[index, 0].target
        exactly((before.labels, before.boxes), (after.labels, after.boxes))
        assert after.soft_labels.shape == before.soft_labels.shape
        for row in after.soft_labels[:1]:
            came_from += [i for i, one in enumerate(said) if len(one) and torch.equal(one[0], row)]
    assert len(came_from) == sum(bool(len(one)) for one in said)
    assert came_from != sorted(came_from)


@pytest.mark.parametrize("rest", ["like", "unlike", "names", "even"])
def test_the_own_class_keeps_its_share_and_the_rest_sums_to_what_was_left(plain, rest):
    altered = AlteredTeacher(plain, TEXT, 10.0, rest, 1.0)
    assert altered.fingerprint != plain.fingerprint
    for index in range(len(plain)):
        before, after = plain[index, 0].target, altered[index, 0].target
        own = torch.arange(len(before.labels)), before.labels
        torch.testing.assert_close(after.soft_labels[own], before.soft_labels[own])
        torch.testing.assert_close(after.soft_labels.sum(1), torch.ones(len(before.labels)))


def rest_of(plain, rest):
    """Soft label before and after, and the other classes from the most alike on, of some box."""
    before = plain[0, 0].target
    label = before.labels[0]
    order = (TEXT @ TEXT[label]).argsort(descending=True)
    after = AlteredTeacher(plain, TEXT, 10.0, rest, 1.0)[0, 0].target
    return before.soft_labels[0], after.soft_labels[0], order[order != label]


def test_the_rest_is_permuted_or_follows_names_or_nothing(plain):
    before, after, order = rest_of(plain, "like")
    for block in order.split(10):
        torch.testing.assert_close(after[block].sort().values, before[block].sort().values)
    assert not torch.equal(after, before)
    before, after, order = rest_of(plain, "unlike")
    torch.testing.assert_close(after[order], before[order].flip(0))
    _, after, order = rest_of(plain, "even")
    torch.testing.assert_close(after[order], after[order].mean().expand(len(order)))
    _, after, order = rest_of(plain, "names")
    assert (after[order].diff() <= 0).all()


def test_sharpness_is_an_exponent_and_unseen_classes_give_to_the_others_in_their_shares(plain):
    before = plain[0, 0].target.soft_labels
    powers = before**2
    found = AlteredTeacher(plain, TEXT, 10.0, "seen", 2.0)[0, 0].target.soft_labels
    torch.testing.assert_close(found, powers / powers.sum(1, True))
    after = AlteredTeacher(plain, TEXT, 10.0, "seen", 1.0, [3, 7])[0, 0].target.soft_labels
    assert not after[:, [3, 7]].any()
    others = [c for c in range(CLASSES) if c not in (3, 7)]
    left = before[:, others]
    torch.testing.assert_close(after[:, others], left / left.sum(1, True))
    own = torch.nn.functional.one_hot(plain[0, 0].target.labels, CLASSES)
    surer = AlteredTeacher(plain, TEXT, 10.0, "seen", 1.0, corrected=0.5)
    assert surer.fingerprint != AlteredTeacher(plain, TEXT, 10.0, "seen", 1.0).fingerprint
    torch.testing.assert_close(surer[0, 0].target.soft_labels, (before + own) / 2)
    plain.unknown = True
    surer = AlteredTeacher(plain, TEXT, 10.0, "seen", 1.0, corrected=0.5)
    exactly(surer[0, 0].target.soft_labels, before)
    exactly(AlteredTeacher(plain, TEXT, 10.0, "even", 1.0)[0, 0].target.soft_labels, before)


def test_a_share_of_labels_is_wrong_and_the_same_ones_every_time(plain):
    for share, expected in ((0.0, 0), (1.0, 1)):
        altered = WrongLabels(plain, share, CLASSES)
        for index in range(len(plain)):
            before, after = plain[index, 0].target.labels, altered[index, 0].target.labels
            assert (before != after).float().tolist() == [expected] * len(before)
            assert torch.equal(after, altered[index, 7].target.labels)
            assert ((after >= 0) & (after < CLASSES)).all()
    assert WrongLabels(plain, 0.4, CLASSES).fingerprint != plain.fingerprint


def test_extra_items_are_shown_as_often_as_their_classes_in_detection():
    targets = [SimpleNamespace(labels=torch.tensor(own)) for own in ([0], [1, 1], [2, 0], [-1])]
    samples = {(index, 0): SimpleNamespace(target=one) for index, one in enumerate(targets)}
    factors = extra_epoch(samples, np.array([1, 3, 8])).factors
    assert factors.mean() == pytest.approx(1)
    assert (factors / factors[0]).tolist() == pytest.approx([1, 3, 4.5, 0])
