"""What is recorded of a detector is what it computed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_dino import SIDE, target_at, tiny_dino

from richsem.boxes import in_pixels
from richsem.losses import matching
from richsem.models.deformable import sample
from richsem.structures import Batch
from richsem.workbook import anatomy as parts

HEADS, POINTS = 2, 3


@pytest.fixture(scope="module")
def detector():
    return tiny_dino(encoder_layers=2, encoder_points=POINTS)


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(1)
    targets = (target_at([0.3, 0.3, 0.2, 0.4], [0.7, 0.6, 0.3, 0.3]), target_at())
    return Batch(targets=targets, images=torch.rand(2, 3, SIDE, SIDE))


@pytest.fixture(scope="module")
def anatomy(detector, batch):
    return parts.dissect(detector, batch)


def test_the_output_is_that_of_the_detector_which_is_left_as_it_was(detector, batch, anatomy):
    detector.eval()
    with torch.no_grad():
        output, memory = detector(batch), detector.encoder(anatomy.pyramid)
    torch.testing.assert_close(anatomy.memory, memory)
    torch.testing.assert_close(anatomy.output.logits, output.logits)
    torch.testing.assert_close(anatomy.boxes[0], output.proposal_boxes)
    torch.testing.assert_close(anatomy.boxes[1:], output.boxes)
    detector.train()
    anatomy = parts.dissect(detector, batch)
    assert detector.training and anatomy.output.denoising is None
    assert not any(module._forward_hooks for module in detector.modules())


def test_a_look_is_what_the_attention_sampled_for_the_best_tokens(detector, anatomy):
    layer, look = detector.encoder.layers[0].attention, anatomy.encoder[0]
    tokens, shapes = anatomy.pyramid.tokens, anatomy.pyramid.shapes
    assert look.locations.shape == (2, tokens.shape[1], HEADS, 3, POINTS, 2)
    with torch.no_grad():
        values = layer.values(tokens).unflatten(-1, (HEADS, -1))
        mixed = layer.output(sample(values, shapes, look.locations, look.weights))
        queries = tokens + anatomy.pyramid.positions
        expected = layer(queries, look.references, tokens, shapes)
    torch.testing.assert_close(mixed, expected)
    assert len(anatomy.encoder) == len(anatomy.decoder) == 2
    # The best tokens become queries.
    picked = anatomy.token_scores.gather(1, anatomy.selected.index)
    best = anatomy.token_scores.nan_to_num(-1).topk(6, dim=1).values
    torch.testing.assert_close(picked, best)
    torch.testing.assert_close(picked, anatomy.output.proposal_logits.sigmoid().amax(-1))


def test_level_shares_reach_and_inside(anatomy):
    look = anatomy.decoder[-1]
    assert float(look.level_shares().sum()) == pytest.approx(1) and 0 <= look.inside() <= 1
    look = parts.Gaze(
        references=torch.tensor([0.5, 0.5, 0.2, 0.4]).expand(1, 1, 1, 4),
        locations=torch.tensor([[0.5, 0.6], [0.9, 0.5]]).view(1, 1, 1, 1, 2, 2),
        weights=torch.tensor([0.75, 0.25]).view(1, 1, 1, 1, 2),
    )
    assert look.inside() == pytest.approx(0.75)
    assert look.reach((100, 200)) == pytest.approx(0.75 * 10 + 0.25 * 80)


def test_the_first_look_is_a_star_of_equal_weights(detector, anatomy):
    shapes = anatomy.pyramid.shapes
    layer = detector.encoder.layers[0].attention
    before = layer.offsets.weight.clone()
    star = parts.first_look(layer, anatomy.encoder[0], shapes)
    torch.testing.assert_close(star.weights, torch.full_like(star.weights, 1 / (3 * POINTS)))
    cells = torch.tensor([[width, height] for height, width in shapes])[:, None]
    away = (star.locations - star.references[:, :, None, :, None]) * cells
    along = away[0, 5].abs().amax(-1)  # [H, L, P]
    torch.testing.assert_close(along, torch.arange(1.0, POINTS + 1).expand(HEADS, 3, -1))
    assert torch.equal(layer.offsets.weight, before)


def test_tokens_become_maps_again_and_features_colours():
    first, second = parts.per_level(torch.arange(8), [(2, 3), (1, 2)])
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]] and second.tolist() == [[6, 7]]
    torch.manual_seed(0)
    features = torch.randn(5, 4, 6)
    colours = parts.principal_colours(features)
    assert colours.shape == (4, 6, 3) and (colours.min(), colours.max()) == (0, 1)
    np.testing.assert_allclose(parts.principal_colours(3 * features + 1), colours, atol=1e-4)
    assert parts.principal_colours(torch.randn(5, 1, 2)).shape == (1, 2, 3)


def test_each_object_gets_the_query_that_fits_it_best_over_its_own_image():
    target = target_at([0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2])
    boxes = torch.tensor([[[0.71, 0.7, 0.2, 0.2], [0.5, 0.5, 1, 1], [0.2, 0.21, 0.2, 0.2]]])
    found = [parts.answers(given, [target])[0].tolist() for given in (boxes, boxes[:, :1])]
    assert found == [[2, 0], [-1, 0]]
    targets = [target_at([0.5, 0.5, 0.4, 0.4]), target_at(), target_at([0.2, 0.2, 0.2, 0.2])]
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.2]], [[0.2, 0.2, 0.2, 0.2]], [[0.9, 0.9, 0.1, 0.1]]])
    assert parts.best_ious(boxes, targets).tolist() == pytest.approx([0.5, 0])
    assert len(parts.best_ious(boxes[1:2], targets[1:2])) == 0


def test_the_terms_of_the_matching_add_up_to_its_cost(anatomy, batch):
    target, output = batch.targets[0], anatomy.output
    terms = parts.cost_terms(output, target)
    wanted = matching.logits_of_targets(output.logits[-1:, :1], [target])
    whole = matching.matching_cost(wanted, output.boxes[-1:, :1], [target])[0, 0]
    torch.testing.assert_close(sum(terms.values()), whole)
    assert (terms["L1"] >= 0).all() and (terms["GIoU"].abs() <= 2).all()


def test_paths_follow_the_query_that_answers_in_the_end(anatomy, batch):
    paths = parts.box_paths(anatomy, batch.targets)
    stages = [[0, k, stage] for k in (0, 1) for stage in ("proposal", "layer 1", "layer 2")]
    assert paths[["image", "object", "stage"]].to_numpy().tolist() == stages
    last = anatomy.boxes[-1, 0, paths["query"].iloc[-1]]
    one = [replace(batch.targets[0], boxes=batch.targets[0].boxes[1:], labels=torch.zeros(1))]
    expected = parts.best_ious(last[None, None], one)
    assert paths["iou"].iloc[-1] == pytest.approx(float(expected[0]))
    assert paths["iou"].between(0, 1).all()
    nobody = replace(batch.targets[0], boxes=torch.zeros(0, 4), labels=torch.zeros(0))
    empty = parts.box_paths(anatomy, [nobody, nobody])
    assert pd.concat([empty, paths])["iou"].dtype == float


def test_cells_are_found_by_their_place_and_a_part_beside_the_whole(detector, batch, anatomy):
    padded = parts.beside_part(batch, 0.5)
    assert not padded.padding[0].any() and padded.padding[1].float().mean() == 0.5
    assert not padded.images[1][:, padded.padding[1]].any()
    whole, left = padded.targets
    # The other box begins in the right half.
    assert (left.size, len(left.boxes)) == ((SIDE, SIDE // 2), 1)
    expected = in_pixels(whole.boxes[:1], whole.size).clamp(max=torch.tensor([99, 99, 32, 99]))
    torch.testing.assert_close(in_pixels(left.boxes, left.size), expected)
    pyramid = parts.dissect(detector, padded).pyramid
    places = parts.cell_places(pyramid, padded.targets)
    assert [len(own) for own in places[0]] == pyramid.sizes
    assert len(places[1][0]) == pyramid.sizes[0] // 2 and places[1][0][:, 0].max() < SIDE // 2
    (height, width), (_, coarse) = anatomy.pyramid.shapes[:2]
    looked_at = ((0.01, 0), (0.99, 0), (0.99, 1))  # x, and level
    cells = [parts.cell_at(anatomy.pyramid, torch.tensor([x, 0.01]), n) for x, n in looked_at]
    assert cells == [0, width - 1, height * width + coarse - 1]
    places = parts.cell_places(anatomy.pyramid, [target_at(), target_at()])
    assert places[1][0][0].tolist() == pytest.approx([SIDE / width / 2, SIDE / height / 2])
