"""Class heads: priors, kinds and precision."""

import torch
from torch.nn import functional as F

from richsem.models.heads import PRIOR, LinearClassifier, TextClassifier

SCALE = torch.tensor(10.0)


def test_a_linear_head_starts_at_rare_positives():
    head = LinearClassifier(8, 5)
    torch.nn.init.zeros_(head.weight)
    logits = head(torch.randn(3, 8), None, None)
    torch.testing.assert_close(logits.sigmoid(), torch.full((3, 5), PRIOR))


def test_a_text_head_may_have_a_bias():
    plain, biased = TextClassifier(8, 6), TextClassifier(8, 6, bias=True)
    biased.projection = plain.projection
    hidden, text = torch.randn(3, 8), torch.randn(5, 6)
    difference = biased(hidden, text, SCALE) - plain(hidden, text, SCALE)
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
