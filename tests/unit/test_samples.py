"""Training sets: targets of every kind of supervision, and batches of them."""

import pickle
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_dino import target_at
from toys import exactly

from richsem.boxes import to_xyxy
from richsem.data import samples
from richsem.data.categories import Category
from richsem.data.corrupt import drop_annotations
from richsem.data.image_sets import ImageSet
from richsem.data.samples import DetectionTrainingSet, ExtraTrainingSet, Sample, collate
from richsem.data.transforms import MosaicConfig, TransformConfig
from richsem.structures import Supervision

AS_IT_IS = TransformConfig(flip=0, crop=0, short_sides=(64,), max_side=10_000)
CROPS = {"crop_short_sides": (60, 70), "crop_range": (40, 60)}
AUGMENTED = TransformConfig(short_sides=(48, 64), max_side=96, **CROPS)
SIDE = MosaicConfig(side=32)
LABELS = ((0,), (1, 2), (), (3,), (0,))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five images of one colour each; labels as in `LABELS`."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(5):
        Image.new("RGB", (40 + 4 * i, 60 - 4 * i), (40 * i + 10, 5, 200)).save(root / f"{i}.png")
    names = tuple(f"{i}.png" for i in range(5))
    known = {"categories": tuple(Category(id=i + 1, name=f"c{i}") for i in range(4))}
    known |= {"path": root / "list.json", "image_root": root, "labels": LABELS, "content": "f"}
    return ImageSet(name="photos", file_names=names, **known)


def colours(sample):
    """Which image is in the middle of each box."""
    height, width = sample.image.shape[-2:]
    middles = (sample.target.boxes[:, :2] * torch.tensor([width, height])).long().tolist()
    return [round((float(sample.image[0, y, x]) * 255 - 10) / 40) for x, y in middles]


def content(sample):
    return sample.image, sample.target.boxes, sample.target.labels


def extra(photos, supervision, **changes):
    return ExtraTrainingSet(photos, AUGMENTED, supervision=supervision, **changes)


# --- detection ---------------------------------------------------------------------------------


def test_a_detection_target_is_the_annotation_and_can_be_drawn(tiny_set):
    sample = DetectionTrainingSet(tiny_set, AS_IT_IS)[0, 0]
    truth = np.asarray(tiny_set.image(0), dtype=np.float32).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(sample.image.numpy(), truth, atol=1e-6)
    target = sample.target
    assert (target.labels.tolist(), target.labels.dtype) == ([0, 1, 2], torch.long)
    expected = torch.tensor([[19, 26, 30, 40], [70, 25, 40, 30], [48, 32, 96, 64]])
    torch.testing.assert_close(target.boxes, expected / torch.tensor([96.0, 64, 96, 64]))
    assert (target.size, target.original_size, target.image_id) == ((64, 96), (64, 96), 1)
    made = DetectionTrainingSet(tiny_set, AS_IT_IS)[(1, 0)]
    picture = samples.to_picture(made)
    boxes, labels = tiny_set.boxes_of(1)
    scale = made.target.size[0] / tiny_set.image_sizes[1][0]
    np.testing.assert_allclose(picture.boxes_xyxy, boxes * scale, rtol=1e-4)
    assert picture.labels.tolist() == labels.tolist() and picture.image.dtype == torch.uint8
    assert torch.equal(picture.image.float() / 255, made.image)
    with pytest.raises(ValueError, match="features only"):
        samples.to_picture(Sample(target=made.target))


@pytest.mark.parametrize("seed", range(10))
def test_boxes_stay_inside_and_say_which_annotation_they_are(tiny_set, seed):
    dataset = DetectionTrainingSet(tiny_set, AUGMENTED)
    for index in range(len(dataset)):
        sample = dataset[index, seed]
        boxes = sample.target.boxes
        assert boxes.shape == (len(sample.target.labels), 4)  # none in image 2
        _, labels = tiny_set.boxes_of(index)
        assert torch.equal(torch.from_numpy(labels)[sample.target.rows], sample.target.labels)
        assert sample.target.size == tuple(sample.image.shape[-2:])
        assert sample.target.original_size == tuple(tiny_set.image_sizes[index])
        corners = to_xyxy(boxes)
        assert ((corners > -1e-5) & (corners < 1 + 1e-5)).all() and (boxes[:, 2:] > 0).all()


