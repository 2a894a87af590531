import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from richsem.losses.classification import (
    FederatedClasses,
    focal_losses,
    focal_terms,
)
from richsem.losses.matching import Matches


def random_case(seed=0, num_sets=2, num_classes=6):
    """Logits, labels of three targets and their pairs in two images."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_sets, 2, 5, num_classes, generator=generator) * 3
    labels = torch.tensor([1, 4, 0])
    matches = Matches(
        torch.tensor([0, 0, 1]),
        torch.tensor([[3, 1, 2], [0, 4, 4]])[:num_sets],
        torch.tensor([[1, 0, 2], [0, 1, 2]])[:num_sets],
    )
    return logits, labels, matches


def one_hot(logits, labels, matches):
    wanted = torch.zeros_like(logits)
    for number in range(len(logits)):
        pairs = zip(matches.images, matches.queries[number], matches.targets[number], strict=True)
        for image, query, row in pairs:
            if labels[row] >= 0:
                wanted[number, image, query, labels[row]] = 1
    return wanted


def test_a_query_of_unknown_class_is_left_out():
    logits, labels, matches = random_case()
    labels = torch.tensor([1, -1, 0])
    dense = sigmoid_focal_loss(logits, one_hot(logits, labels, matches)).sum(dim=-1)
    dense[0, 0, 3] = 0  # both queries of target 1
    dense[1, 0, 4] = 0
    torch.testing.assert_close(focal_losses(logits, labels, matches), dense.sum(dim=(1, 2)))


def test_extreme_logits_are_finite():
    logits, labels, matches = random_case()
    logits = (logits.sign() * 1e4).requires_grad_()
    focal_losses(logits, labels, matches).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_terms_of_one_logit_agree_with_torchvision():
    logits = torch.linspace(-5, 5, 11)
    for wanted, term in zip((1.0, 0.0), focal_terms(logits, alpha=0.3, gamma=1.5), strict=False):
        expected = sigmoid_focal_loss(logits, torch.full_like(logits, wanted), 0.3, 1.5)
        torch.testing.assert_close(term, expected)


# --- the federated draw --------------------------------------------------------------------


def test_present_classes_are_kept_and_filled_up():
    draw = FederatedClasses(4, torch.tensor([0, 5, 5, 5, 5, 5, 5]))
    chosen = draw(torch.tensor([3, 3, 0, -1]), 500)
    assert chosen[:, [0, 3]].all()
    assert (chosen.sum(dim=1) == 4).all()
    assert len(chosen.unique(dim=0)) > 2  # a fresh draw for each output set


@pytest.mark.parametrize(
    ("number", "counts", "present", "expected"),
    [
        (2, [1, 1, 1, 1, 1, 1], [0, 2, 3, 5], [0, 2, 3, 5]),  # more than wanted
        (5, [0, 1, 1, 0], [1], [1, 2]),  # the others have no images
    ],
)
def test_the_draw_may_be_larger_or_smaller(number, counts, present, expected):
    chosen = FederatedClasses(number, counts)(torch.tensor(present), 10)
    assert [row.nonzero().flatten().tolist() for row in chosen] == [expected] * 10


def test_no_class_to_draw_is_an_error():
    with pytest.raises(ValueError, match="federated_classes=0"):
        FederatedClasses(5, torch.zeros(3))
    FederatedClasses(0, torch.zeros(3))
