"""Outlines in annotation files: read where masks are asked for, and only there."""

import pickle

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from tiny_files import annotation_content, write_json, write_picture
from torch.nn.functional import avg_pool2d

from richsem.data import samples
from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import drop_annotations
from richsem.data.features import FeatureConfig, cached_features
from richsem.data.outlines import Outlines
from richsem.data.reading import DataError, DataWarning
from richsem.data.samples import DetectionTrainingSet
from richsem.data.transforms import Picture, ScaleJitterConfig, TransformConfig
from richsem.masks import SIDE, drawn, pasted, run_lengths

CROPS = {"crop_short_sides": (60,), "crop_range": (40, 60)}
SQUARES = TransformConfig(short_sides=(32,), keep_aspect=False, **CROPS)
RNG = np.random.default_rng
BOXES = [(2, 3, (4.0, 5, 30, 20)), (1, 3, (10.0, 10, 20, 36)), (2, 3, (20.0, 2, 28, 46))]


def triangle(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x, y + h]]


def content_of(make=triangle):
    """Two images with three boxes, each with its outline."""
    content = annotation_content({1: {}, 2: {}}, BOXES)
    for box in content["annotations"]:
        box["segmentation"] = make(box["bbox"])
    return content


@pytest.fixture
def load(tmp_path):
    """A set from a content, with pictures of noise."""

    def dataset(content):
        for image in content["images"]:
            write_picture(tmp_path / image["file_name"], 50, RNG(0))
        return BoxDataset.load(write_json(tmp_path / "set.json", content), tmp_path)

    return dataset


def look(batch):
    return batch, (avg_pool2d(batch.images, 8),)


@pytest.mark.parametrize(
    "make",
    [
        triangle,
        lambda box: run_lengths(triangle(box), (50, 50)),
        lambda box: [[1, 1], *triangle(box), [1, 2, 3, 4], []],  # a point, a line, nothing
    ],
)
def test_masks_are_in_the_order_of_the_boxes(load, make):
    dataset = load(content_of(make))
    for source in (dataset.path, content_of(make)):
        outlines = pickle.loads(pickle.dumps(Outlines(source)))  # loader workers get a copy
        masks = outlines.masks(dataset, 1)
        assert masks.shape == (2, SIDE, SIDE) and masks.dtype == torch.bool
        half = torch.ones(SIDE, SIDE).tril().flip(0).bool()
        for mask in masks:
            assert (mask & half).sum() / (mask | half).sum() > 0.93
    assert outlines.masks(dataset.select([0]), 0).shape == (1, SIDE, SIDE)
    nothing = drop_annotations(dataset, 0.7)
    assert len(nothing.labels) == 1
    assert outlines.masks(nothing, int(nothing.box_image[0] == 0)).shape == (0, SIDE, SIDE)


def test_a_file_that_only_python_reads_keeps_its_outlines(load):
    content = content_of()
    # Whole numbers with a point are of tables where a column has gaps.
    content["annotations"][0] |= {"score": float("nan"), "id": 1.0}
    dataset = load(content)
    assert "NaN" in dataset.path.read_text()
    expected = Outlines(content_of()).masks(dataset, 1)
    assert torch.equal(Outlines(dataset.path).masks(dataset, 1), expected)


@pytest.mark.parametrize(
    ("outline", "words"),
    [
        (None, r'set.json: annotation id 3: field "segmentation" is missing. Add it, or train'),
        ([[]], r'annotation id 3: field "segmentation" is missing'),
        ([[1, 2, 3]], "annotation id 3.* cannot be drawn: expected polygons"),
        ({"size": [9, 9], "counts": "0"}, r"annotation id 3.* run lengths of size \[50, 50\]"),
        (7, "annotation id 3.* cannot be drawn: expected polygons, or run lengths"),
        ([["a", "b", "c", "d", "e", "f"]], "annotation id 3.* drawn: expected polygons"),
        ([[[1, 2], [3, 4], [5, 6], [7, 8], [1, 1], [2, 2]]], "id 3.* drawn: expected polygons"),
    ],
)
def test_what_is_wrong_with_an_outline_is_said(load, outline, words):
    content = content_of()
    content["annotations"][2]["segmentation"] = outline
    dataset = load(content)
    with pytest.raises(DataError, match=words):
        Outlines(dataset.path).masks(dataset, 1)
    with pytest.raises(DataError, match=words):  # and before any work
        DetectionTrainingSet(dataset, SQUARES, masks=True)


