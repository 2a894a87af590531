"""What is found in a picture does not depend on what it is padded with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_centernet2 import tiny_centernet2
from tiny_dino import CLASSES, target, tiny_dino
from torch.nn import functional as F
from torchvision.ops import box_iou

from richsem.boxes import in_pixels
from richsem.data.catalog import SMOKE, open_boxes
from richsem.data.categories import spoken_names
from richsem.data.samples import DetectionTrainingSet, Sample, collate
from richsem.data.transforms import Transform
from richsem.minilvis.render import build_minilvis
from richsem.models.clip import MINI, FrozenClip
from richsem.paths import ROOT
from richsem.recipes import centernet2_recipes, dino_recipes
from richsem.structures import Supervision
from richsem.training.checkpoint import initialise
from richsem.training.predict import predict
from richsem.training.run_config import make_detector

SHIPPED = pytest.mark.parametrize(
    ("config", "start"),
    [
        (dino_recipes.MINI_DINO, dino_recipes.MINI_START),
        (centernet2_recipes.MINI_CENTERNET2, centernet2_recipes.MINI_START),
    ],
    ids=["dino", "centernet2"],
)


class Pictures:
    """Samples as a set."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, key):
        return self.samples[key[0]]


@pytest.mark.parametrize("multiple", [1, 32])
@pytest.mark.parametrize("make", [tiny_dino, tiny_centernet2])
def test_detections_do_not_depend_on_the_sizes_of_other_pictures(make, multiple):
    model = make(min_score=0.0) if make is tiny_centernet2 else make(queries=40)
    draws = torch.Generator().manual_seed(0)
    sizes = [(64, 64), (64, 64), (5, 3), (1, 90), (64, 30)]
    pictures = [
        Sample(
            target=replace(target(), size=size, original_size=size, image_id=number),
            image=torch.rand(3, *size, generator=draws),
        )
        for number, size in enumerate(sizes)
    ]
    given = (model, Pictures(pictures), range(CLASSES))
    one, many = (predict(*given, batch_size=size, pad_multiple=multiple) for size in (1, 5))
    assert set(many.image_id) >= {0, 1, 4}
    for name in ("image_id", "category_id", "bbox_xywh", "score"):
        np.testing.assert_allclose(getattr(one, name), getattr(many, name), atol=1e-4)


@pytest.fixture(scope="module")
def drawn():
    """Drawn pictures of 256 pixels, and the text features of their classes."""
    clip = FrozenClip(MINI)
    data = open_boxes("lvis", "val", root=build_minilvis(SMOKE))
    samples = DetectionTrainingSet(data, Transform(dino_recipes.SCENE.evaluation()))
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
