"""Neck and encoder: levels, errors, and that padding has no influence."""

import pytest
import torch

from richsem.models.dino.encoder import Encoder, EncoderLayer, Neck
from richsem.models.dino.layers import box_head, build_pyramid
from richsem.models.heads import MLP


def test_the_neck_adds_levels():
    """The first of them reads the backbone, the next ones read it."""
    features = [torch.randn(2, 3, 16, 12), torch.randn(2, 5, 8, 6)]
    neck = Neck([3, 5], 32, 5)
    levels = neck(features)
    sizes = [(16, 12), (8, 6), (4, 3), (2, 2), (1, 1)]
    assert [tuple(level.shape) for level in levels] == [(2, 32, *size) for size in sizes]
    torch.testing.assert_close(levels[2], neck.projections[2](features[1]))
    torch.testing.assert_close(levels[3], neck.projections[3](levels[2]))


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


def test_a_box_head_starts_at_no_change():
    assert not box_head(8)(torch.randn(3, 8)).any()


def test_mlp_has_no_activation_at_the_end():
    mlp = MLP(4, 8, 3)
    assert [layer.weight.shape for layer in mlp.layers] == [(8, 4), (3, 8)]
    assert (mlp(torch.randn(50, 4)) < 0).any()


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
