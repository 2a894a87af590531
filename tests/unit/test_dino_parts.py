"""Parts of DINO: sizes that do not fit, padding, selection of tokens, and denoising queries."""

import pytest
import torch
from tiny_dino import target
from torch import nn

from richsem.models.dino import denoising
from richsem.models.dino.encoder import Neck
from richsem.models.dino.positions import build_pyramid
from richsem.models.dino.query_selection import Proposals, anchor_logits

SHAPES = [(4, 6), (2, 3)]


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


# --- padding -----------------------------------------------------------------------------------


def padding(height, width, valid_height, valid_width):
    mask = torch.ones(1, height, width, dtype=torch.bool)
    mask[:, :valid_height, :valid_width] = False
    return mask


def test_no_padding_is_the_same_as_padding_of_nothing():
    maps, embed = [torch.randn(2, 8, *shape) for shape in SHAPES], torch.randn(2, 8)
    explicit = build_pyramid(maps, torch.zeros(2, 32, 48, dtype=torch.bool), embed)
    implicit = build_pyramid(maps, None, embed)
    assert not explicit.padding.any()
    for name in ("positions", "ratios", "centres"):
        one, other = getattr(explicit, name), getattr(implicit, name)
        torch.testing.assert_close(one, other.expand_as(one))
    for one, other in zip(anchor_logits(explicit), anchor_logits(implicit), strict=True):
        torch.testing.assert_close(one, other.expand_as(one))


# --- query selection ---------------------------------------------------------------------------


def proposals(queries, padding_too=False):
    torch.manual_seed(0)
    module = Proposals(8, queries, lambda hidden, text, scale: hidden[..., :3], padding_too)
    nn.init.normal_(module.boxes.layers[-1].weight)
    return module


@pytest.fixture
def half_padded():
    """A pyramid of 8 tokens of an image and then 8 of padding."""
    return build_pyramid([torch.zeros(1, 8, 4, 4)], padding(32, 32, 16, 32), torch.zeros(1, 8))


@pytest.mark.parametrize("padding_too", [False, True])
def test_padding_is_chosen_last_and_without_its_features(half_padded, padding_too):
    memory = torch.zeros(1, 16, 8)
    memory[:, 8:] = 1e4 * torch.randn(1, 8, 8)
    selected = proposals(16, padding_too)(memory, half_padded, None, None)
    unusable = selected.index[0] >= 8
    assert unusable.sum() == 8
    assert selected.box_logits.isinf()[0].all(-1).tolist() == unusable.tolist()
    if not padding_too:
        assert torch.equal(selected.missing[0], unusable) and unusable[8:].all()
        assert not selected.box_logits[0, 8:].sigmoid().any()  # boxes of no size
    assert selected.logits[0].unique(dim=0).shape[0] == 1
    module = proposals(3, padding_too)
    with torch.no_grad():  # what was zeroed scores best
        module.memory.weight.copy_(-torch.eye(8))
        module.memory.bias.copy_(torch.eye(8)[0])
    memory = torch.eye(8)[0].expand(1, 16, 8) * 5
    index = module(memory, half_padded, None, None).index
    assert ((index >= 8) == padding_too).all()


# --- denoising ---------------------------------------------------------------------------------


def embed(labels):
    """Content [..., 4] that tells the label."""
    return (labels + 1.0)[..., None].expand(*labels.shape, 4)


def test_unknown_labels_have_no_content():
    config = denoising.DenoisingConfig(number=3, label_noise=1.0)
    queries = denoising.build_queries([target(-1, -1), target(2)], config, 5, embed)
    content = queries.content.unflatten(1, (-1, queries.num_slots))
    assert not content[0].any() and not content[1, :, 1].any() and content[1, :, 0].all()
    assert queries.box_logits[0].any(-1).all()


def test_boxes_learn_at_selected_tokens_only():
    memory = torch.randn(1, 12, 8, requires_grad=True)
    pyramid = build_pyramid([torch.zeros(1, 8, 3, 4)], None, torch.zeros(1, 8))
    selected = proposals(queries=3)(memory, pyramid, None, None)
    selected.box_logits.sum().backward()
    learns = memory.grad[0].abs().sum(-1) > 0
    assert set(learns.nonzero().flatten().tolist()) == set(selected.index[0].tolist())
