"""The supplement's table of data sets: the real sets, their embedded stand-ins, where they lie.

One row serves both: the stand-in and the real set share a key, a format and a reader, so that a
notebook goes from one to the other by its data root alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from richsem.data.box_sets import BoxDataset
from richsem.data.categories import Category
from richsem.data.image_sets import ImageSet, read_captions, read_image_labels, read_image_list
from richsem.data.reading import DataError

Role = Literal["detection", "pre-training", "boxes", "image labels", "captions", "unlabelled"]


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place where a set may lie, below a data root; "{split}" stands for the split."""

    annotations: str  # file
    images: str  # folder


class DatasetSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of the table."""

    key: str  # what code calls the set
    name: str  # the real set
    stand_in: str  # the rendered set in its place
    role: Role  # what the method uses it for
    supervision: str  # what the method gets to see
    reference_images: int | None = None  # training images of the real set, where published
    reference_categories: int | None = None  # likewise
    stand_in_layout: Layout  # in the folder of the rendered benchmark
    real_layouts: tuple[Layout, ...]  # in the data root of the real sets, tried in this order
    splits: tuple[str, ...] = ()  # of both together; empty for a set that has only one part
    protocol: Literal["lvis", "coco", ""] = ""  # how detections are judged; "" for extra data
    source: str  # where the real set comes from
    licence: str  # of its annotations


_FILE = Path(__file__).with_name("catalog.json")
CATALOG = msgspec.json.decode(_FILE.read_bytes(), type=tuple[DatasetSpec, ...])
BOX_KEYS = tuple(spec.key for spec in CATALOG if spec.splits)
IMAGE_KEYS = tuple(spec.key for spec in CATALOG if not spec.splits)


def dataset_spec(key: str) -> DatasetSpec:
    """Return the row of the table; for another key a ValueError lists those that there are."""
    rows = {spec.key: spec for spec in CATALOG}
    if key not in rows:
        raise ValueError(f"unknown data set {key!r}, expected one of {', '.join(rows)}")
    return rows[key]


def is_rendered(root: Path | str) -> bool:
    """Tell whether a data root holds the rendered stand-ins (they come with a manifest)."""
    return (Path(root) / "manifest.json").is_file()


def open_boxes(key: str, split: str, *, root: Path | str) -> BoxDataset:
    """Open a set with boxes (one of `BOX_KEYS`); "o365_box" comes without its labels.

    Splits are "train", "val", and for LVIS also "dev" (rendered) or any released name ("minival").
    The root is the folder of the rendered benchmark, or the data root of the real sets.
    """
    spec = dataset_spec(key)
    if not spec.splits:
        raise ValueError(f"{key!r} has no boxes, expected one of {', '.join(BOX_KEYS)}")
    annotations, images = locate(spec, root, split)
    dataset = BoxDataset.load(annotations, images, name=f"{name_below(spec, root)} {split}")
    return dataset.without_labels() if key == "o365_box" else dataset


def open_images(key: str, *, root: Path | str, categories: Sequence[Category] = ()) -> ImageSet:
    """Open a set of images without boxes (one of `IMAGE_KEYS`), below a root as for `open_boxes`.

    For "cc3m", `categories` are the classes to look for in the captions.
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
    counts and frequencies need no images. Without an annotation file a `DataError` lists the splits
    that have one, or else the paths tried.
    """
    root = Path(root)
    layouts = (spec.stand_in_layout,) if is_rendered(root) else spec.real_layouts

    def places(part: str) -> list[tuple[Path, Path]]:
        forms = ((layout.annotations, layout.images) for layout in layouts)
        return [(root / a.format(split=part), root / i.format(split=part)) for a, i in forms]

    present = [place for place in places(split) if place[0].is_file()]
    if not present:
        others = [one for one in spec.splits if any(file.is_file() for file, _ in places(one))]
        if others and split not in spec.splits:
            found = f"there are {', '.join(others)}"
            raise DataError(f"{spec.name} below {root} has no split {split!r}; {found}")
        tried = ", ".join(str(annotations) for annotations, _ in places(split))
        wanted = f"{spec.name} {split}".strip()
        raise DataError(
            f"{wanted} is not under {root}. Set the data root to the rendered benchmark or to the "
            f"real sets, laid out as one of: {tried}. {spec.name} is at {spec.source}, "
            f"licence: {spec.licence}."
        )
    return next((place for place in present if place[1].is_dir()), present[0])


def name_below(spec: DatasetSpec, root: Path | str) -> str:
    """What a set is called below a root: its own name, or its stand-in's."""
    return spec.stand_in if is_rendered(root) else spec.name
