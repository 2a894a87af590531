import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from richsem.losses.classification import FederatedClasses, focal_losses, focal_terms
from richsem.losses.matching import Matches

# Of two output sets, two images, five queries and six classes; three targets and their pairs.
LOGITS = 3 * torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 4, 0])
MATCHES = Matches(
    images=torch.tensor([0, 0, 1]),
    queries=torch.tensor([[3, 1, 2], [0, 4, 4]]),
    targets=torch.tensor([[1, 0, 2], [0, 1, 2]]),
)


def test_a_query_of_unknown_class_is_left_out():
    wanted, sets = torch.zeros_like(LOGITS), torch.arange(2)[:, None]
    wanted[sets, MATCHES.images, MATCHES.queries, LABELS[MATCHES.targets]] = 1
    dense = sigmoid_focal_loss(LOGITS, wanted).sum(dim=-1)
    dense[0, 0, 3] = 0  # both queries of target 1
    dense[1, 0, 4] = 0
    losses = focal_losses(LOGITS, torch.tensor([1, -1, 0]), MATCHES)
    torch.testing.assert_close(losses, dense.sum(dim=(1, 2)))


def test_extreme_logits_are_finite():
    logits = (LOGITS.sign() * 1e4).requires_grad_()
    focal_losses(logits, LABELS, MATCHES).sum().backward()
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
