"""What is found in a picture does not depend on what it is padded with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_centernet2 import tiny_centernet2
from tiny_dino import CLASSES, SIDE, target, target_at, tiny_dino
from tiny_losses import train_step
from torch.nn import functional as F
from torchvision.ops import box_iou
from torchvision.transforms.v2.functional import pil_to_tensor

from richsem.boxes import in_parts, in_pixels
from richsem.data.catalog import open_boxes
from richsem.data.categories import spoken_names
from richsem.data.drawn import SMOKE
from richsem.data.samples import DetectionTrainingSet, Sample, collate
from richsem.data.transforms import Picture, ScaleJitterConfig, TransformConfig
from richsem.minilvis.render import build_minilvis
from richsem.models.clip import MINI, FrozenClip
from richsem.paths import ROOT
from richsem.recipes import centernet2_recipes, dino_recipes
from richsem.structures import Supervision
from richsem.training.checkpoint import initialise
from richsem.training.predict import detect_image, predict
from richsem.training.run_config import make_detector

SHIPPED = pytest.mark.parametrize(
    ("config", "start"),
    [
        (dino_recipes.MINI_DINO, dino_recipes.MINI_START),
        (centernet2_recipes.MINI_CENTERNET2, centernet2_recipes.MINI_START),
    ],
    ids=["dino", "centernet2"],
)


class Pictures(list):
    """Samples as a set."""

    def __getitem__(self, key):
        return super().__getitem__(key[0])


@pytest.mark.parametrize("multiple", [1, 32])
@pytest.mark.parametrize("make", [tiny_dino, tiny_centernet2])
def test_detections_do_not_depend_on_the_sizes_of_other_pictures(make, multiple):
    sizes = {"min_score": 0.0} if make is tiny_centernet2 else {"queries": 40}
    model = make(**sizes, pad_multiple=multiple)
    draws = torch.Generator().manual_seed(0)
    sizes = [(64, 64), (64, 64), (5, 3), (1, 90), (64, 30)]
    pictures = Pictures()
    for number, size in enumerate(sizes):
        own = replace(target_at(size=size), image_id=number)
        pictures.append(Sample(target=own, image=torch.rand(3, *size, generator=draws)))
    given = (model, pictures, range(CLASSES))
    one, many = (predict(*given, batch_size=size) for size in (1, 5))
    assert set(many.image_id) >= {0, 1, 4}
    for name in ("image_id", "category_id", "bbox_xywh", "score"):
        np.testing.assert_allclose(getattr(one, name), getattr(many, name), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 500), (5, 5), (4000, 30), (1, 1)])
@pytest.mark.parametrize("make", [tiny_dino, tiny_centernet2])
def test_pictures_of_any_shape(make, shape):
    """They are looked at, and learnt from beside an ordinary one."""
    model = make(min_score=0.0) if make is tiny_centernet2 else make()
    sizes = {"short_sides": (64,), "crop_short_sides": (64,), "crop_range": (32, 64)}
    picture = Image.new("RGB", shape, "red")
    scores, _, boxes = detect_image(model, picture, TransformConfig(**sizes), threshold=0.0)
    assert boxes.isfinite().all()
    # A cascade looks at cells whose centre is in the picture, which may be too narrow for any.
    assert len(scores) or make is tiny_centernet2
    for config in (TransformConfig(**sizes), ScaleJitterConfig(side=64)):
        whole = torch.tensor([[0.0, 0.0, *shape]])
        given = Picture(image=pil_to_tensor(picture), boxes_xyxy=whole, labels=torch.tensor([1]))
        seen = config.apply(given, torch.Generator().manual_seed(0))
        part = in_parts(seen.boxes_xyxy, seen.size)
        soft = torch.full((len(part), CLASSES), 1 / CLASSES)
        own = replace(target(), labels=seen.labels, boxes=part, size=seen.size, soft_labels=soft)
        small = Sample(target=own, image=seen.image.float() / 255)
        usual = Sample(target=target(2, soft=True), image=torch.rand(3, SIDE, SIDE))
        batch = collate([small, usual], Supervision.DETECTION)
        train_step(model, batch)


@pytest.fixture(scope="module")
def drawn():
    """Drawn pictures of 256 pixels, and the text features of their classes."""
    clip = FrozenClip(MINI)
    data = open_boxes("lvis", "val", root=build_minilvis(SMOKE))
    samples = DetectionTrainingSet(data, dino_recipes.SCENE.evaluation())
    text = clip.text_features(spoken_names(data.categories))
    return [samples[i, 0] for i in range(len(data))], text, clip.scale


def cut(sample, part):
    """The upper left of a picture; objects stay if half of them does."""
    side = int(part * sample.image.shape[-1])
    boxes = in_pixels(sample.target.boxes, sample.target.size)
    left = boxes.clamp(max=side)
    kept = box_iou(boxes, left).diagonal() >= 0.5
    image, size = sample.image[:, :side, :side], (side, side)
    return Sample(target=replace(sample.target, boxes=left[kept], size=size), image=image)


@SHIPPED
def test_padding_hides_no_object(config, start, drawn):
    """The detector itself, shown the same picture alone and padded (METHOD 7)."""
    samples, text, scale = drawn
    classes, width = text.shape
    config = replace(config, num_classes=classes, text_dim=width, scale=scale)
    detector = make_detector(config).eval()
    detector.set_vocabulary(text)
    initialise(detector, ROOT / start)
    for part in (0.8, 0.6):
        best = {1: [], 256: []}
        for small in (cut(sample, part) for sample in samples):
            for multiple, found in best.items():
                batch = collate([small], Supervision.DETECTION, multiple)
                with torch.inference_mode():
                    [(*_, boxes)] = detector.detections(detector(batch), [small.target.size], 900)
                found.append(box_iou(small.target.boxes, F.pad(boxes, (0, 0, 0, 1))).amax(1))
        alone, padded = (torch.cat(found).mean().item() for found in best.values())
        assert alone > 0.65
        assert padded == pytest.approx(alone, abs=0.05)
