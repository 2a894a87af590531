"""Three tiny detectors against recorded numbers of the authors' code, from maps to gradients."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from parity import reference
from safetensors.torch import load_file
from torch import nn

from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.models.backbones import BackboneConfig
from richsem.models.dino import dino
from richsem.models.dino.denoising import DenoisingQueries
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.models.published.dino_weights import load_official, translate
from richsem.structures import Batch

TEXT = {"text", "log_scale"}  # not in files of models that compare with no text
LOGITS = {"atol": 1e-4, "rtol": 1e-4}
BOXES = {"atol": 2e-5, "rtol": 0}
STATES = {"atol": 2e-5, "rtol": 0}


def detectors(folder):
    """Recorded models; each has weights, an evaluation and a step of training."""
    return sorted(file.name.removesuffix("_eval.json") for file in folder.glob("C*_eval.json"))


pytestmark = pytest.mark.golden(name=detectors)


@pytest.fixture(scope="module")
def official(golden, name):
    """Recorded weights by their official names."""
    files = golden.glob(f"{name}_weights*.safetensors")
    return {key: tensor for file in files for key, tensor in load_file(file).items()}


class NoBackbone(nn.Module):
    """Stands in for a backbone when feature maps are given."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def finish(self, maps):
        return maps


def recorded_model(official, config, text):
    """The model with recorded weights, and the official name of each of its tensors."""
    fields, state = translate(official, text, config["nheads"])
    assert fields["num_classes"] == config["num_classes"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dino, "Backbone", lambda _: NoBackbone(config["chans"]))
        model = Dino(DinoConfig(backbone=BackboneConfig(), **fields))
    missing, unknown = model.load_state_dict(state, strict=False)
    assert set(missing) <= TEXT
    assert not unknown
    # Renaming hands the tensors themselves on, so that names can be told by identity.
    names = {id(tensor): one for one, tensor in official.items()}
    return model, {ours: names.get(id(tensor)) for ours, tensor in state.items()}


def test_heads_alone_are_no_detector(official, golden, name):
    heads = reference.describe(golden, f"{name}_eval")["config"]["nheads"]
    text = load_file(golden / f"{name}_eval.safetensors").get("in/text_embed")
    with pytest.raises(ValueError, match="the checkpoint has no backbone"):
        load_official(official, text, heads)


def batch_of(tensors, config):
    features = tuple(tensors[f"in/feat{i}"] for i in range(len(config["chans"])))
    padding = tensors["in/image_mask"]
    return Batch(targets=reference.recorded_targets(tensors), padding=padding, features=features)


def seen_inside(model, batch):
    """(output, what the parts of the model returned on the way to it)."""
    seen = SimpleNamespace()
    parts = {
        "maps": model.neck,
        "memory": model.encoder,
        "scores": model.proposals.classifier,
        "selected": model.proposals,
        "decoded": model.decoder,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda _, inputs, out, name=name: setattr(seen, name, out))
    model.encoder.register_forward_pre_hook(lambda _, inputs: setattr(seen, "pyramid", *inputs))
    output = model(batch)
    return output, seen


def check_layers(logits, boxes, tensors, prefix):
    """Predictions of all decoder layers."""
    names = [*(f"{prefix}aux{i}/" for i in range(len(logits) - 1)), prefix]
    for layer, name in enumerate(names):
        torch.testing.assert_close(logits[layer], tensors[f"{name}pred_logits"], **LOGITS)
        torch.testing.assert_close(boxes[layer], tensors[f"{name}pred_boxes"], **BOXES)


def check_seen(seen, tensors):
    """All that is recorded between the maps and the predictions."""
    actual = {
        "mid/memory": (seen.memory, STATES),
        "mid/enc_class_logits_all": (seen.scores, LOGITS),
    }
    for level, maps in enumerate(seen.maps):
        actual[f"mid/srcs{level}"] = (maps, STATES)
    for layer, hidden in enumerate(seen.decoded.hidden):
        actual[f"mid/hs{layer}"] = (hidden, STATES)
    actual[f"mid/ref{layer}"] = (seen.decoded.last_references, BOXES)
    for key, (value, close) in actual.items():
        if key in tensors:
            torch.testing.assert_close(value, tensors[key], **close)


@pytest.fixture(scope="module")
def evaluated(recorded, official, name):
    """(recorded tensors, output, what was seen inside) in evaluation mode."""
    tensors, meta = recorded(f"{name}_eval")
    model, _ = recorded_model(official, meta["config"], tensors.get("in/text_embed"))
    with torch.no_grad():
        output, seen = seen_inside(model.eval(), batch_of(tensors, meta["config"]))
    return tensors, output, seen, model


def test_evaluation(evaluated):
    tensors, output, _, _ = evaluated
    check_layers(output.logits, output.boxes, tensors, "out/")
    torch.testing.assert_close(output.proposal_logits, tensors["out/interm/pred_logits"], **LOGITS)
    torch.testing.assert_close(output.proposal_boxes, tensors["out/interm/pred_boxes"], **BOXES)
    assert output.denoising is None
    assert output.semantic_logits is None


