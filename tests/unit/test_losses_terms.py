"""Soft labels, and Detic's loss on whole images."""

import math

import pytest
import torch
from tiny_dino import annotated
from torch.nn import functional as F

from richsem.losses.image_level import image_level_loss
from richsem.losses.semantic import soft_label_loss


def test_a_certain_teacher_is_finite():
    teacher, student = torch.eye(3), torch.zeros(3, 3, requires_grad=True)
    loss = soft_label_loss(teacher, student)
    loss.backward()
    assert loss.item() == pytest.approx(3 * math.log(3))
    assert torch.isfinite(student.grad).all()


def test_no_boxes_and_a_perfect_student_cost_nothing():
    assert soft_label_loss(torch.zeros(0, 5), torch.zeros(0, 5)).item() == 0
    teacher = (3 * torch.randn(4, 6)).softmax(dim=-1)
    assert soft_label_loss(teacher, teacher.log() + 5).item() == pytest.approx(0, abs=1e-5)


@pytest.fixture
def predictions():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, 5, 4, generator=generator)
    return logits, torch.rand(3, 3, 5, 4, generator=generator)


@pytest.mark.parametrize("choice", ["max_size", "max_score"])
def test_against_loops(predictions, choice):
    """METHOD 3.2, one layer, image and label at a time."""
    logits, boxes = predictions
    labels = [[2, 0], [], [1]]
    expected = torch.zeros(())
    for layer in range(3):
        for image in range(3):
            for label in labels[image]:
                area = boxes[layer, image, :, 2] * boxes[layer, image, :, 3]
                score = logits[layer, image, :, label]
                query = (area if choice == "max_size" else score).argmax()
                wanted = F.one_hot(torch.tensor(label), 4).float()
                answer = logits[layer, image, query]
                loss = F.binary_cross_entropy_with_logits(answer, wanted, reduction="sum")
                expected += loss / len(labels[image]) / 3
    targets = annotated(*labels)
    torch.testing.assert_close(image_level_loss(logits, boxes, targets, choice), expected)


@pytest.mark.parametrize(
    ("labels", "taught"), [([[2], [], [1, 3]], [1, 0, 1]), ([[-1], [], []], [0, 0, 0])]
)
def test_only_chosen_queries_learn_and_unknown_labels_teach_nothing(predictions, labels, taught):
    logits, boxes = predictions
    logits = logits.clone().requires_grad_()
    loss = image_level_loss(logits, boxes, annotated(*labels), "max_size")
    loss.backward()
    touched = logits.grad.abs().sum(dim=-1) > 0
    assert touched.sum(dim=-1).tolist() == [taught] * 3
    assert (loss.item() == 0) == (not any(taught))
