import math

import pytest
import torch

from richsem.losses.semantic import soft_label_loss


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    teacher = (3 * torch.randn(4, 6, generator=generator)).softmax(dim=-1)
    return teacher, torch.randn(4, 6, generator=generator)


def test_is_zero_for_a_perfect_student(case):
    teacher, _ = case
    assert soft_label_loss(teacher, teacher.log() + 5).item() == pytest.approx(0, abs=1e-6)


def test_a_certain_teacher_is_finite():
    teacher, student = torch.eye(3), torch.zeros(3, 3, requires_grad=True)
    loss = soft_label_loss(teacher, student)
    loss.backward()
    assert loss.item() == pytest.approx(3 * math.log(3))
    assert torch.isfinite(student.grad).all()


def test_no_boxes():
    assert soft_label_loss(torch.zeros(0, 5), torch.zeros(0, 5)).item() == 0
