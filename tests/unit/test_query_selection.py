"""Query selection: the best usable tokens, best first."""

import torch
from torch import nn

from richsem.models.dino.layers import build_pyramid
from richsem.models.dino.query_selection import Proposals


class FirstChannels(nn.Module):
    """A classifier whose logits are the first channels."""

    def forward(self, hidden, text, scale):
        return hidden[..., :3]


def pyramid_of(*shapes, padding=None, batch=1):
    maps = [torch.zeros(batch, 8, *shape) for shape in shapes]
    return build_pyramid(maps, padding, torch.zeros(len(maps), 8))


def proposals(queries):
    torch.manual_seed(0)
    module = Proposals(8, queries, FirstChannels())
    nn.init.normal_(module.boxes.layers[-1].weight)
    return module


def test_padding_is_chosen_last_and_without_its_features():
    padding = torch.ones(1, 32, 32, dtype=torch.bool)
    padding[:, :16] = False
    pyramid = pyramid_of((4, 4), padding=padding)
    memory = torch.zeros(1, 16, 8)
    memory[:, 8:] = 1e4 * torch.randn(1, 8, 8)
    selected = proposals(queries=16)(memory, pyramid, None, None)
    unusable = selected.index[0] >= 8
    assert unusable.sum() == 8
    assert selected.box_logits.isinf()[0].all(-1).tolist() == unusable.tolist()
    assert selected.logits[0].unique(dim=0).shape[0] == 1


def test_fewer_tokens_than_queries():
    selected = proposals(queries=50)(torch.randn(1, 6, 8), pyramid_of((2, 3)), None, None)
    assert selected.index.shape == (1, 6)


def test_boxes_learn_at_selected_tokens_only():
    memory = torch.randn(1, 12, 8, requires_grad=True)
    selected = proposals(queries=3)(memory, pyramid_of((3, 4)), None, None)
    selected.box_logits.sum().backward()
    learns = memory.grad[0].abs().sum(-1) > 0
    assert set(learns.nonzero().flatten().tolist()) == set(selected.index[0].tolist())
