"""The teacher against recorded numbers of the authors' code: towers, text, RoIs, soft logits."""

import hashlib
import re

import open_clip
import pytest
import torch
from parity.reference import describe, recorded_targets, tensor_names
from torch.nn import functional as F

from richsem.models.clip import IMAGENET_PROMPTS, ClipConfig, FrozenClip, soft_labels
from richsem.structures import Batch
from richsem.training.teacher import Teacher

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
IMAGE = pytest.mark.golden("H_clip_towers:image")
UTILS = pytest.mark.golden("U_utils", "H_clip_towers")


@pytest.fixture(scope="module")
def towers(recorded):
    return recorded("H_clip_towers")[0]


@pytest.fixture(scope="module")
def distillation(recorded):
    return recorded("C2_richsem_train")[0]


@pytest.fixture
def teacher(recorded, golden):
    config = describe(golden, "H_clip_towers")["config"]
    file, prefix = config["weights"].split(", keys with prefix ")
    weights = recorded(file)[0].items()
    state = {k.removeprefix(prefix): tensor for k, tensor in weights if k.startswith(prefix)}
    model = open_clip.CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg={
            "layers": config["layers"],
            "width": config["width"],
            "image_size": config["res"],
        },
        text_cfg={
            "context_length": len(state["positional_embedding"]),
            "vocab_size": len(state["token_embedding.weight"]),
            "width": config["transformer_width"],
            "heads": config["transformer_heads"],
            "layers": config["transformer_layers"],
        },
        quick_gelu=True,
    )
    missing, unknown = model.load_state_dict(state, strict=False)
    assert not unknown
    assert not [name for name in missing if not name.startswith("visual.")]
    tiny = ClipConfig(model="tiny", weights="golden", short_side=config["res"])
    return FrozenClip(tiny, model)


def pixels(normalised, mean, std):
    """Undo a normalisation: the teacher takes pictures."""
    return normalised * std + mean


@IMAGE
def test_image_tower(teacher, towers):
    image = pixels(towers["image"], teacher.mean, teacher.std)
    maps = torch.cat([teacher.trunk_map(one)[0] for one in image])
    torch.testing.assert_close(maps, towers["image_spatial"], atol=1e-4, rtol=1e-4)
    for expected in (towers["image_pooled"], towers["image_features"]):
        expected = F.normalize(expected, dim=-1)
        torch.testing.assert_close(teacher.pool(maps), expected, atol=1e-4, rtol=1e-4)
    raw = teacher.model.encode_image(towers["image"])
    torch.testing.assert_close(raw, towers["image_features"], atol=1e-4, rtol=1e-4)


@pytest.mark.golden("H_clip_towers:tokens")
def test_text_features_are_the_mean_over_templates(teacher, towers, tmp_path):
    templates, classes, _ = towers["tokens"].shape
    teacher.prompts = tuple(f"{t} {{}}" for t in range(templates))

    def tokenizer(texts):  # the tiny tower has a vocabulary of its own
        pairs = [map(int, text.split()) for text in texts]
        return torch.stack([towers["tokens"][t, c] for t, c in pairs])

    teacher.tokenizer = tokenizer
    features = teacher.text_features([str(c) for c in range(classes)], tmp_path)
    torch.testing.assert_close(features, towers["text_embed"], atol=1e-4, rtol=1e-4)
    one_by_one = teacher.model.encode_text(towers["tokens"].flatten(0, 1))
    expected = towers["text_features"].flatten(0, 1)
    torch.testing.assert_close(one_by_one, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.golden("H_clip_towers")
def test_token_ids(teacher, golden):
    for text, ids in describe(golden, "H_clip_towers")["tokenizer"]["ids"].items():
        assert teacher.tokenizer([text])[0, : len(ids) + 1].tolist() == [*ids, 0]


@pytest.mark.golden("H_clip_towers")
def test_the_81_prompts_are_the_papers(golden):
    listed = describe(golden, "H_clip_towers")["prompt_templates"]
    # The reference lists one of them earlier, which a mean does not see.
    plain = "a photo of a {}."
    others = [prompt for prompt in IMAGENET_PROMPTS[1:] if prompt != plain]
    text = "\n".join([IMAGENET_PROMPTS[0], plain, *others])
    assert len(IMAGENET_PROMPTS) == len(set(IMAGENET_PROMPTS)) == listed["count"] == 81
    assert hashlib.sha256(text.encode()).hexdigest() == listed["sha256_of_newline_joined"]


def grids(folder):
    """Recorded sides of the cut."""
    return sorted(re.findall(r"\broi/out_(\d+)", " ".join(tensor_names(folder, "U_utils"))))


@pytest.mark.golden("U_utils", "H_clip_towers", grid=grids)
def test_roialign(teacher, utils, grid, monkeypatch):
    monkeypatch.setattr(teacher, "grid", int(grid))
    monkeypatch.setattr(teacher, "pool", lambda cuts: cuts)
    rois, maps = utils["roi/rois"], utils["roi/features"]
    for roi, expected in zip(rois, utils[f"roi/out_{grid}"], strict=True):
        image = int(roi[0])
        cut = teacher.pool_regions(maps[image : image + 1], roi[None, 1:], 1 / teacher.tower.stride)
        torch.testing.assert_close(cut[0], expected, atol=1e-5, rtol=0)


@UTILS
def test_input_normalisation(teacher, utils):
    image = pixels(utils["clipnorm/in"], IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(
        teacher.normalise(image), utils["clipnorm/out"], atol=1e-5, rtol=1e-5
    )


def images(folder):
    names = " ".join(tensor_names(folder, "C2_richsem_train"))
    return sorted(re.findall(r"\bdistill/target(\d+)/clip_prompt", names))


@pytest.mark.golden("C2_richsem_train", "H_clip_towers", image=images)
def test_soft_labels_of_regions(teacher, distillation, image):
    seen = f"distill/target{image}"
    text = distillation["in/text_embed"]
    labels = soft_labels(distillation[f"{seen}/clip_prompt"], text, teacher.scale)
    expected = distillation[f"{seen}/clip_logits"].softmax(-1)
    torch.testing.assert_close(labels, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.golden("C2_richsem_train:in/images", "H_clip_towers")
def test_soft_labels_of_a_padded_batch(teacher, distillation):
    """The same for the batch as the training loop has it: padded with zeros, by the engine."""
    images = pixels(distillation["in/images"], IMAGENET_MEAN, IMAGENET_STD)
    padding = distillation["in/image_mask"].bool()
    images = images.masked_fill(padding[:, None], 0.0)
    targets = recorded_targets(distillation)
    batch = Batch(targets=targets, images=images, padding=padding)
    labelled = Teacher(teacher, distillation["in/text_embed"])(batch)
    for i, target in enumerate(labelled.targets):
        expected = distillation[f"distill/target{i}/clip_logits"].softmax(-1)
        torch.testing.assert_close(target.soft_labels, expected, atol=1e-4, rtol=1e-4)
