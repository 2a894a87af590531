import pytest
import torch

from richsem.models.postprocess import postprocess

LOGITS = torch.tensor([[[3.0, -1.0], [2.0, 1.0], [-4.0, 0.0]]])  # [1, 3 queries, 2 classes]
BOXES = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0], [0.5, 0.25, 0.2, 0.3]]])


def test_fewer_pairs_than_wanted():
    [(scores, _, boxes)] = postprocess(LOGITS, BOXES, [(10, 10)])
    assert len(scores) == len(boxes) == LOGITS[0].numel()


def test_queries_that_look_at_nothing_find_nothing():
    nothing = torch.full((1, 2, 2), -torch.inf)
    logits, boxes = torch.cat([nothing, LOGITS], 1), torch.cat([BOXES[:, :2], BOXES], 1)
    [found], [expected] = (
        postprocess(*given, [(10, 10)]) for given in ((logits, boxes), (LOGITS, BOXES))
    )
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("nms", [None, 0.5])
def test_images_do_not_influence_each_other(nms):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 12, 5, generator=generator)
    boxes = torch.rand(4, 12, 4, generator=generator)
    sizes = torch.tensor([[10, 20], [30, 5], [7, 7], [100, 90]])
    together = postprocess(logits, boxes, sizes, nms=nms)
    for index in range(4):
        one = slice(index, index + 1)
        [alone] = postprocess(logits[one], boxes[one], sizes[one], nms=nms)
        torch.testing.assert_close(alone[0], together[index][0], atol=1e-6, rtol=0)
        assert torch.equal(alone[1], together[index][1])
        assert torch.equal(alone[2], together[index][2])


def test_half_precision_is_scored_in_full_precision():
    [(scores, _, boxes)] = postprocess(LOGITS.bfloat16(), BOXES.bfloat16(), [(100, 200)])
    assert scores.dtype == boxes.dtype == torch.float32
