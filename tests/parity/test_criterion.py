"""The criterion against recorded numbers of the authors' code: pairs, every term, gradients."""

import json

import pytest
import torch
from safetensors.torch import load_file

from richsem.losses.classification import focal_losses
from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig, box_losses
from richsem.losses.matching import logits_of_targets, matching_cost
from richsem.structures import Batch, DenoisingOutput, DetectorOutput, Target

# The variants' names -> what differs from the paper's configuration.
VARIANTS = {
    "V1_plain_focal": {"federated_classes": 0, "soft_weight": 0.0},
    "V2_baseline_fed": {"soft_weight": 0.0},
    "V3_richsem_fed_distill": {},
    "V4_richsem_nofed_distill": {"federated_classes": 0},
    "V5_richsem_fed_per_call": {},
    "V6_richsem_fed_distill_fed_on_kd": {"federated_soft": True},
    "V7_baseline_eval_mode": {"soft_weight": 0.0},
    "V8_richsem_all_images_empty": {},
    "V9_richsem_dynamic_distill_weight": {"entropy_weight": True},
}
# Our terms are sums over the layers; the recorded ones carry the layer in their name.
OFFICIAL = {"class": "ce", "box": "bbox", "giou": "giou", "soft": "distill"}


@pytest.fixture(scope="module")
def recorded(golden):
    meta = json.loads((golden / "D_criterion.json").read_text(encoding="utf-8"))
    return load_file(golden / "D_criterion.safetensors"), meta


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
    targets = [
        Target(
            labels=tensors[f"in/target{i}/labels"],
            boxes=tensors[f"in/target{i}/boxes"],
            size=(1, 1),
            original_size=(1, 1),
            image_id=i,
            soft_labels=tensors[f"in/target{i}/clip_logits"].softmax(dim=-1),
        )
        for i in range(len(meta["config"]["gt"]))
    ]
    return output, tuple(targets), leaves


def empty(target):
    return Target(
        labels=target.labels[:0],
        boxes=target.boxes[:0],
        size=target.size,
        original_size=target.original_size,
        image_id=target.image_id,
    )


class RecordedClasses:
    """Gives the recorded federated classes instead of drawing some, for each output set."""

    def __init__(self, tensors, meta, per_set):
        self.tensors, self.per_set = tensors, per_set
        self.num_classes = meta["config"]["nc"]
        layers, noisy = sets_of(meta)
        self.calls = iter([layers, ["interm"], noisy])

    def __call__(self, labels, num_sets):
        names = next(self.calls)
        assert len(names) == num_sets
        masks = torch.zeros(num_sets, self.num_classes, dtype=torch.bool)
        for mask, name in zip(masks, names, strict=True):
            key = f"in/fed_class_ids_per_call/{name}" if self.per_set else "in/fed_class_ids"
            mask[self.tensors[key]] = True
        return masks


def run(recorded, variant):
    tensors, meta = recorded
    output, targets, leaves = inputs_of(tensors, meta)
    mode = meta["variants"][variant]["mode"]
    if mode != "train":
        output = DetectorOutput(**{**vars(output), "denoising": None})
    if mode == "train_empty":
        targets = tuple(empty(target) for target in targets)
    num_classes = meta["config"]["nc"]
    config = DinoCriterionConfig(**VARIANTS[variant])
    criterion = DinoCriterion(config, num_classes, torch.ones(num_classes))
    federated = meta["variants"][variant]["federated"]
    if federated != "none":
        del criterion.draw_classes
        criterion.draw_classes = RecordedClasses(tensors, meta, federated == "per_call")
    return criterion(output, Batch(targets=targets)), leaves


def official_sum(tensors, meta, variant, name):
    """One of our terms as the sum of the recorded ones."""
    prefix, _, kind = name.rpartition("_")
    stem = f"loss/{variant}/loss_{OFFICIAL[kind]}"
    if prefix == "proposal":
        return tensors[f"{stem}_interm"]
    stem += "_dn" if prefix else ""
    keys = [f"{stem}_{i}" for i in range(meta["config"]["nd"] - 1)] if kind != "soft" else []
    return sum(tensors[key] for key in [stem, *keys])


@pytest.mark.parametrize("variant", VARIANTS)
def test_terms(recorded, variant):
    tensors, meta = recorded
    losses, _ = run(recorded, variant)
    for name, term in losses.terms.items():
        expected = official_sum(tensors, meta, variant, name)
        torch.testing.assert_close(term, expected, rtol=2e-5, atol=1e-6)
    expected = tensors[f"loss/{variant}/total"]
    torch.testing.assert_close(losses.total, expected, rtol=2e-5, atol=1e-6)


def test_all_variants_are_covered(recorded):
    assert set(VARIANTS) == set(recorded[1]["variants"])


@pytest.mark.parametrize("variant", ["V1_plain_focal", "V3_richsem_fed_distill"])
def test_gradients(recorded, variant):
    tensors, _ = recorded
    losses, leaves = run(recorded, variant)
    losses.total.backward()
    checked = 0
    for name, leaf in leaves.items():
        expected = tensors.get(f"grad/{variant}/{name}")
        if expected is None or name.endswith("pred_hs"):
            continue
        torch.testing.assert_close(leaf.grad, expected, atol=1e-5, rtol=1e-4)
        checked += 1
    assert checked >= 14


def test_pairs_and_costs(recorded):
    tensors, meta = recorded
    output, targets, _ = inputs_of(tensors, meta)
    num_classes = meta["config"]["nc"]
    criterion = DinoCriterion(DinoCriterionConfig(), num_classes, torch.ones(num_classes))
    matches = criterion.match(output, targets)
    layers, _ = sets_of(meta)
    offsets = torch.tensor([0, *meta["config"]["gt"]]).cumsum(0)
    for number, name in enumerate([*layers, "interm"]):
        for image in range(len(targets)):
            mine = matches.images == image
            pairs = f"match/{name}/image{image}"
            assert torch.equal(matches.queries[number, mine], tensors[f"{pairs}/src"])
            rows = matches.targets[number, mine] - offsets[image]
            assert torch.equal(rows, tensors[f"{pairs}/tgt"])
    wanted = logits_of_targets(output.logits, targets)
    cost = matching_cost(wanted, output.boxes, targets)[-1]
    for image, target in enumerate(targets):
        if len(target.labels):
            expected = tensors[f"match_cost/last/image{image}"]
            actual = cost[image, :, : len(target.labels)]
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_losses_of_each_layer(recorded):
    tensors, meta = recorded
    output, targets, _ = inputs_of(tensors, meta)
    num_classes = meta["config"]["nc"]
    criterion = DinoCriterion(DinoCriterionConfig(), num_classes, torch.ones(num_classes))
    layers, _ = sets_of(meta)
    matches = criterion.match(output, targets).of(0, len(layers))
    boxes = torch.cat([target.boxes for target in targets])[matches.targets]
    labels = torch.cat([target.labels for target in targets])
    l1, giou = box_losses(matches.pick(output.boxes), boxes)
    actual = {"ce": focal_losses(output.logits, labels, matches), "bbox": l1, "giou": giou}
    endings = [*[f"_{i}" for i in range(len(layers) - 1)], ""]
    for kind, values in actual.items():
        expected = [tensors[f"loss/V1_plain_focal/loss_{kind}{ending}"] for ending in endings]
        expected = torch.stack(expected) * len(labels)
        torch.testing.assert_close(values, expected, rtol=2e-5, atol=1e-6)
