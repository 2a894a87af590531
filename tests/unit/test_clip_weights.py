"""CLIP's weights from files: OpenAI's archive is taken, and no activation is mistaken silently."""

import hashlib
import logging
import warnings

import open_clip
import pytest
import torch
from torch import nn

from richsem.models import clip_weights
from richsem.models.clip import ClipConfig, FrozenClip
from richsem.models.clip_weights import text_length
from richsem.models.published import dino_weights
from richsem.models.published.dino_weights import held_clip

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64},
    "text_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 1},
}
QUICK, PLAIN = "RN9-quickgelu", "RN9"


@pytest.fixture(autouse=True)
def architectures(monkeypatch):
    """A small one with either activation, as open_clip lists its own."""
    known = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(known, PLAIN, SMALL)
    monkeypatch.setitem(known, QUICK, {**SMALL, "quick_gelu": True})


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return open_clip.CLIP(**SMALL, quick_gelu=True).eval()


def opened(name, file):
    return FrozenClip(ClipConfig(model=name, weights=str(file))).model


def is_it(found, model):
    return all(torch.equal(found.state_dict()[n], t) for n, t in model.state_dict().items())


class Archive(nn.Module):
    """OpenAI's archive: half precision, and sizes beside the weights."""

    def __init__(self, model):
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.register_buffer("attn_mask", model.attn_mask)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(64))

    def forward(self, x):
        return self.visual(x)


@pytest.fixture(scope="module")
def archive(model, tmp_path_factory):
    file = tmp_path_factory.mktemp("openai") / "downloaded.pt"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(Archive(model), torch.rand(1, 3, 64, 64)).save(str(file))
    return file


def test_the_archive_of_openai_and_a_clip_in_a_published_detector_are_taken(
    archive, model, monkeypatch
):
    assert is_it(opened(QUICK, archive), model)  # and without a warning
    with pytest.raises(ValueError, match=r"'RN9' uses GELU but .*QuickGELU; use 'RN9-quickgelu'"):
        opened(PLAIN, archive)
    monkeypatch.setattr(dino_weights, "RN50", ClipConfig(model=QUICK, weights="openai"))
    place = "transformer.enc_out_class_embed.clip."
    state = {f"{place}{name}": tensor for name, tensor in model.state_dict().items()}
    assert is_it(held_clip({"label_enc.weight": torch.zeros(1), **state}).model, model)


@pytest.mark.parametrize("name", [QUICK, PLAIN])
def test_where_nothing_tells_a_warning_names_the_activation(name, model, tmp_path):
    file = tmp_path / "epoch_32.pt"
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    state["module.logit_scale"] = model.logit_scale[None]  # as one-element list, in some files
    torch.save({"epoch": 32, "state_dict": state}, file)
    own, other = ("QuickGELU", PLAIN) if name == QUICK else ("GELU", QUICK)
    with pytest.warns(UserWarning, match=rf"epoch_32\.pt: nothing.*takes {own}\. .*use '{other}'"):
        assert is_it(opened(name, file), model)
    file = file.rename(tmp_path / "rn9-quickgelu.pt")
    if name == QUICK:
        assert is_it(opened(name, file), model)
    else:
        with pytest.raises(ValueError, match="use 'RN9-quickgelu'"):
            opened(name, file)


def test_a_known_check_sum_tells(model, tmp_path, monkeypatch):
    file = tmp_path / "a.pt"
    torch.save(model.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    listed = {"url": f"https://host/v0.2-weights/rn9-cc12m-{digest[:8]}.pt", "quick_gelu": True}
    tags = open_clip.pretrained._PRETRAINED
    monkeypatch.setitem(tags, PLAIN, {"cc12m": listed})
    assert is_it(opened(QUICK, file), model)
    with pytest.raises(ValueError, match="use 'RN9-quickgelu'"):
        opened(PLAIN, file)
    monkeypatch.setitem(tags, PLAIN, {"cc12m": {**listed, "quick_gelu": False}})
    with pytest.raises(ValueError, match=r"'RN9-quickgelu' uses QuickGELU .* with GELU; use 'RN9'"):
        opened(QUICK, file)


def test_other_weights_and_tags_are_refused(model, archive, tmp_path, caplog):
    file = tmp_path / "openai.pt"
    torch.save({"visual.conv1.weight": torch.zeros(1), "x": torch.zeros(1)}, file)
    words = r"openai\.pt holds no weights of 'RN9-quickgelu' \(.* is missing;.*\d+ more\)$"
    with pytest.raises(ValueError, match=words):
        opened(QUICK, file)
    file.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"openai\.pt is damaged or not complete"):
        opened(QUICK, file)
    with pytest.raises(ValueError, match="is a folder"):
        opened(QUICK, tmp_path)
    with pytest.raises(FileNotFoundError, match="a tag: openai, yfcc15m"):
        clip_weights.create("RN50", "nothing", tmp_path / "nothing")
    assert caplog.records == [] and not logging.root.manager.disable  # open_clip's own words


def test_the_length_of_texts_is_known_beforehand(untrained):
    assert text_length("richsem-mini") == untrained.dim
    assert (text_length("RN50"), text_length(PLAIN), text_length("hf-hub:a/b")) == (1024, 32, None)
