"""The supplement's table of data sets: the real sets, their embedded stand-ins, where they lie.

One row serves both: the stand-in and the real set share a key, a format and a reader, so that a
notebook goes from one to the other by its data root alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from richsem.data.box_sets import BoxDataset
from richsem.data.categories import Category
from richsem.data.image_sets import ImageSet, read_captions, read_image_labels, read_image_list
from richsem.data.reading import DataError

Role = Literal["detection", "pre-training", "boxes", "image labels", "captions", "unlabelled"]

ON_DISK, NOT_ON_DISK = "on disk", "not on disk"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One place where a set may lie: annotation file and image folder below the data root."""

    annotations: str
    images: str


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One row of the table.

    Attributes:
        key: what code calls the set.
        name: the real set.
        stand_in: the rendered set in its place.
        role: what the method uses it for.
        supervision: what the method gets to see.
        reference_images: training images of the real set as published; None where not stated.
        reference_categories: likewise.
        used_in: experiments of the paper.
        stand_in_layout: in the folder of the rendered benchmark; "{split}" stands for the split.
        real_layouts: in the data root of the real sets, tried in this order.
        splits: of stand-in and real set together; empty for a set that has only one part.
        protocol: how detections on it are evaluated; "" for extra data.
        source: where the real set comes from.
        licence: of the real set's annotations.
    """

    key: str
    name: str
    stand_in: str
    role: Role
    supervision: str
    reference_images: int | None
    reference_categories: int | None
    used_in: str
    stand_in_layout: Layout
    real_layouts: tuple[Layout, ...]
    splits: tuple[str, ...] = ()
    protocol: Literal["lvis", "coco", ""] = ""
    source: str
    licence: str


def _layout(annotations: str, images: str) -> Layout:
    return Layout(annotations=annotations, images=images)


_O365_LAYOUTS = {
    "stand_in_layout": _layout("annotations/objects365_{split}.json", "images/objects365/{split}"),
    "real_layouts": (_layout("object365/objects365_{split}.json", "object365/{split}"),),
    "splits": ("train", "val"),
    "source": "https://www.objects365.org",
    "licence": "CC BY 4.0 (annotations)",
}

_CC3M_LAYOUTS = {
    "stand_in_layout": _layout("annotations/cc3m.json", "images/cc3m"),
    "real_layouts": (_layout("gcc/CC3M/cc3m_zip_json.json", "gcc/CC3M"),),
    "source": "https://ai.google.com/research/ConceptualCaptions",
    "licence": "free use with attribution (captions)",
}

CATALOG: tuple[DatasetSpec, ...] = (
    DatasetSpec(
        key="lvis",
        name="LVIS v1",
        stand_in="MiniLVIS",
        role="detection",
        supervision="boxes and labels, federated",
        reference_images=100_170,
        reference_categories=1203,
        used_in="all experiments",
        stand_in_layout=_layout("annotations/lvis_v1_{split}.json", "images/lvis"),
        # The images lie in train2017/ and val2017/ beside the JSON, or beside its folder.
        real_layouts=(
            _layout("lvis_v1_{split}.json", "."),
            _layout("annotations/lvis_v1_{split}.json", "."),
            _layout("lvis/lvis_v1_{split}.json", "lvis"),
            _layout("lvis/annotations/lvis_v1_{split}.json", "lvis"),
            _layout("coco/lvis_v1_{split}.json", "coco"),
            _layout("coco/annotations/lvis_v1_{split}.json", "coco"),
        ),
        splits=("train", "dev", "val"),
        protocol="lvis",
        source="https://www.lvisdataset.org",
        licence="CC BY 4.0 (annotations)",
    ),
    DatasetSpec(
        key="visual_genome",
        name="Visual Genome",
        stand_in="MiniVG",
        role="detection",
        supervision="boxes and labels",
        reference_images=None,
        reference_categories=1600,
        used_in="supplement Table 3, Figure 3",
        stand_in_layout=_layout(
            "annotations/visual_genome_{split}.json", "images/visual_genome/{split}"
        ),
        real_layouts=(
            _layout("visual_genome/annotations/visual_genome_{split}.json", "visual_genome/images"),
        ),
        splits=("train", "val"),
        protocol="coco",
        source="https://homes.cs.washington.edu/~ranjay/visualgenome",
        licence="CC BY 4.0",
    ),
    DatasetSpec(
        key="openimages",
        name="OpenImages (challenge 2019)",
        stand_in="MiniOpenImages",
        role="detection",
        supervision="boxes and labels",
        reference_images=None,
        reference_categories=500,
        used_in="supplement Table 3, Figure 3",
        stand_in_layout=_layout("annotations/openimages_{split}.json", "images/openimages/{split}"),
        real_layouts=(
            _layout("openimages/openimages_challenge_2019_{split}_bbox.json", "openimages/{split}"),
        ),
        splits=("train", "val"),
        protocol="coco",
        source="https://storage.googleapis.com/openimages/web/challenge2019.html",
        licence="CC BY 4.0 (annotations)",
    ),
    DatasetSpec(
        key="o365",
        name="Objects365",
        stand_in="MiniO365",
        role="pre-training",
        supervision="boxes and labels",
        reference_images=600_000,
        reference_categories=365,
        used_in="supplement Table 1",
        protocol="coco",
        **_O365_LAYOUTS,
    ),
    DatasetSpec(
        key="o365_box",
        name="Objects365, boxes only",
        stand_in="MiniO365, boxes only",
        role="boxes",
        supervision="boxes without labels",
        reference_images=600_000,
        reference_categories=None,
        used_in="extra data",
        **_O365_LAYOUTS,
    ),
    DatasetSpec(
        key="inet_lvis",
        name="INet-LVIS (ImageNet-21k)",
        stand_in="MiniINet-LVIS",
        role="image labels",
        supervision="one label per image",
        reference_images=1_000_000,
        reference_categories=997,
        used_in="extra data of the main results, supplement Table 4, Figure 2",
        stand_in_layout=_layout(
            "annotations/imagenet_lvis_image_info.json", "images/imagenet_lvis"
        ),
        real_layouts=(
            _layout("imagenet-lvis/imagenet_lvis_image_info.json", "imagenet-lvis/images"),
        ),
        source="https://www.image-net.org",
        licence="non-commercial research",
    ),
    DatasetSpec(
        key="inet_unl",
        name="INet-Unl (ImageNet-21k)",
        stand_in="MiniINet-Unl",
        role="unlabelled",
        supervision="images only",
        reference_images=14_000_000,
        reference_categories=None,
        used_in="extra data, supplement Table 3",
        stand_in_layout=_layout("annotations/imagenet_unl_images.json", "images/imagenet_unl"),
        real_layouts=(_layout("imagenet-21k/images.json", "imagenet-21k/unzip"),),
        source="https://www.image-net.org",
        licence="non-commercial research",
    ),
    DatasetSpec(
        key="cc3m",
        name="CC3M",
        stand_in="MiniCC3M",
        role="captions",
        supervision="one caption per image",
        reference_images=None,
        reference_categories=None,
        used_in="extra data",
        **_CC3M_LAYOUTS,
    ),
    DatasetSpec(
        key="cc_unl",
        name="CC-Unl (CC3M without captions)",
        stand_in="MiniCC-Unl",
        role="unlabelled",
        supervision="images only",
        reference_images=None,
        reference_categories=None,
        used_in="extra data",
        **_CC3M_LAYOUTS,
    ),
)

BOX_KEYS = tuple(spec.key for spec in CATALOG if spec.splits)
IMAGE_KEYS = tuple(spec.key for spec in CATALOG if not spec.splits)


def dataset_spec(key: str) -> DatasetSpec:
    """Return the row of the table.

    Raises:
        ValueError: no row has this key; the message lists the keys.
    """
    for spec in CATALOG:
        if spec.key == key:
            return spec
    keys = ", ".join(spec.key for spec in CATALOG)
    raise ValueError(f"unknown data set {key!r}, expected one of {keys}")


def is_rendered(root: Path | str) -> bool:
    """Tell whether a data root holds the rendered stand-ins (they come with a manifest)."""
    return (Path(root) / "manifest.json").is_file()


def open_boxes(key: str, split: str, *, root: Path | str) -> BoxDataset:
    """Open a set with boxes; "o365_box" comes without its labels.

    Args:
        key: one of `BOX_KEYS`.
        split: "train", "val", and for LVIS also "dev" (rendered) or any released name ("minival").
        root: folder of the rendered benchmark, or the data root of the real sets.

    Raises:
        ValueError: the key is unknown or names a set without boxes.
        DataError: nothing is there (the paths tried are listed), or the file is unusable.
    """
    spec = dataset_spec(key)
    if not spec.splits:
        raise ValueError(f"{key!r} has no boxes, expected one of {', '.join(BOX_KEYS)}")
    annotations, images = locate(spec, root, split)
    dataset = BoxDataset.load(annotations, images, name=f"{_name(spec, root)} {split}")
    return dataset.without_labels() if key == "o365_box" else dataset


def open_images(key: str, *, root: Path | str, categories: Sequence[Category] = ()) -> ImageSet:
    """Open a set of images without boxes.

    Args:
        key: one of `IMAGE_KEYS`.
        root: folder of the rendered benchmark, or the data root of the real sets.
        categories: for "cc3m", the classes to look for in the captions.

    Raises:
        ValueError: the key is unknown or names a set with boxes.
        DataError: nothing is there (the paths tried are listed), or the file is unusable.
    """
    spec = dataset_spec(key)
    if spec.splits:
        raise ValueError(f"{key!r} is a set of boxes, expected one of {', '.join(IMAGE_KEYS)}")
    annotations, images = locate(spec, root)
    if key == "inet_lvis":
        return read_image_labels(annotations, images)
    if key == "inet_unl":
        return read_image_list(annotations, images)
    captioned = read_captions(annotations, images, categories)
    return captioned.without_labels() if key == "cc_unl" else captioned


def locate(spec: DatasetSpec, root: Path | str, split: str = "") -> tuple[Path, Path]:
    """Find annotation file and image folder of a set below a data root.

    The first layout that is complete wins; a layout without its image folder will do, because
    counts and frequencies need no images.

    Raises:
        DataError: no annotation file; the message lists the paths tried.
    """
    root = Path(root)
    layouts = (spec.stand_in_layout,) if is_rendered(root) else spec.real_layouts
    places = [
        (root / layout.annotations.format(split=split), root / layout.images.format(split=split))
        for layout in layouts
    ]
    present = [place for place in places if place[0].is_file()]
    if not present:
        tried = "".join(f"\n  {annotations}" for annotations, _ in places)
        wanted = f"{spec.name} {split}".strip()
        raise DataError(
            f"{wanted} is not under {root}. Set the data root to the rendered benchmark or to the "
            f"real sets, laid out as one of:{tried}"
        )
    return next((place for place in present if place[1].is_dir()), present[0])


def summary_rows(root: Path | str, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure every set of the catalogue that is below the root: the data-set table.

    Numbers of images, categories and boxes are counted, not claimed; sets that are absent have
    None and the status "not on disk". Columns starting with `reference_` quote the real set.
    """
    specs = CATALOG if keys is None else [dataset_spec(key) for key in keys]
    return [_summary_row(spec, Path(root)) for spec in specs]