def test_outlines_that_lie_elsewhere_than_their_boxes_are_told(load):
    dataset = load(content_of(lambda box: [[value / 50 for value in triangle(box)[0]]]))
    with pytest.warns(DataWarning, match=r"set.json: 3 of 3 masks lie elsewhere than their boxes"):
        DetectionTrainingSet(dataset, SQUARES, masks=True)


def test_nothing_is_read_unless_masks_are_asked_for(load, monkeypatch):
    dataset = load(content_of())
    plain = DetectionTrainingSet(dataset, SQUARES)
    masked = DetectionTrainingSet(dataset, SQUARES, masks=True)
    assert plain[1, 0].target.masks is None
    assert plain.fingerprint != masked.fingerprint
    monkeypatch.setattr(samples, "Outlines", None)
    assert DetectionTrainingSet(dataset, SQUARES).fingerprint == plain.fingerprint
    for seed in range(8):  # nothing else of a sample depends on it
        one, other = masked[1, seed].target, plain[1, seed].target
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.labels, other.labels)
        assert len(one.masks) == len(one.labels)


def test_masks_stay_with_their_boxes(load, own_cache):
    dataset = load(content_of())
    masked = DetectionTrainingSet(dataset, SQUARES, masks=True)
    reduced = drop_annotations(dataset, 0.4)
    (gone,) = set(dataset.annotation_ids) - set(reduced.annotation_ids)
    stored = cached_features(masked, look, "pool", FeatureConfig(views=3))
    for view in range(3):
        kept = stored.view(1, view).target
        assert kept.masks.shape == (len(kept.labels), SIDE, SIDE)
        without = samples.ReducedTrainingSet(stored, dataset, reduced)[1, view].target
        wanted = dataset.annotation_ids[dataset.offsets[1] + kept.rows.numpy()] != gone
        assert torch.equal(without.masks, kept.masks[torch.from_numpy(wanted)])


def textured(size=(90, 120)):
    """A picture that is white where its object is."""
    outline, box = [[30.0, 20, 100, 30, 70, 80, 55, 45]], torch.tensor([[30.0, 20, 100, 80]])
    pixels = coco.decode(coco.merge(coco.frPyObjects(outline, *size)))
    image = torch.from_numpy(pixels)[None].expand(3, -1, -1) * 255
    masks = drawn(outline, box[0], size)[None]
    return Picture(image=image, boxes_xyxy=box, labels=torch.tensor([0]), masks=masks)


CONFIGS = {
    "flip": TransformConfig(flip=1.0, crop=0.0, short_sides=(90,)),
    "squeezed": TransformConfig(flip=0.0, crop=0.0, short_sides=(128,), keep_aspect=False),
    "window": TransformConfig(
        crop=1.0, crop_short_sides=(90, 140), crop_range=(60, 90), short_sides=(100, 160)
    ),
    "jitter": ScaleJitterConfig(side=100, scales=(0.5, 2.0)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_masks_follow_their_pixels(config):
    overlaps = []
    for seed in range(12):
        draws = torch.Generator().manual_seed(seed)
        moved = config.apply(textured(), draws)
        if not len(moved.boxes_xyxy):
            continue
        (runs,) = pasted(moved.masks.float(), moved.boxes_xyxy, moved.size)
        ours, theirs = coco.decode(runs).astype(bool), (moved.image[0] > 127).numpy()
        if theirs.sum() > 200:
            overlaps.append((ours & theirs).sum() / (ours | theirs).sum())
    assert len(overlaps) >= 6 and min(overlaps) > 0.9, overlaps
