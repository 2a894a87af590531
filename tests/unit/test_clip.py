"""The frozen teacher: its inputs, its regions in both modes, its text features and soft labels."""

import copy
import json
from unittest.mock import Mock

import open_clip
import pytest
import torch
from safetensors.torch import save, save_file
from torch.nn import functional as F
from torchvision.ops import roi_align

from richsem.models import clip as clip_module
from richsem.models.clip import (
    RN50,
    ClipConfig,
    FrozenClip,
    reading_modes,
    say_what_it_knows,
    soft_labels,
)
from richsem.workbook.zero_shot import rank_of_label

TINY = ClipConfig(model="tiny", weights="random", short_side=128)
BOXES = torch.tensor([[2.0, 3.0, 40.0, 50.0], [10.0, 10.0, 60.0, 30.0], [0.0, 0.0, 96.0, 64.0]])


@pytest.fixture(scope="module")
def resnet():
    """A ResNet CLIP with one block per stage, of 64 pixel crops: pooled regions are 2 x 2."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"layers": [1, 1, 1, 1], "width": 16, "image_size": 64},
        text_cfg={"context_length": 16, "width": 32, "heads": 2, "layers": 1},
        quick_gelu=True,
    )
    for name, parameter in model.visual.named_parameters():
        if name.endswith("bn3.weight"):
            torch.nn.init.ones_(parameter)  # zero at the start: the block would add nothing
    with torch.no_grad():
        for _ in range(10):  # its batch norms get to know how large things are
            model.visual(torch.randn(8, 3, 64, 64))
    return FrozenClip(TINY, model)


@pytest.fixture(params=["resnet", "untrained"])
def teacher(request):
    return request.getfixturevalue(request.param)


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear")[0]
    return (255 * smooth).to(torch.uint8)


# --- inputs ------------------------------------------------------------------------------------


def test_pictures_are_bytes_or_fractions_and_nothing_is_trained(teacher):
    image = picture(20, 30)
    torch.testing.assert_close(teacher.normalise(image), teacher.normalise(image.float() / 255))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not torch.nn.Sequential(teacher).train()[0].model.visual.training
    assert not teacher.regions(picture(64, 64), BOXES[:1], "roi").requires_grad
    assert teacher.scale == pytest.approx(float(teacher.model.logit_scale.exp()))


def test_a_panorama_is_shrunk_below_the_short_side(resnet):
    assert (RN50.short_side, RN50.long_side) == (800, 1333)
    image = picture(40, 600)
    config = ClipConfig(model="tiny", short_side=128, long_side=640)
    trunk_map, scale = FrozenClip(config, resnet.model).trunk_map(image)
    assert trunk_map.shape[-2:] == (2, 20)  # 43 x 640, padded to a multiple of 32
    assert scale == pytest.approx(640 / 600 / 32)


# --- soft labels -------------------------------------------------------------------------------


def test_rank_counts_the_classes_in_front():
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.7, 0.1]])
    assert rank_of_label(probabilities, torch.tensor([0, 1, 2])).tolist() == [0, 1, 2]
    ties = torch.tensor([[0.25] * 4, [0.4, 0.4, 0.2, 0.0]])  # count against the true class
    assert rank_of_label(ties, torch.tensor([0, 1])).tolist() == [3, 1]


# --- regions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["roi", "crop"])
def test_a_region_is_a_unit_vector_that_does_not_depend_on_other_boxes(teacher, mode, monkeypatch):
    image = picture(64, 96)
    together = teacher.regions(image, BOXES, mode)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    assert teacher.regions(image, BOXES[:0], mode).shape == (0, teacher.dim)
    alone = torch.cat([teacher.regions(image, box[None], mode) for box in BOXES])
    # More boxes than are encoded at once, two and one at a time.
    monkeypatch.setattr(clip_module, "_REGIONS", 2)
    monkeypatch.setattr(clip_module, "_PIXELS", 2)
    for found in (alone, teacher.regions(image, BOXES, mode)):
        torch.testing.assert_close(found, together, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 96), (128, 128), (150, 101)])
def test_roi_equals_roialign_on_the_towers_own_map(resnet, size):
    image = picture(*size)
    boxes = torch.tensor([[1.0, 2.0, 30.0, 44.0], [20.0, 20.0, 64.0, 64.0]])
    ratio = 128 / min(size)
    height, width = (round(side * ratio) for side in size)
    known = {"size": (height, width), "mode": "bilinear", "antialias": True}
    resized = F.interpolate(resnet.normalise(image)[None], **known)
    padded = torch.zeros(1, 3, -(-height // 32) * 32, -(-width // 32) * 32)
    padded[:, :, :height, :width] = resized
    tower = resnet.model.visual
    seen = tower.forward_intermediates(padded, indices=1, intermediates_only=True)
    maps = seen["image_intermediates"][0]
    cuts = roi_align(maps, [boxes], 2, spatial_scale=ratio / 32, aligned=True)
    expected = F.normalize(tower.attnpool(cuts), dim=-1)
    torch.testing.assert_close(resnet.regions(image, boxes, "roi"), expected, atol=1e-5, rtol=1e-4)


# --- text --------------------------------------------------------------------------------------


@torch.no_grad()
def test_texts_are_cut_to_the_longest_one(teacher, monkeypatch):
    """Nothing but the time changes, and a tower that is not causal keeps its whole context."""
    monkeypatch.setattr(clip_module, "_SHORT_CONTEXT", 0)  # as if these towers had a long one
    model, lengths = copy.deepcopy(teacher.model), []
    copied = FrozenClip(teacher.config, model)
    names = ["cat", "red boat", "unicorn of the seven seas"]
    texts = [prompt.format(name) for name in names for prompt in teacher.prompts[:5]]
    tokens = copied.tokenizer(texts)
    model.transformer.register_forward_pre_hook(lambda _, x: lengths.append(x[0].shape[1]))
    expected = model.encode_text(tokens)
    torch.testing.assert_close(copied._encode_texts(texts), expected, atol=3e-6, rtol=0)
    model.attn_mask = None
    torch.testing.assert_close(copied._encode_texts(texts), model.encode_text(tokens))
    assert lengths == [16, lengths[1], 16, 16] and lengths[1] < 16


@torch.no_grad()
def test_short_rows_of_text_give_the_bits_of_one_name_at_a_time(untrained):
    texts = [prompt.format(name) for name in ("cat", "red boat") for prompt in untrained.prompts]
    halves = (texts[: len(untrained.prompts)], texts[len(untrained.prompts) :])
    alone = [untrained.model.encode_text(untrained.tokenizer(half)) for half in halves]
    assert torch.equal(untrained._encode_texts(texts), torch.cat(alone))


def test_text_features_are_kept_on_disk(untrained, tmp_path, monkeypatch):
    first = untrained.text_features(["dog", "cat"], tmp_path)
    (file,) = tmp_path.glob("*/*.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(untrained, "_encode_texts", None)  # not used again
        assert torch.equal(untrained.text_features(["dog", "cat"], tmp_path), first)
    nan = save({"text": torch.full((2, untrained.dim), torch.nan)})
    for content in (file.read_bytes()[:-9], b"", nan, save({"text": torch.zeros(3, 2)})):
        file.write_bytes(content)
        with pytest.warns(UserWarning, match=f"{file.name} is damaged .* it is made anew"):
            assert torch.equal(untrained.text_features(["dog", "cat"], tmp_path), first)


def test_what_text_features_depend_on_names_their_file(resnet, tmp_path):
    def number_of_files(names=("dog", "cat"), config=TINY, model=resnet.model, prompt="{}."):
        teacher = FrozenClip(config, model)
        teacher.prompts = (prompt,)
        teacher.text_features(names, tmp_path)
        return len(list(tmp_path.glob("*/*.safetensors")))

    assert number_of_files() == number_of_files() == 1
    assert number_of_files(names=["cat", "dog"]) == 2
    assert number_of_files(prompt="a {}.") == 3
    changed = copy.deepcopy(resnet.model)
    changed.ln_final.bias.data[0] += 1
    assert number_of_files(model=changed) == 4
    other = ClipConfig(model="other activation", short_side=128)
    assert number_of_files(config=other) == 5


# --- frozen ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["roi", "crop"])
def test_answers_may_enter_a_students_loss(untrained, tmp_path, mode):
    student = torch.randn(3, untrained.dim, requires_grad=True)
    for _ in range(2):  # computed, and read from disk
        text = untrained.text_features(["dog", "cat"], tmp_path)
        target = soft_labels(untrained.regions(picture(64, 96), BOXES, mode), text, 10.0)
        loss = F.kl_div((student @ text.T).log_softmax(-1), target, reduction="batchmean")
        loss.backward()
    assert student.grad.abs().sum() > 0


# --- what a user may get wrong -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (ClipConfig(model="RN50", weights="openai"), ValueError, "RN50-quickgelu"),
        (ClipConfig(model="RN50", weights="dir/RN50-OpenAI.pt"), ValueError, "RN50-quickgelu"),
        (ClipConfig(model="RN50", weights="yfcc15m"), ValueError, "use 'RN50-quickgelu'"),
        (ClipConfig(model="ViT-B-32-quickgelu", weights="laion2b_e16"), ValueError, "'ViT-B-32'"),
        (ClipConfig(model="RN51", weights="openai"), ValueError, "richsem-mini.*local-dir.*RN50"),
        (ClipConfig(model="RN50-quickgelu"), ValueError, "needs `weights`.*openai"),
        (ClipConfig(model="local-dir:nowhere"), FileNotFoundError, "nowhere: no open_clip_config"),
        (ClipConfig(model="hf-hub:a/b", weights="c"), ValueError, "leave `weights` empty"),
        (ClipConfig(model="RN50-quickgelu", weights="no/such/file.pt"), FileNotFoundError,
         "no/such/file.pt.*name the file instead"),
        (ClipConfig(weights="no/such/x.safetensors"), FileNotFoundError, "-m richsem clip train"),
    ],
    ids=lambda value: value.model + value.weights if isinstance(value, ClipConfig) else None,
)  # fmt: skip
def test_a_wrong_choice_is_explained(config, error, words):
    with pytest.raises(error, match=f"(?s){words}"):
        FrozenClip(config)


def folder_of(tmp_path):
    """A folder as open_clip writes it: a small ViT with logit_bias and statistics of its own."""
    text = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64}
    model = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "init_logit_bias": -10}
    content = {
        "model_cfg": model | {"custom_text": True},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    torch.manual_seed(0)
    network = open_clip.CustomTextCLIP(**model)
    save_file(network.state_dict(), tmp_path / "open_clip_model.safetensors")
    return network.eval(), ClipConfig(model=f"local-dir:{tmp_path}", short_side=64)


@torch.no_grad()
def test_a_folder_with_a_model_is_opened_and_without_its_weights_refused(tmp_path):
    network, config = folder_of(tmp_path)
    teacher = FrozenClip(config)
    assert config.files[:2] == tuple(map(str, sorted(tmp_path.iterdir())))
    assert teacher.mean.flatten().tolist() == teacher.std.flatten().tolist() == [0.5] * 3
    texts = ["cat.", "a red boat."]
    tokens = open_clip.get_tokenizer("RN50", context_length=24)(texts)
    text = network.encode_text(tokens)
    torch.testing.assert_close(teacher._encode_texts(texts), text, atol=1e-5, rtol=0)
    assert reading_modes(config) == "crop, roi"
    image, whole = picture(64, 64), torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    expected = F.normalize(network.encode_image(teacher.normalise(image)[None]), dim=-1)
    found = teacher.regions(image, whole, "crop")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    # A bias on logits of a sigmoid is the same for all classes: soft labels do not know it.
    labels = soft_labels(found, text, teacher.scale)
    logits = network.get_logits(teacher.normalise(image)[None], tokens)[0]
    torch.testing.assert_close(labels, logits.softmax(-1), atol=1e-5, rtol=1e-4)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no weights"):
        FrozenClip(config)


@torch.no_grad()
def test_siglip_reads_names_in_its_own_way(tmp_path, monkeypatch):
    """A small SigLIP of open_clip: other tokens, pooled at the last place, read as a whole."""
    timm = {"timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "none"}
    text = {"context_length": 20, "vocab_size": 300, "width": 64, "heads": 2, "layers": 1}
    text |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    model = {"embed_dim": 64, "init_logit_bias": -10, "custom_text": True, "text_cfg": text}
    model |= {"vision_cfg": timm | {"image_size": 160}, "init_logit_scale": 2.3}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small-SigLIP", model)
    torch.manual_seed(0)
    network = open_clip.create_model("small-SigLIP").eval()
    save_file(network.state_dict(), tmp_path / "siglip.safetensors")

    def tokenizer(texts):  # padded by 1, as SigLIP's, so that no place tells where a text ends
        rows = [[*text.encode()[:20], *[1] * 20][:20] for text in texts]
        return torch.tensor(rows)

    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: tokenizer)
    file = str(tmp_path / "siglip.safetensors")
    teacher = FrozenClip(ClipConfig(model="small-SigLIP", weights=file, short_side=160))
    texts = ["cat", "a red boat", "yak and yaks"]
    expected = network.encode_text(tokenizer(texts))
    torch.testing.assert_close(teacher._encode_texts(texts), expected, atol=1e-5, rtol=1e-4)
    assert teacher.scale == pytest.approx(network.logit_scale.exp().item())
    image, whole = picture(160, 160), torch.tensor([[0.0, 0.0, 160.0, 160.0]])
    features = teacher.regions(image, whole, "roi")
    logits = network.get_logits(teacher.normalise(image)[None], tokenizer(texts))[0]
    labels = soft_labels(features, expected, teacher.scale)
    torch.testing.assert_close(labels, logits.softmax(-1), atol=1e-4, rtol=1e-3)


def test_a_tokenizer_that_is_not_here_is_named(monkeypatch):
    """Before any weights are looked for."""
    monkeypatch.setattr(open_clip, "get_tokenizer", Mock(side_effect=OSError("no route")))
    config = ClipConfig(model="ViT-B-16-SigLIP", weights="webli")
    with pytest.raises(FileNotFoundError, match=r"tokenizer .*no route.* local-dir:FOLDER"):
        FrozenClip(config)


def test_the_embedded_teacher_says_what_it_knows():
    with pytest.warns(UserWarning, match=r"my photos: .* knows drawings only"):
        say_what_it_knows(ClipConfig(), "my photos")
    say_what_it_knows(RN50, "my photos")
