"""What losses tell classes: small cases that can be counted by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_files import write_json
from torch.nn import functional as F

from richsem.config import PROFILES
from richsem.data.reading import DataError
from richsem.losses.classification import FederatedClasses
from richsem.models.heads import LinearClassifier, TextClassifier
from richsem.workbook import signals, zero_shot
from richsem.workbook.notebook_data import DataConfig


def test_effective_classes_means_look_alikes_and_soft_counts_by_hand():
    labels = torch.tensor([[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])
    torch.testing.assert_close(signals.effective_classes(labels), torch.tensor([1.0, 4.0, 2.0]))
    soft = torch.tensor([[0.6, 0.4, 0.0], [0.8, 0.1, 0.1], [0.5, 0.5, 0.0]])
    means = signals.mean_soft_labels(soft, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(means[:2], torch.tensor([[0.7, 0.25, 0.05], [0.5, 0.5, 0.0]]))
    assert means[2].isnan().all()
    rows = [[0.9, 0.1, 0.0, 0.0], [0.1, 0.5, 0.4, 0.0], [0.1, 0.7, 0.2, 0.0], [float("nan")] * 4]
    means = torch.tensor(rows)
    assert signals.look_alikes(means, torch.arange(4)).tolist() == [1, 0, 2]
    assert signals.look_alikes(means, torch.tensor([3, 2, 0])).tolist() == [0, 2]
    means = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [float("nan")] * 3])
    counts = signals.soft_counts(means, np.array([10, 4, 0]))
    expected = {"hard": [10, 4, 0], "own": [7, 2, 0], "others": [2, 2, 1]}  # 14 in both ways
    for name, values in expected.items():
        assert counts[name].tolist() == pytest.approx(values)


def test_a_linear_head_moves_one_class_and_a_text_head_its_relatives():
    torch.manual_seed(0)
    text = F.normalize(torch.randn(4, 64), dim=-1)
    text[1] = F.normalize(text[0] + 0.3 * text[1], dim=-1)
    hidden = torch.randn(16)
    linear, head = LinearClassifier(16, 4), TextClassifier(16, 64)
    weight = head.projection.weight.clone()
    alone = signals.step_response(linear, hidden, text, 10.0, 0)
    torch.testing.assert_close(alone, torch.tensor([1.0, 0, 0, 0]))
    together = signals.step_response(head, hidden, text, 10.0, 0)
    assert together[0] == 1 and together[1] > 0.8 > 0.4 > together[2:].abs().max()
    assert torch.equal(head.projection.weight, weight)


@pytest.mark.parametrize("target", [[0.7, 0.3, 0.0], [0.0, 1.0, 0.0]])
def test_a_pulled_student_arrives_and_comes_closer_at_each_step(target):
    target, start = torch.tensor(target), torch.tensor([0.0, 1.0, -1.0])
    path = signals.pull(target, start, steps=300, rate=1.0)
    assert path.shape == (301, 3)
    torch.testing.assert_close(path[0], start.softmax(0))
    first_step = (start + target - path[0]).softmax(0)
    torch.testing.assert_close(path[1], first_step)
    torch.testing.assert_close(path[-1], target, atol=0.02, rtol=0)
    divergence = -(target * path.log()).sum(dim=1)
    assert (divergence.diff() <= 1e-6).all()


def test_calculated_steps_are_those_of_the_sampler_or_say_no_to_the_absent():
    counts = np.geomspace(1, 300, 40).round().astype(int)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    expected = signals.class_steps(counts, 1000, batch_size=2, number=12)
    batches = signals.imagined_batches(counts, 1000, 2, 3000, rng)
    seen = signals.drawn_steps(FederatedClasses(12, counts), batches)
    np.testing.assert_allclose(seen["present"], expected["present"], atol=0.035)
    np.testing.assert_allclose(seen["drawn"], expected["drawn"], atol=0.035)
    table = signals.class_steps(np.array([10, 50, 100]), 100, batch_size=2, number=0)
    np.testing.assert_allclose(table["present"], [0.19, 0.75, 1.0])
    np.testing.assert_allclose(table["absent"], [0.81, 0.25, 0.0])
    np.testing.assert_allclose(table["drawn"], table["absent"])
    batches = [torch.tensor([0]), torch.tensor([0, 1])]
    seen = signals.drawn_steps(FederatedClasses(0, [1, 1, 1]), batches)
    assert seen["present"].tolist() == [1.0, 0.5, 0.0]
    assert seen["drawn"].tolist() == [0.0, 0.5, 1.0]


def test_boxes_and_images_of_classes(tiny_set):
    frame = signals.largest_boxes(tiny_set)
    expected = {
        "image": [0, 0, 0, 1, 3, 3, 4, 4],
        "label": [0, 1, 2, 3, 0, 1, 0, 2],
        "num_classes": [3, 3, 3, 1, 2, 2, 2, 2],
        # Whether the largest box of the image is of this class.
        "right": [False, False, True, True, True, False, False, True],
    }
    pd.testing.assert_frame_equal(frame, pd.DataFrame(expected), check_dtype=False)
    one = signals.few_per_class(tiny_set, 1)
    assert (one.image_counts() >= 1).all() and len(one) < 4
    alone = dataclasses.replace(tiny_set, categories=tiny_set.categories[:1])
    with pytest.raises(DataError, match="one class alone has no look-alike"):
        signals.few_per_class(alone, 1)
    everything = signals.few_per_class(tiny_set, 9)
    assert len(everything) == 4  # the image without a box has no class
    assert everything.image_counts().tolist() == tiny_set.image_counts().tolist()
    rng = np.random.default_rng(0)
    batches = list(signals.label_batches(tiny_set, 1, 30, rng))
    of_images = {tuple(tiny_set.boxes_of(i)[1].tolist()) for i in range(len(tiny_set))}
    assert len(batches) == 30 and {tuple(batch.tolist()) for batch in batches} == of_images


@pytest.mark.parametrize("number", [1, 20, 59])
def test_calculated_odds_are_those_of_the_draw(number):
    torch.manual_seed(0)
    counts = torch.as_tensor(np.geomspace(1, 2000, 60))
    counts[0] = 0
    odds = signals.federated_odds(counts, number)
    chosen = FederatedClasses(number, counts)(torch.tensor([], dtype=int), 6000)
    torch.testing.assert_close(chosen.double().mean(dim=0), odds, atol=0.025, rtol=0)
    assert odds.sum() == pytest.approx(number)


def test_calculated_odds_at_the_limits():
    odds, present = signals.federated_odds, torch.tensor([1.0, 0.0, 0.0])
    assert odds([4, 0, 9], 0).tolist() == [1, 1, 1]
    assert odds([4, 0, 9], 3).tolist() == [1, 0, 1]
    assert odds([4, 4, 9], 1, present).tolist() == [0, 0, 0]
    assert odds([1, 1, 1], 2, present)[1:].tolist() == pytest.approx([0.5, 0.5])


def test_federated_tables_show_real_counts_and_the_teacher_is_that_of_table_2(tiny_set, tmp_path):
    known = {"frequency": "f", "instance_count": 20_000}
    listed = [{"id": i, "name": f"c{i}", "image_count": 10_017 * i, **known} for i in range(1, 6)]
    path = write_json(tmp_path / "categories.json", listed)
    config = signals.configure(DataConfig(profile="smoke", categories=str(path)))
    config = dataclasses.replace(config, federated_classes=3, steps=300)
    own, real = signals.federated_tables(config, tiny_set).values()
    assert own["group"].tolist() == ["r", "c", "f", "f"]
    assert real["images"].tolist() == [10_017 * i for i in range(1, 6)]
    for table in (own, real):
        assert (table["seen"] - table["drawn"]).abs().max() < 0.25  # few classes: a rough formula
    for profile in PROFILES:
        data = DataConfig(profile=profile)
        assert signals.configure(data).clip == zero_shot.configure(data).clip
