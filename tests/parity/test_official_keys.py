"""Published checkpoints: every tensor of 14 models has a place, and tiny ones compute the same."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from richsem.models.backbones import BackboneConfig
from richsem.models.dino import dino
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.models.published.dino_weights import load_official, translate
from richsem.structures import Batch

MODELS = [
    "baseline_r50_4scale_lvis",
    "richsem_r50_4scale_lvis",
    "richsem_r50_21k_4scale_lvis",
    "dino_r50_4scale_coco",
    "dino_r50_5scale_coco",
    "dino_swinT_4scale_coco",
    "dino_convnextXL_4scale_coco",
    "baseline_focalL_fl4_4scale_lvis",
    *(
        pytest.param(name, marks=pytest.mark.slow)  # larger relatives of these
        for name in (
            "baseline_swinT_4scale_lvis",
            "baseline_swinB_4scale_lvis",
            "baseline_swinL_4scale_lvis",
            "baseline_focalL_fl3_4scale_lvis",
            "baseline_focalH_fl4_4scale_lvis",
            "dino_swinL_4scale_coco",
        )
    ),
]
TINY = {
    "C1_baseline": ["C1_baseline_weights"],
    "C2_richsem": ["C2_richsem_weights"],
    "C3_dino": ["C3_dino_weights_rest", "C3_dino_weights_decoder"],
}
TEXT = {"text", "log_scale"}


@pytest.fixture(scope="module")
def models(golden):
    return json.loads((golden / "keys.json").read_text(encoding="utf-8"))["models"]


def zeros(*shape):
    """A tensor of any size without memory for it."""
    return torch.zeros(()).expand(shape)


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_all_published_models_are_checked(models):
    assert {getattr(m, "values", [m])[0] for m in MODELS} == models.keys()


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_has_a_place(models, name):
    official = {key: zeros(*entry["shape"]) for key, entry in models[name]["keys"].items()}
    text = zeros(1204, 1024) if "lvis" in name else None
    fields, state = translate(official, text)
    with torch.device("meta"):
        model = Dino(DinoConfig(**fields))
    expected = shapes(model.state_dict())
    if text is None:  # no head compares with text
        expected = {key: shape for key, shape in expected.items() if key not in TEXT}
    assert shapes(state) == expected


@pytest.mark.parametrize("name", ["richsem_r50_4scale_lvis", "dino_r50_5scale_coco"])
def test_the_configuration_is_read_off_the_file(models, name):
    official = {key: zeros(*entry["shape"]) for key, entry in models[name]["keys"].items()}
    fields, _ = translate(official, zeros(1204, 1024) if "lvis" in name else None)
    published = DinoConfig(
        backbone=BackboneConfig(name="resnet50.tv_in1k"), num_classes=1204, scale=1.0
    )
    if name.startswith("richsem"):
        assert DinoConfig(**fields) == published
    else:
        assert fields["backbone"].strides == (4, 8, 16, 32)
        assert fields["levels"] == 5
        assert fields["num_classes"] == 91
        assert fields["label_embedding"] == "table"


class NoBackbone(nn.Module):
    """Stands in for a backbone when features are given."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels


@pytest.fixture(params=TINY)
def tiny(request, golden):
    """Weights of a tiny official model, its recorded evaluation, and its configuration."""
    files = [golden / f"{name}.safetensors" for name in TINY[request.param]]
    weights = {k: t for file in files for k, t in load_file(file).items()}
    recorded = load_file(golden / f"{request.param}_eval.safetensors")
    text = json.loads(files[0].with_suffix(".json").read_text(encoding="utf-8"))
    return weights, recorded, text["config"]


def test_translated_weights_compute_the_recorded_predictions(tiny, monkeypatch):
    weights, recorded, config = tiny
    fields, state = translate(weights, recorded.get("in/text_embed"))
    assert fields["num_classes"] == config["num_classes"]
    stand_in = NoBackbone(config["chans"])
    monkeypatch.setattr(dino, "Backbone", lambda config: stand_in)
    model = Dino(DinoConfig(backbone=BackboneConfig(), **fields)).eval()
    missing, unknown = model.load_state_dict(state, strict=False)
    assert set(missing) <= TEXT
    assert not unknown
    features = tuple(recorded[f"in/feat{i}"] for i in range(len(config["chans"])))
    with torch.no_grad():
        batch = Batch(targets=(), features=features, padding=recorded["in/image_mask"])
        output = model(batch)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(output.logits[-1], recorded["out/pred_logits"], **close)
    torch.testing.assert_close(output.boxes[-1], recorded["out/pred_boxes"], atol=2e-5, rtol=0)
    interm = recorded["out/interm/pred_logits"]
    torch.testing.assert_close(output.proposal_logits, interm, **close)


def test_heads_alone_are_no_detector(tiny):
    weights, recorded, _ = tiny
    with pytest.raises(ValueError, match="the checkpoint has no backbone"):
        load_official(weights, recorded.get("in/text_embed"))