def test_a_box_of_which_rounding_leaves_nothing_is_no_target(tiny_set):
    corners = tiny_set.boxes_xyxy.copy()
    corners[0, 2] = corners[0, 0]
    thin = replace(tiny_set, boxes_xyxy=corners)
    target = DetectionTrainingSet(thin, AS_IT_IS)[0, 0].target
    assert target.labels.tolist() == target.rows.tolist() == [1, 2]


def test_labels_are_mapped_and_boxes_of_unknown_classes_left_out(tiny_set, photos):
    dataset = DetectionTrainingSet(tiny_set, AS_IT_IS, classes=[7, -1, 3, 0])
    assert dataset[0, 0].target.labels.tolist() == [7, 3]
    assert dataset[3, 0].target.labels.tolist() == [7]
    known = {"supervision": Supervision.BOXES_ONLY, "classes": [7, -1, 3, 0]}
    hidden = DetectionTrainingSet(tiny_set, AS_IT_IS, **known)
    assert hidden[0, 0].target.labels.tolist() == [-1, -1, -1]
    dataset = extra(photos, Supervision.IMAGE_LABELS, classes=[9, -1, 4, -1])
    labels = [dataset[index, 0].target.labels.tolist() for index in range(len(dataset))]
    assert labels == [[9], [4], [9]]


def test_a_sample_is_a_function_of_index_and_seed_also_in_another_process(tiny_set, photos):
    for dataset in (
        DetectionTrainingSet(tiny_set, AUGMENTED),
        extra(photos, Supervision.IMAGE_LABELS, mosaic=SIDE),
    ):
        torch.manual_seed(1)
        first = dataset[1, 42]
        dataset[0, 5]
        torch.manual_seed(2)
        again = pickle.loads(pickle.dumps(dataset))[1, 42]
        exactly(content(first), content(again))
        others = [dataset[1, seed].image for seed in range(4)]
        assert len({(image.shape, float(image.sum())) for image in others}) > 1


# --- extra data --------------------------------------------------------------------------------


def test_a_mosaic_carries_the_label_of_each_tile_drawn_from_the_whole_set(photos):
    dataset = extra(photos, Supervision.IMAGE_LABELS, mosaic=SIDE)
    assert len(dataset) == 4  # the image without a label is left out
    for seed in range(10):
        sample = dataset[2, seed]
        assert sample.image.shape == (3, 64, 64) and sample.target.image_id == 3
        assert sample.target.size == sample.target.original_size == (64, 64)
        images = colours(sample)
        assert images[0] == 3 and images.count(3) == 1  # the first tile does not meet itself
        shown = set(zip(images, sample.target.labels.tolist(), strict=True))
        assert shown == {(image, label) for image in images for label in LABELS[image]}
    dataset = extra(photos, Supervision.UNLABELLED, mosaic=SIDE)
    assert len(dataset) == 5
    mosaics = [dataset[0, seed] for seed in range(40)]
    assert {image for sample in mosaics for image in colours(sample)[1:]} == {1, 2, 3, 4}
    assert all(sample.target.labels.tolist() == [-1] * 4 for sample in mosaics)
    alone = extra(photos.select([0]), Supervision.IMAGE_LABELS, mosaic=SIDE)
    assert colours(alone[0, 0]) == [0, 0, 0, 0]


def test_without_mosaic_the_box_is_the_image(photos):
    kinds = {Supervision.WHOLE_IMAGES: [1, 2], Supervision.CAPTIONS: [1, 2]}
    for supervision, expected in (kinds | {Supervision.UNLABELLED: [-1]}).items():
        sample = extra(photos, supervision)[1, 3]
        assert sample.target.labels.tolist() == expected
        whole = torch.tensor([[0.5, 0.5, 1, 1]]).repeat(len(expected), 1)
        torch.testing.assert_close(sample.target.boxes, whole)
        assert sample.target.original_size == (56, 44)


@pytest.mark.parametrize(
    ("supervision", "changes", "message"),
    [
        (Supervision.BOXES_ONLY, {}, "no boxes, it cannot serve as 'boxes only'"),
        (Supervision.WHOLE_IMAGES, {"mosaic": SIDE}, "mosaic=none"),
        (Supervision.IMAGE_LABELS, {"classes": [-1] * 4}, "no label of the detector's classes"),
    ],
)
def test_impossible_combinations_are_refused(tiny_set, photos, supervision, changes, message):
    with pytest.raises(ValueError, match=message):
        extra(photos, supervision, **changes)
    with pytest.raises(ValueError, match="no label of the detector's classes"):
        extra(photos.without_labels(), Supervision.IMAGE_LABELS)
    with pytest.raises(ValueError, match="has boxes, it cannot serve as 'captions'"):
        DetectionTrainingSet(tiny_set, AS_IT_IS, supervision=Supervision.CAPTIONS)


