import pytest
import torch
from torch.nn import functional as F

from richsem.losses.image_level import answering_queries, image_level_loss
from richsem.structures import Target


def make_target(labels):
    return Target(torch.tensor(labels, dtype=torch.long), torch.zeros(0, 4), (8, 8), (8, 8), 0)


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
    targets = [make_target(some) for some in labels]
    torch.testing.assert_close(image_level_loss(logits, boxes, targets, choice), expected)


@pytest.mark.parametrize(
    ("labels", "taught"), [([[2], [], [1, 3]], [1, 0, 1]), ([[-1], [], []], [0, 0, 0])]
)
def test_only_chosen_queries_learn_and_unknown_labels_teach_nothing(predictions, labels, taught):
    logits, boxes = predictions
    logits = logits.clone().requires_grad_()
    loss = image_level_loss(logits, boxes, [make_target(own) for own in labels], "max_size")
    loss.backward()
    touched = logits.grad.abs().sum(dim=-1) > 0
    assert touched.sum(dim=-1).tolist() == [taught] * 3
    assert (loss.item() == 0) == (not any(taught))


def test_the_answering_query_is_the_largest_or_the_surest():
    boxes = torch.tensor([[[[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.3, 0.9], [0.5, 0.5, 0.9, 0.1]]]])
    logits = torch.tensor([[[[0.0, 3.0], [1.0, 2.0], [5.0, 1.0]]]])
    images, labels = torch.tensor([0, 0]), torch.tensor([0, 1])
    assert answering_queries(logits, boxes, images, labels, "max_size").tolist() == [[1, 1]]
    assert answering_queries(logits, boxes, images, labels, "max_score").tolist() == [[2, 0]]
