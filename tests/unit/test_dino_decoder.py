"""The decoder: what sees what, and which way gradients go."""

import pytest
import torch

from richsem.models.dino.decoder import Decoder, DecoderLayer
from richsem.models.dino.denoising import attention_mask
from richsem.models.dino.layers import build_pyramid

GROUPS, SLOTS, QUERIES = 2, 3, 4
NOISY = 2 * GROUPS * SLOTS


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    layers = [DecoderLayer(dim=16, heads=2, levels=2, points=2, ffn=24) for _ in range(3)]
    model = Decoder(layers, 16, QUERIES)
    torch.nn.init.normal_(model.boxes.layers[-1].weight, std=0.3)
    return model


@pytest.fixture
def inputs():
    """(content, box logits, memory, pyramid) with room for denoising queries."""
    torch.manual_seed(1)
    pyramid = build_pyramid(
        [torch.randn(2, 16, 4, 6), torch.randn(2, 16, 2, 3)], None, torch.randn(2, 16)
    )
    content, box_logits = torch.randn(2, NOISY + QUERIES, 16), torch.randn(2, NOISY + QUERIES, 4)
    return content, box_logits, torch.randn(2, 30, 16), pyramid


def test_denoising_queries_do_not_change_the_predictions(decoder, inputs):
    content, box_logits, memory, pyramid = inputs
    mask = attention_mask(GROUPS, SLOTS, QUERIES, content.device)
    both = decoder(content, box_logits, memory, pyramid, mask)
    alone = decoder(content[:, NOISY:], box_logits[:, NOISY:], memory, pyramid)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(both.hidden[:, :, NOISY:], alone.hidden, **close)
    torch.testing.assert_close(both.boxes[:, :, NOISY:], alone.boxes, **close)


def test_gradients_look_forward_twice(decoder, inputs):
    """A box teaches its own layer and the one before, not what lies further back."""
    content, box_logits, memory, pyramid = inputs
    for layer in decoder.layers:  # the only other way back is the content
        layer.register_forward_pre_hook(lambda _, given: (given[0].detach(), *given[1:]))
    decoded = decoder(content, box_logits, memory, pyramid)
    taught = []
    for boxes in decoded.boxes:
        decoder.zero_grad()
        boxes.sum().backward(retain_graph=True)
        taught.append([bool(layer.linear1.weight.grad.any()) for layer in decoder.layers])
    assert taught == [[True, False, False], [True, True, False], [False, True, True]]
    assert not decoded.last_references.requires_grad


def test_infinite_box_logits_are_boxes_too(decoder, inputs):
    """Unusable anchors have them; they can be selected when tokens are few."""
    content, box_logits, memory, pyramid = inputs
    box_logits[:, 0] = torch.inf
    decoded = decoder(content, box_logits, memory, pyramid)
    assert decoded.boxes.isfinite().all()
    decoded.boxes.sum().backward()
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)
