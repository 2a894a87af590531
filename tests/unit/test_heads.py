"""Class heads: priors, kinds and precision; and what is found by their logits."""

import torch
from torch.nn import functional as F
from toys import exactly

from richsem.models.heads import PRIOR, LinearClassifier, TextClassifier, postprocess


def test_a_linear_head_and_the_bias_of_a_text_head_start_at_rare_positives():
    head = LinearClassifier(8, 5)
    torch.nn.init.zeros_(head.weight)
    logits = head(torch.randn(3, 8), None, None)
    torch.testing.assert_close(logits.sigmoid(), torch.full((3, 5), PRIOR))
    plain, biased = TextClassifier(8, 6), TextClassifier(8, 6, bias=True)
    biased.projection = plain.projection
    hidden, text = torch.randn(3, 8), torch.randn(5, 6)
    difference = biased(hidden, text, 10.0) - plain(hidden, text, 10.0)
    torch.testing.assert_close(difference.sigmoid(), torch.full((3, 5), PRIOR))
    assert biased.bias.numel() == 1


def test_half_precision_does_not_round_logits():
    head, hidden, text = TextClassifier(8, 6), torch.randn(3, 8), torch.randn(5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(hidden, text, torch.tensor(100.0))
        projected = head.projection(hidden).float()
    assert logits.dtype == torch.float32
    expected = 100 * F.cosine_similarity(projected[:, None], text, dim=-1)
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-4)


LOGITS = torch.tensor([[[3.0, -1.0], [2.0, 1.0], [-4.0, 0.0]]])  # [1, 3 queries, 2 classes]
BOXES = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0], [0.5, 0.25, 0.2, 0.3]]])


def test_queries_that_look_at_nothing_find_nothing_and_half_precision_is_scored_in_full():
    nothing = torch.full((1, 2, 2), -torch.inf)
    logits, boxes = torch.cat([nothing, LOGITS], 1), torch.cat([BOXES[:, :2], BOXES], 1)
    exactly(postprocess(logits, boxes, [(10, 10)]), postprocess(LOGITS, BOXES, [(10, 10)]))
    [(scores, _, boxes)] = postprocess(LOGITS.bfloat16(), BOXES.bfloat16(), [(100, 200)])
    assert scores.dtype == boxes.dtype == torch.float32