def test_states_on_the_way(evaluated):
    tensors, output, seen, model = evaluated
    codes = seen.pyramid.positions.split(seen.pyramid.sizes, 1)
    masks = seen.pyramid.padding.split(seen.pyramid.sizes, 1)
    for level, embed in enumerate(model.level_embed):
        if f"in/pos{level}" in tensors:
            code = tensors[f"in/pos{level}"].flatten(2).transpose(1, 2)
            torch.testing.assert_close(codes[level] - embed, code, atol=1e-5, rtol=0)
        assert torch.equal(masks[level], tensors[f"in/mask{level}"].flatten(1))
    assert torch.equal(seen.selected.index, tensors["mid/topk_index"])
    best = seen.selected.logits.max(-1).values
    torch.testing.assert_close(best, tensors["mid/topk_score"], **LOGITS)
    torch.testing.assert_close(output.proposal_boxes, tensors["mid/ref0"], **BOXES)
    check_seen(seen, tensors)


def inject_denoising(model, tensors, batch):
    """Recorded labels and boxes instead of drawn ones; the content is the model's own."""
    counts = [len(target.labels) for target in batch.targets]
    num_queries, num_groups = tensors["dn/meta"].tolist()
    labels = reference.in_slots(tensors["dn/noised_labels"], counts, empty=-1).flatten(1)
    content = model.embed_labels(labels.clamp(min=0)) * (labels >= 0)[..., None]
    torch.testing.assert_close(content, tensors["dn/input_query_label"], atol=1e-5, rtol=0)
    slots = num_queries // (2 * num_groups)
    queries = DenoisingQueries(content, tensors["dn/input_query_bbox"], num_groups, slots)
    model.denoising_queries = lambda _: queries


@pytest.fixture(scope="module")
def trained(recorded, official, name):
    """One training step with the recorded random choices, all that is recorded of it."""
    tensors, meta = recorded(f"{name}_train")
    text = recorded(f"{name}_eval")[0].get("in/text_embed")
    model, official_names = recorded_model(official, meta["config"], text)
    batch = batch_of(tensors, meta["config"])
    inject_denoising(model.train(), tensors, batch)
    masks = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[-1]))
    output, seen = seen_inside(model, batch)
    num_classes = meta["config"]["num_classes"]
    config = DinoCriterionConfig(**reference.loss_weights(meta["weight_dict"]))
    criterion = DinoCriterion(config, num_classes, torch.ones(num_classes))
    criterion.draw_classes.forward = partial(recorded_classes, tensors, num_classes)
    losses = criterion(output, batch)
    losses.total.backward()
    return SimpleNamespace(
        tensors=tensors,
        meta=meta,
        model=model,
        official_names=official_names,
        batch=batch,
        output=output,
        seen=seen,
        mask=masks[0],
        losses=losses,
    )


def recorded_classes(tensors, num_classes, labels, num_sets):
    """The federated classes of every output set; None (all) where none are recorded."""
    if "in/fed_class_ids" not in tensors:
        return None
    chosen = torch.zeros(num_sets, num_classes, dtype=torch.bool)
    chosen[:, tensors["in/fed_class_ids"]] = True
    return chosen


def test_predictions_in_training(trained):
    tensors, output, noisy = trained.tensors, trained.output, trained.output.denoising
    assert torch.equal(trained.mask, tensors["dn/attn_mask"])
    check_layers(output.logits, output.boxes, tensors, "out/")
    check_layers(noisy.logits, noisy.boxes, tensors, "dn/out/")
    torch.testing.assert_close(output.proposal_logits, tensors["out/interm/pred_logits"], **LOGITS)
    torch.testing.assert_close(output.proposal_boxes, tensors["out/interm/pred_boxes"], **BOXES)
    check_seen(trained.seen, tensors)
    semantic = tensors.get("out/pred_clip_logits")
    assert (output.semantic_logits is None) == (semantic is None)
    if semantic is not None:
        torch.testing.assert_close(output.semantic_logits, semantic, **LOGITS)
        of_noisy = tensors["dn/out/pred_clip_logits"]
        torch.testing.assert_close(noisy.semantic_logits, of_noisy, **LOGITS)


def test_losses(trained):
    tensors, losses = trained.tensors, trained.losses
    parts = [("", "class box giou soft"), ("proposal_", "class box giou")]
    parts.append(("denoising_", parts[0][1]))
    expected = {f"{prefix}{kind}" for prefix, kinds in parts for kind in kinds.split()}
    if trained.output.semantic_logits is None:
        expected -= {"soft", "denoising_soft"}
    assert losses.terms.keys() == expected
    for name, term in losses.terms.items():
        recorded = reference.recorded_term(tensors, "loss", name, len(trained.output.logits))
        torch.testing.assert_close(term, recorded, rtol=1e-4, atol=0)
    torch.testing.assert_close(losses.total, tensors["loss/total"], rtol=1e-4, atol=0)


def without_aliases(official):
    """Heads that are stored under several names, under the shortest one."""
    for head in ("bbox_embed", "class_embed"):
        official = official.replace(f"transformer.decoder.{head}", head)
    return official


def test_gradients(trained):
    gradients = {
        trained.official_names[name]: parameter.grad
        for name, parameter in trained.model.named_parameters()
    }
    norms = {without_aliases(k): v for k, v in trained.meta["grad_l2_norms"].items()}
    assert gradients.keys() == norms.keys()
    for name, norm in norms.items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-6), name
    for frozen in trained.meta.get("params_without_grad", []):
        assert frozen not in gradients
    checked = 0
    for key, recorded in trained.tensors.items():
        if key.startswith("grad/"):
            actual = gradients[without_aliases(key.removeprefix("grad/"))]
            tolerance = 1e-3 * recorded.abs().max().item()
            torch.testing.assert_close(actual, recorded, atol=tolerance, rtol=0, msg=key)
            checked += 1
    assert checked
