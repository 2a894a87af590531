import math

import pytest
import torch
from torch.nn import functional as F

from richsem.losses.semantic import soft_label_loss


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    teacher = (3 * torch.randn(4, 6, generator=generator)).softmax(dim=-1)
    return teacher, torch.randn(4, 6, generator=generator)


def test_is_the_divergence_of_torch(case):
    teacher, student = case
    expected = F.kl_div(student.log_softmax(dim=-1), teacher, reduction="sum")
    torch.testing.assert_close(soft_label_loss(teacher, student), expected)


def test_is_zero_for_a_perfect_student(case):
    teacher, _ = case
    assert soft_label_loss(teacher, teacher.log() + 5).item() == pytest.approx(0, abs=1e-6)


def test_a_certain_teacher_is_finite():
    teacher, student = torch.eye(3), torch.zeros(3, 3, requires_grad=True)
    loss = soft_label_loss(teacher, student)
    loss.backward()
    assert loss.item() == pytest.approx(3 * math.log(3))
    assert torch.isfinite(student.grad).all()


def test_entropy_weight_silences_a_certain_teacher_and_doubles_a_clueless_one():
    student = torch.tensor([[1.0, 2.0, 0.5]])
    certain, clueless = torch.tensor([[0.0, 1.0, 0.0]]), torch.full((1, 3), 1 / 3)
    assert soft_label_loss(certain, student, entropy_weight=True).item() == 0
    plain = soft_label_loss(clueless, student)
    torch.testing.assert_close(soft_label_loss(clueless, student, entropy_weight=True), 2 * plain)


def test_some_classes_only(case):
    teacher, student = case
    classes = torch.tensor([True, False, True, True, False, False])
    renormalised = teacher[:, classes] / teacher[:, classes].sum(dim=-1, keepdim=True)
    expected = soft_label_loss(renormalised, student[:, classes])
    torch.testing.assert_close(soft_label_loss(teacher, student, classes=classes), expected)


def test_no_boxes():
    assert soft_label_loss(torch.zeros(0, 5), torch.zeros(0, 5)).item() == 0
