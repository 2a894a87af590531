"""Neck and encoder: levels, errors, and that padding has no influence."""

import pytest
import torch

from richsem.models.dino.encoder import Encoder, EncoderLayer, Neck
from richsem.models.dino.layers import box_head, build_pyramid
from richsem.models.heads import MLP


def test_the_neck_adds_levels():
    features = [torch.randn(2, 3, 16, 12), torch.randn(2, 5, 8, 6)]
    levels = Neck([3, 5], 32, 5)(features)
    assert [tuple(level.shape) for level in levels] == [
        (2, 32, 16, 12),
        (2, 32, 8, 6),
        (2, 32, 4, 3),
        (2, 32, 2, 2),
        (2, 32, 1, 1),
    ]


def test_the_first_added_level_reads_the_backbone_and_the_next_reads_it():
    features = [torch.randn(1, 3, 8, 8)]
    neck = Neck([3], 16, 3)
    levels = neck(features)
    torch.testing.assert_close(levels[1], neck.projections[1](features[0]))
    torch.testing.assert_close(levels[2], neck.projections[2](levels[1]))


def test_too_many_maps_for_the_levels():
    with pytest.raises(ValueError, match="3 backbone maps do not fit into levels=2"):
        Neck([3, 4, 5], 16, 2)


@pytest.mark.parametrize("dim", [44, 6])
def test_a_width_that_cannot_be_normalised(dim):
    with pytest.raises(ValueError, match=f"dim {dim} is not a multiple of 8"):
        Neck([3], dim, 1)


def test_a_box_head_starts_at_no_change():
    assert not box_head(8)(torch.randn(3, 8)).any()


def test_mlp_has_no_activation_at_the_end():
    mlp = MLP(4, 8, 3)
    assert [layer.weight.shape for layer in mlp.layers] == [(8, 4), (3, 8)]
    assert (mlp(torch.randn(50, 4)) < 0).any()


def encoder(layers=2, checkpointing=False):
    torch.manual_seed(0)
    built = [EncoderLayer(dim=16, heads=2, levels=2, points=2, ffn=24) for _ in range(layers)]
    for layer in built:  # points that depend on the token, in every direction
        torch.nn.init.normal_(layer.attention.offsets.weight, std=0.3)
        torch.nn.init.normal_(layer.attention.weights.weight, std=0.3)
    return Encoder(built, checkpointing)


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


def test_recomputing_layers_changes_nothing():
    torch.manual_seed(1)
    maps, embed = [torch.randn(1, 16, 4, 6), torch.randn(1, 16, 2, 3)], torch.randn(2, 16)
    gradients = []
    for checkpointing in (False, True):
        model = encoder(checkpointing=checkpointing).train()
        model(build_pyramid(maps, None, embed)).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_no_layers():
    pyramid = build_pyramid([torch.randn(1, 16, 2, 3)], None, torch.randn(1, 16))
    assert torch.equal(Encoder([])(pyramid), pyramid.tokens)
