"""The criterion against recorded numbers of the authors' code: pairs, every term, gradients."""

from dataclasses import replace

import pytest
import torch
from parity import reference

from richsem.losses import matching
from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.losses.matching import logits_of_targets, matching_cost
from richsem.structures import Batch, DenoisingOutput, DetectorOutput

pytestmark = pytest.mark.golden("D_criterion")


def variants(folder):
    return reference.describe(folder, "D_criterion")["variants"]


def variants_with_gradients(folder):
    names = reference.tensor_names(folder, "D_criterion")
    return sorted({name.split("/")[1] for name in names if name.startswith("grad/")})


@pytest.fixture(scope="module")
def data(recorded):
    return recorded("D_criterion")


def criterion_of(meta, variant):
    """The criterion in the configuration of a recorded variant."""
    recorded, setting = meta["config"], meta["variants"][variant]
    costs, focal = recorded["match_cost"], (recorded["focal_alpha"], recorded["focal_gamma"])
    assert focal == (matching.ALPHA, matching.GAMMA), "these are no options of ours"
    ours = {"cls": matching.CLASS_COST, "bbox": matching.BOX_COST, "giou": matching.GIOU_COST}
    assert costs == ours
    options = dict(setting["overrides"])
    options.pop("use_fed_loss", None)  # "federated" tells the same
    config = DinoCriterionConfig(
        **reference.loss_weights(meta["weight_dicts"][variant]),
        federated_classes=0 if setting["federated"] == "none" else recorded["fed"],
        entropy_weight=options.pop("use_dynamic_distill_weight", False),
        federated_soft=options.pop("use_fed_on_kd", False),
    )
    assert not options, "the variant has options that nobody knows"
    return DinoCriterion(config, recorded["nc"], torch.ones(recorded["nc"]))


def sets_of(meta):
    """Names of the output sets in our order: layers, and the same for denoising queries."""
    earlier = range(meta["config"]["nd"] - 1)
    return [*[f"aux{i}" for i in earlier], "last"], [*[f"dn_aux{i}" for i in earlier], "dn"]


def inputs_of(tensors, meta):
    """(output, targets, leaves): leaves are the recorded inputs, ready to receive gradients."""
    leaves = {
        name.removeprefix("in/"): tensor.clone().requires_grad_()
        for name, tensor in tensors.items()
        if name.startswith("in/") and "/pred_" in name
    }
    layers, noisy = sets_of(meta)

    def stacked(names, kind):
        return torch.stack([leaves[f"{name}/{kind}"] for name in names])

    slots, groups = tensors["in/dn_meta"].tolist()
    denoising = DenoisingOutput(
        logits=stacked(noisy, "pred_logits"),
        boxes=stacked(noisy, "pred_boxes"),
        semantic_logits=leaves["dn/pred_clip_logits"],
        num_groups=groups,
        num_slots=slots // (2 * groups),
    )
    output = DetectorOutput(
        logits=stacked(layers, "pred_logits"),
        boxes=stacked(layers, "pred_boxes"),
        proposal_logits=leaves["interm/pred_logits"],
        proposal_boxes=leaves["interm/pred_boxes"],
        semantic_logits=leaves["last/pred_clip_logits"],
        denoising=denoising,
    )
    return output, reference.recorded_targets(tensors), leaves


def recorded_classes(tensors, meta, per_set):
    """Gives the recorded federated classes instead of drawing some, for each output set."""
    chosen, (layers, noisy) = [], sets_of(meta)
    for names in (layers, ["interm"], noisy):
        chosen.append(torch.zeros(len(names), meta["config"]["nc"], dtype=torch.bool))
        for mask, name in zip(chosen[-1], names, strict=True):
            key = f"in/fed_class_ids_per_call/{name}" if per_set else "in/fed_class_ids"
            mask[tensors[key]] = True
    return lambda labels, num_sets: chosen.pop(0)


def run(data, variant):
    tensors, meta = data
    output, targets, leaves = inputs_of(tensors, meta)
    setting = meta["variants"][variant]
    if setting["mode"] != "train":
        output = replace(output, denoising=None)
    if setting["mode"] == "train_empty":
        none = {"soft_labels": None}
        targets = [replace(t, labels=t.labels[:0], boxes=t.boxes[:0], **none) for t in targets]
    criterion = criterion_of(meta, variant)
    if setting["federated"] != "none":
        per_set = setting["federated"] == "per_call"
        criterion.draw_classes.forward = recorded_classes(tensors, meta, per_set)
    return criterion(output, Batch(targets=tuple(targets))), leaves


@pytest.mark.golden(variant=variants)
def test_terms(data, variant):
    tensors, meta = data
    losses, _ = run(data, variant)
    for name, term in losses.terms.items():
        expected = reference.recorded_term(tensors, f"loss/{variant}", name, meta["config"]["nd"])
        torch.testing.assert_close(term, expected, rtol=2e-5, atol=1e-6)
    expected = tensors[f"loss/{variant}/total"]
    torch.testing.assert_close(losses.total, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.golden(variant=variants_with_gradients)
def test_gradients(data, variant):
    losses, leaves = run(data, variant)
    losses.total.backward()
    start = f"grad/{variant}/"
    recorded = {k.removeprefix(start): t for k, t in data[0].items() if k.startswith(start)}
    for name, expected in recorded.items():
        if not name.endswith("pred_hs"):  # the loss reads no states, but logits made of them
            torch.testing.assert_close(leaves[name].grad, expected, atol=1e-5, rtol=1e-4)


def test_pairs_and_costs(data):
    tensors, meta = data
    output, targets, _ = inputs_of(tensors, meta)
    criterion = criterion_of(meta, next(iter(meta["variants"])))
    matches = criterion.match(output, targets)
    starts = torch.tensor([0, *meta["config"]["gt"]]).cumsum(0)
    for image, start in enumerate(starts[:-1]):
        own = matches.images == image
        for number, one in enumerate([*sets_of(meta)[0], "interm"]):
            pairs = f"match/{one}/image{image}"
            assert torch.equal(matches.queries[number, own], tensors[f"{pairs}/src"])
            assert torch.equal(matches.targets[number, own] - start, tensors[f"{pairs}/tgt"])
    wanted = logits_of_targets(output.logits, targets)
    cost = matching_cost(wanted, output.boxes, targets)[-1]
    for image, target in enumerate(targets):
        if len(target.labels):
            expected = tensors[f"match_cost/last/image{image}"]
            actual = cost[image, :, : len(target.labels)]
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
