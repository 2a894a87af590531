"""Deformable attention: both ways of sampling agree everywhere."""

import pytest
import torch

from richsem.models import deformable
from richsem.models.deformable import DeformableAttention, sample, sample_gathered, sample_textbook

SHAPES = [(5, 7), (3, 2), (1, 1)]
WAYS = [sample_textbook, sample_gathered]


def arguments(low=-0.3, high=1.3, *, queries=6, shapes=SHAPES, dtype=torch.float32, heads=2):
    """(values, locations, weights) with points in a range, all wanting gradients."""
    torch.manual_seed(0)
    tokens = sum(height * width for height, width in shapes)
    spread = (2, queries, heads, len(shapes), 4)
    values = torch.randn(2, tokens, heads, 3, dtype=dtype)
    locations = low + (high - low) * torch.rand(*spread, 2, dtype=dtype)
    weights = torch.rand(spread, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (values, locations, weights)]


def outcome(way, given, shapes=SHAPES):
    """The samples, and the gradients of those inputs that want them."""
    output = way(given[0], shapes, *given[1:])
    output.square().sum().backward()
    return [output, *(tensor.grad for tensor in given if tensor.requires_grad)]


SPREADS = [(0.0, 1.0), (-0.3, 1.3), (-40.0, 40.0), (5.0, 6.0)]
TINY = [[(1, 1)], [(1, 1), (1, 1)], [(1, 6), (6, 1)]]


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
@pytest.mark.parametrize(
    "options",
    [
        *({"low": low, "high": high} for low, high in SPREADS),
        *({"shapes": shapes} for shapes in TINY),
        {"queries": 0},
    ],
)
def test_both_ways_agree(options, frozen):
    """Wherever points lie, on tiny maps, without queries, if an input needs no gradient."""
    found = []
    for way in WAYS:
        given = arguments(**options, dtype=torch.float64)
        if frozen is not None:
            given[frozen].requires_grad_(False)
        found.append(outcome(way, given, options.get("shapes", SHAPES)))
    torch.testing.assert_close(*found, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_far_points_have_no_influence(way):
    values, locations, weights = arguments(1e4, 1e9)
    output = way(values, SHAPES, locations, weights)
    assert not output.any()
    output.sum().backward()
    assert not any(tensor.grad.any() for tensor in (values, locations, weights))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_a_point_that_is_not_a_number_shows(way, heads):
    """A model that diverged must not look well, and must not crash either."""
    values, locations, weights = (tensor.detach() for tensor in arguments(heads=heads))
    locations[0, 1] = torch.nan
    output = way(values, SHAPES, locations, weights)
    if way is sample_gathered:
        assert output[0, 1].isnan().all()
    assert output[:, [0, 2, 3, 4, 5]].isfinite().all()


def test_half_precision_values_are_sampled_at_exact_points():
    """Under mixed precision a point rounded to 8 bits would miss its cell on a large map."""
    shapes = [(4, 200)]
    values, locations, weights = (t.detach() for t in arguments(shapes=shapes))
    values = values.bfloat16()
    expected = sample_textbook(values.double(), shapes, locations.double(), weights.double())
    actual = sample(values, shapes, locations, weights)
    torch.testing.assert_close(actual.double(), expected, atol=1e-4, rtol=1e-4)


def test_sizes_must_fit_and_devices_without_the_fast_way_take_the_textbook(monkeypatch):
    with pytest.raises(ValueError, match="10 is not a multiple of heads 4"):
        DeformableAttention(10, 4, 2, 2)
    monkeypatch.setattr(deformable, "sample_textbook", lambda *given: "textbook")
    values, locations, weights = (tensor.detach().to("meta") for tensor in arguments())
    assert sample(values, SHAPES, locations, weights) == "textbook"


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return DeformableAttention(dim=8, heads=2, levels=3, points=2)


@pytest.mark.parametrize("size", [2, 4])
def test_a_reference_for_all_levels(attention, size):
    queries, references = torch.randn(2, 5, 8), torch.rand(2, 5, 1, size)
    tokens = torch.randn(2, 42, 8)
    one = attention(queries, references, tokens, SHAPES)
    each = attention(queries, references.expand(-1, -1, 3, -1), tokens, SHAPES)
    torch.testing.assert_close(one, each)


def test_fresh_points_lie_on_rays(attention):
    """METHOD 2.6: heads look in different directions, 1..P cells away, whatever the query."""
    centre = torch.full((1, 1, 1, 2), 0.5)
    locations, weights = attention.points_of(torch.randn(1, 1, 8), centre, SHAPES)
    assert torch.allclose(weights, torch.tensor(1 / 6))
    cells = (locations - 0.5)[0, 0] * torch.tensor([[w, h] for h, w in SHAPES])[:, None]
    for head, direction in enumerate([1.0, -1.0]):
        expected = torch.tensor([[direction, 0.0], [2 * direction, 0.0]]).expand(3, 2, 2)
        torch.testing.assert_close(cells[head], expected, atol=1e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_the_accelerator_agrees():
    on_cpu = outcome(sample, arguments())
    on_cuda = outcome(sample, [t.detach().cuda().requires_grad_() for t in arguments()])
    torch.testing.assert_close([one.cpu() for one in on_cuda], on_cpu, atol=1e-3, rtol=1e-3)