def _summary_row(spec: DatasetSpec, root: Path) -> dict[str, Any]:
    try:
        locate(spec, root, "train")
    except DataError:
        measured = dict.fromkeys(
            ("images", "categories", "boxes", "least_per_category", "most_per_category")
        )
        measured["status"] = NOT_ON_DISK
    else:
        measured = _measure(spec, root) | {"status": ON_DISK}
    return {
        "key": spec.key,
        "name": _name(spec, root),
        "stands_for": spec.name if is_rendered(root) else "",
        "role": spec.role,
        "supervision": spec.supervision,
        **measured,
        "used_in": spec.used_in,
        "reference_images": spec.reference_images,
        "reference_categories": spec.reference_categories,
    }


def _measure(spec: DatasetSpec, root: Path) -> dict[str, Any]:
    if spec.splits:
        dataset = open_boxes(spec.key, "train", root=root)
        counts, boxes = dataset.instance_counts(), len(dataset.labels)
    else:
        dataset = open_images(spec.key, root=root)
        counts, boxes = dataset.image_counts(), 0
    if spec.key == "o365_box":
        counts = np.zeros(0, dtype=np.int64)
    shown = counts[counts > 0]
    return {
        "images": len(dataset),
        "categories": len(shown),
        "boxes": boxes,
        "least_per_category": int(shown.min()) if len(shown) else None,
        "most_per_category": int(shown.max()) if len(shown) else None,
    }


def _name(spec: DatasetSpec, root: Path | str) -> str:
    return spec.stand_in if is_rendered(root) else spec.name
