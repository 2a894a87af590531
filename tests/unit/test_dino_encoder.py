"""Neck and encoder: levels, errors, and that padding has no influence."""

import pytest
import torch

from richsem.models.dino.encoder import Encoder, EncoderLayer, Neck
from richsem.models.dino.layers import build_pyramid


@pytest.mark.parametrize(
    ("channels", "dim", "levels", "words"),
    [
        ([3, 4, 5], 16, 2, "3 backbone maps do not fit into levels=2"),
        ([3], 44, 1, "dim 44 is not a multiple of 8"),
        ([3], 6, 1, "dim 6 is not a multiple of 8"),
    ],
)
def test_sizes_that_do_not_fit(channels, dim, levels, words):
    with pytest.raises(ValueError, match=words):
        Neck(channels, dim, levels)


def encoder(layers=2):
    torch.manual_seed(0)
    built = [EncoderLayer(dim=16, heads=2, levels=2, points=2, ffn=24) for _ in range(layers)]
    for layer in built:  # points that depend on the token, in every direction
        torch.nn.init.normal_(layer.attention.offsets.weight, std=0.3)
        torch.nn.init.normal_(layer.attention.weights.weight, std=0.3)
    return Encoder(built)


def test_padding_has_no_influence():
    """Memory of an image is the same alone and, padded, in a larger batch."""
    torch.manual_seed(1)
    maps, embed = [torch.randn(1, 16, 4, 6), torch.randn(1, 16, 2, 3)], torch.randn(2, 16)
    larger = [torch.randn(1, 16, 6, 10), torch.randn(1, 16, 3, 5)]
    for small, large in zip(maps, larger, strict=True):
        large[..., : small.shape[2], : small.shape[3]] = small
    padding = torch.ones(1, 48, 80, dtype=torch.bool)
    padding[:, :32, :48] = False
    model = encoder()
    alone = model(build_pyramid(maps, None, embed))
    pyramid = build_pyramid(larger, padding, embed)
    within = model(pyramid)[~pyramid.padding]
    torch.testing.assert_close(within, alone[0], atol=1e-5, rtol=1e-5)


def test_no_layers():
    pyramid = build_pyramid([torch.randn(1, 16, 2, 3)], None, torch.randn(1, 16))
    assert torch.equal(Encoder([])(pyramid), pyramid.tokens)