def test_fingerprints_tell_what_an_item_depends_on(tiny_set, photos):
    sets = [
        DetectionTrainingSet(tiny_set, AUGMENTED),
        DetectionTrainingSet(tiny_set, AS_IT_IS),
        DetectionTrainingSet(tiny_set, AS_IT_IS, supervision=Supervision.BOXES_ONLY),
        DetectionTrainingSet(tiny_set, AS_IT_IS, classes=[3, 2, 1, 0]),
        DetectionTrainingSet(tiny_set.select([0, 1]), AS_IT_IS),
        extra(photos, Supervision.IMAGE_LABELS),
        extra(photos, Supervision.CAPTIONS),
        extra(photos, Supervision.IMAGE_LABELS, mosaic=SIDE),
        extra(photos, Supervision.IMAGE_LABELS, mosaic=MosaicConfig(side=30)),
        extra(photos.select([0, 1]), Supervision.IMAGE_LABELS),
        extra(photos, Supervision.UNLABELLED),
    ]
    assert len({dataset.fingerprint for dataset in sets}) == len(sets)
    assert DetectionTrainingSet(tiny_set, AUGMENTED).fingerprint == sets[0].fingerprint


# --- classes -----------------------------------------------------------------------------------


def test_classes_are_matched_by_name_then_cleaned_name_then_synonym():
    target = (
        Category(id=1, name="bow_(weapon)"),
        Category(id=2, name="bow_(decorative_ribbons)"),
        Category(id=3, name="hot_dog", synonyms=("frank", "bow")),
        Category(id=4, name="car_(automobile)", synonyms=("auto",)),
        Category(id=5, name="truck", synonyms=("auto",)),
    )
    names = ("bow_(weapon)", "Bow", "Hot Dog", "Car", "Frank", "auto", "zebra")
    source = [Category(id=i, name=name) for i, name in enumerate(names)]
    # "bow" means two classes by name, so it must not become a hot dog by synonym; "auto" likewise.
    assert samples.match_classes(source, target) == [0, -1, 2, 3, 2, -1, -1]
    assert samples.match_classes(target, target) == [0, 1, 2, 3, 4]


# --- batches -----------------------------------------------------------------------------------


def sample(height, width):
    return Sample(target=target_at(size=(height, width)), image=torch.ones(3, height, width))


def test_images_are_padded_bottom_right_with_zeros_unless_they_have_one_size():
    sizes = [(10, 20), (15, 9)]
    batch = collate([sample(*size) for size in sizes], Supervision.DETECTION, pad_multiple=8)
    expected = torch.ones(2, 16, 24, dtype=torch.bool)
    for padding, (height, width) in zip(expected, sizes, strict=True):
        padding[:height, :width] = False
    assert torch.equal(batch.padding, expected)
    assert torch.equal(batch.images, (~expected)[:, None].expand(2, 3, 16, 24).float())
    assert [target.size for target in batch.targets] == sizes and len(batch) == 2
    batch = collate([sample(16, 24)] * 3, Supervision.CAPTIONS, pad_multiple=8)
    assert batch.images.shape == (3, 3, 16, 24) and batch.padding is None
    assert batch.supervision is Supervision.CAPTIONS
    batch = collate([sample(16, 20)], Supervision.CAPTIONS, pad_multiple=8)
    assert batch.images.shape == (1, 3, 16, 24) and batch.padding.sum() == 4 * 16


@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_dropping_from_samples_is_dropping_from_annotations(tiny_set, fraction):
    reduced = drop_annotations(tiny_set, fraction, seed=1)
    whole = DetectionTrainingSet(tiny_set, AUGMENTED)
    dropped = samples.ReducedTrainingSet(whole, tiny_set, reduced)
    direct = DetectionTrainingSet(reduced, AUGMENTED)
    assert dropped.fingerprint not in (whole.fingerprint, direct.fingerprint)
    for key in product(range(len(tiny_set)), range(6)):
        exactly(content(dropped[key]), content(direct[key]))
