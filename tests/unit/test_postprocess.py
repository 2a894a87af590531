import torch
from toys import exactly

from richsem.models.postprocess import postprocess

LOGITS = torch.tensor([[[3.0, -1.0], [2.0, 1.0], [-4.0, 0.0]]])  # [1, 3 queries, 2 classes]
BOXES = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0], [0.5, 0.25, 0.2, 0.3]]])


def test_queries_that_look_at_nothing_find_nothing():
    nothing = torch.full((1, 2, 2), -torch.inf)
    logits, boxes = torch.cat([nothing, LOGITS], 1), torch.cat([BOXES[:, :2], BOXES], 1)
    exactly(postprocess(logits, boxes, [(10, 10)]), postprocess(LOGITS, BOXES, [(10, 10)]))


def test_half_precision_is_scored_in_full_precision():
    [(scores, _, boxes)] = postprocess(LOGITS.bfloat16(), BOXES.bfloat16(), [(100, 200)])
    assert scores.dtype == boxes.dtype == torch.float32
