"""Detection sets in LVIS (v0.5, v1) or COCO JSON, held as flat arrays.

One reader serves the embedded benchmark and the real sets. In a federated file (LVIS) a class is
judged on an image only if it is annotated there or listed as absent; those lists are kept. Boxes
are (x1, y1, x2, y2) in absolute pixels, origin at the top left corner.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from PIL import Image

from richsem.data import reading
from richsem.data.categories import FREQUENCIES, Category, sorted_by_id
from richsem.data.reading import DataError, DataWarning, Integer, first_few

RARE_MAX_IMAGES, COMMON_MAX_IMAGES = 10, 100  # LVIS: rare <= 10 < common <= 100 < frequent

ROUNDING_PIXELS = 1.0  # coordinates are rounded: an overhang below this is not worth a word

Side = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class _ImageRecord(msgspec.Struct, gc=False):
    id: Integer
    height: Side
    width: Side
    file_name: str = ""
    coco_url: str = ""
    neg_category_ids: tuple[Integer, ...] | msgspec.UnsetType = msgspec.UNSET
    not_exhaustive_category_ids: tuple[Integer, ...] | msgspec.UnsetType = msgspec.UNSET


class _BoxRecord(msgspec.Struct, gc=False):
    id: Integer
    image_id: Integer
    category_id: Integer
    bbox: reading.Box
    iscrowd: Any = 0


class _AnnotationFile(msgspec.Struct):
    images: list[_ImageRecord]
    annotations: list[_BoxRecord]
    categories: list[Category]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BoxDataset(reading.PictureSet):
    """Images with labelled boxes: N images, A boxes, C categories."""

    categories: tuple[Category, ...]  # sorted by id; `labels` are positions in this tuple
    image_ids: np.ndarray  # [N], in file order
    image_sizes: np.ndarray  # [N, 2], (height, width) in pixels
    boxes_xyxy: np.ndarray  # [A, 4], grouped by image
    labels: np.ndarray  # [A]
    box_image: np.ndarray  # [A], position of the box's image
    annotation_ids: np.ndarray  # [A], ids of the file
    # Per image, categories known to be absent, and those of which some boxes may be missing; both
    # empty if the set is not federated.
    neg_category_ids: tuple[tuple[int, ...], ...]
    not_exhaustive_category_ids: tuple[tuple[int, ...], ...]
    is_federated: bool
    num_crowd: int  # crowd regions left out of the boxes

    @classmethod
    def load(
        cls, json_path: Path | str, image_root: Path | str, name: str | None = None
    ) -> "BoxDataset":
        """Read and check an annotation file.

        Boxes of zero or negative size, with NaN or outside their image are dropped, boxes reaching
        beyond it are clipped; one `DataWarning` counts both. The images themselves are opened
        only by `image`. For each, the last two parts of `coco_url`, then `file_name`, then the
        12-digit image id are tried below `image_root`. The set is called as its file by default.
        """
        path, root = Path(json_path), Path(image_root)
        file, content = reading.read(path, _AnnotationFile)
        for key in ("images", "categories"):
            reading.refuse_empty(getattr(file, key), f'{path}: "{key}"')
        categories = sorted_by_id(file.categories, path)
        category_ids = reading.numbers(categories, "id")
        image_ids = reading.unique_ids(file.images, f"{path}: images")
        sides = [reading.numbers(file.images, side) for side in ("height", "width")]
        sizes = np.stack(sides, axis=1).astype(np.int32)
        return cls(
            name=name or path.stem,
            path=path,
            image_root=root,
            categories=categories,
            content=content,
            image_ids=image_ids,
            image_sizes=sizes,
            file_names=_resolve(file.images, root, path),
            **_federated_fields(file.images, category_ids, path),
            **_box_fields(file.annotations, image_ids, sizes, category_ids, path),
        )

    def __repr__(self) -> str:
        return (
            f"BoxDataset({self.name!r}: {len(self):,} images, {len(self.labels):,} boxes, "
            f"{len(self.categories):,} categories)"
        )

    @cached_property
    def offsets(self) -> np.ndarray:
        """Start of each image's boxes, [N + 1]."""
        return np.searchsorted(self.box_image, np.arange(len(self) + 1))

    def boxes_of(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (xyxy, [n, 4]) and labels [n] of image `i`."""
        rows = slice(self.offsets[i], self.offsets[i + 1])
        return self.boxes_xyxy[rows], self.labels[rows]

    def image(self, i: int) -> Image.Image:
        """Open image `i` as RGB; it must have the size the annotations were made for."""
        path = self.image_root / self.file_names[i]
        picture = reading.open_rgb(path, f"image id {self.image_ids[i]} in {self.path.name}")
        height, width = (int(side) for side in self.image_sizes[i])
        if picture.size != (width, height):
            raise DataError(
                f"{path}: image id {self.image_ids[i]} is {picture.width} x {picture.height} "
                f"pixels, {self.path} says {width} x {height}. Its boxes would be misplaced; use "
                "the images the annotations were made for."
            )
        return picture

    def instance_counts(self) -> np.ndarray:
        """Count the boxes of each category, [C], from the annotations (not the file's claim)."""
        return np.bincount(self.labels, minlength=len(self.categories))

    def image_counts(self) -> np.ndarray:
        """Count the images that show each category, [C], from the annotations."""
        pairs = np.sort(self.box_image * len(self.categories) + self.labels)
        first = np.diff(pairs, prepend=-1) > 0  # one entry per (image, category)
        return np.bincount(pairs[first] % len(self.categories), minlength=len(self.categories))

    def frequency_groups(self) -> np.ndarray:
        """Return "r", "c" or "f" per category, [C].

        The file's own groups where it has them (LVIS: counts of the training split); otherwise
        the LVIS thresholds applied to the image counts of this file.
        """
        groups = np.array([category.frequency for category in self.categories])
        if (groups != "").all():
            return groups
        band = np.digitize(self.image_counts(), (RARE_MAX_IMAGES + 1, COMMON_MAX_IMAGES + 1))
        return np.array(FREQUENCIES)[band]

    def select(self, indices: Sequence[int] | np.ndarray) -> "BoxDataset":
        """Return the set restricted to the images at these positions, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        rows = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in chosen]
        kept = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        counts = [len(row) for row in rows]
        digest = hashlib.sha256(self.content.encode() + chosen.tobytes())
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            image_sizes=self.image_sizes[chosen],
            file_names=tuple(self.file_names[i] for i in chosen),
            boxes_xyxy=self.boxes_xyxy[kept],
            labels=self.labels[kept],
            box_image=np.repeat(np.arange(len(chosen)), counts),
            annotation_ids=self.annotation_ids[kept],
            neg_category_ids=tuple(self.neg_category_ids[i] for i in chosen),
            not_exhaustive_category_ids=tuple(self.not_exhaustive_category_ids[i] for i in chosen),
            content=digest.hexdigest()[:16],
        )

    def without_labels(self) -> "BoxDataset":
        """Return the same boxes with a single category "object": where, but not what."""
        return replace(
            self,
            categories=(Category(id=1, name="object"),),
            labels=np.zeros_like(self.labels),
            neg_category_ids=((),) * len(self),
            not_exhaustive_category_ids=((),) * len(self),
            is_federated=False,
        )


def _resolve(images: list[_ImageRecord], root: Path, path: Path) -> tuple[str, ...]:
    """Choose for each image the first of its possible names that is on disk."""
    folder = reading.FolderIndex(root)
    names = []
    for row, record in enumerate(images):
        candidates = _possible_names(record)
        if not candidates:
            raise DataError(
                f'{path}: images[{row}] (id {record.id}): needs the field "file_name" or '
                '"coco_url" as text. Add one of them.'
            )
        names.append(next((name for name in candidates if name in folder), candidates[0]))
    return tuple(names)


def _possible_names(record: _ImageRecord) -> list[str]:
    # LVIS v1 val mixes train2017 and val2017, and only coco_url tells which one.
    names = ["/".join(record.coco_url.split("/")[-2:])] if record.coco_url else []
    names += [record.file_name.replace("\\", "/")] if record.file_name else []
    return [*names, f"{record.id:012d}.jpg"] if names else []


def _federated_fields(
    images: list[_ImageRecord], category_ids: np.ndarray, path: Path
) -> dict[str, Any]:
    lists = {
        field: tuple(getattr(record, field) for record in images)
        for field in ("neg_category_ids", "not_exhaustive_category_ids")
    }
    if all(own is msgspec.UNSET for both in lists.values() for own in both):
        return dict.fromkeys(lists, ((),) * len(images)) | {"is_federated": False}
    for field, own in lists.items():
        reading.require(images, field, f"{path}: images")
        reading.positions(own, category_ids, field, images, f"{path}: images")  # all are known
    return {**lists, "is_federated": True}


def _box_fields(
    annotations: list[_BoxRecord],
    image_ids: np.ndarray,
    sizes: np.ndarray,
    category_ids: np.ndarray,
    path: Path,
) -> dict[str, Any]:
    """Turn annotation records into arrays sorted by image; drop and clip as `load` says."""
    where = f"{path}: annotations"
    ids = reading.unique_ids(annotations, where)
    box_image = _references(annotations, "image_id", image_ids, "image", where)
    labels = _references(annotations, "category_id", category_ids, "category", where)
    flat = chain.from_iterable(record.bbox for record in annotations)
    xywh = np.fromiter(flat, np.float64, 4 * len(annotations)).reshape(-1, 4)
    crowd = np.fromiter((record.iscrowd == 1 for record in annotations), bool, len(annotations))
    boxes, usable, clipped = clip_to_images(xywh, sizes[box_image])
    _warn_about_boxes(ids[~usable & ~crowd], ids[usable & clipped & ~crowd], path)
    kept = np.flatnonzero(usable & ~crowd)
    kept = kept[np.argsort(box_image[kept], kind="stable")]
    return {
        "boxes_xyxy": boxes[kept].astype(np.float32),
        "labels": labels[kept],
        "box_image": box_image[kept],
        "annotation_ids": ids[kept],
        "num_crowd": int(crowd.sum()),
    }


def _references(
    annotations: list[_BoxRecord], field: str, known: np.ndarray, noun: str, where: str
) -> np.ndarray:
    keys = reading.numbers(annotations, field)
    places = reading.index_of(known, keys)
    unknown = np.flatnonzero(places < 0)
    if len(unknown):
        row = unknown[0]
        raise DataError(
            f"{where}[{row}] (id {annotations[row].id}): unknown {noun} {keys[row]}; "
            f"{len(unknown)} annotations name a {noun} that the file does not list. Add it or "
            "leave them out."
        )
    return places


def clip_to_images(
    boxes_xywh: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clip boxes [A, 4] in pixels to their images of (height, width) [A, 2].

    Returns the clipped boxes as xyxy, whether each is usable (finite, of positive size, touching
    its image) and whether more than rounding was cut off, both [A].
    """
    with np.errstate(invalid="ignore"):
        corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
        limits = np.tile(sizes[:, ::-1], 2)
        inside = np.clip(corners, 0, limits)
        positive = (boxes_xywh[:, 2:] > 0).all(axis=1)
        visible = (inside[:, 2:] > inside[:, :2]).all(axis=1)
        clipped = (np.abs(corners - inside) >= ROUNDING_PIXELS).any(axis=1)
    usable = np.isfinite(boxes_xywh).all(axis=1) & positive & visible
    return inside, usable, clipped


def _warn_about_boxes(dropped: np.ndarray, clipped: np.ndarray, path: Path) -> None:
    parts = []
    if len(dropped):
        parts.append(
            f"{len(dropped)} boxes dropped (no positive size, NaN or outside the image; "
            f"annotation ids {first_few(dropped)})"
        )
    if len(clipped):
        parts.append(
            f"{len(clipped)} boxes clipped to their image (annotation ids {first_few(clipped)})"
        )
    if parts:
        message = f"{path}: {'; '.join(parts)}. Correct the file if this is not intended."
        warnings.warn(message, DataWarning, stacklevel=4)
