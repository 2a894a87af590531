"""Detection sets in LVIS (v0.5, v1) or COCO JSON, held as flat arrays.

One reader serves the embedded benchmark and the real sets. In a federated file (LVIS) a class is
judged on an image only if it is annotated there or listed as absent; those lists are kept. Boxes
are (x1, y1, x2, y2) in absolute pixels, origin at the top left corner.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from richsem.data.categories import FREQUENCIES, Category, parse_categories
from richsem.data.reading import (
    LIST,
    NUMBER,
    DataError,
    DataWarning,
    FolderIndex,
    Record,
    column,
    describe,
    first_few,
    index_of,
    int_column,
    open_rgb,
    read_json,
    record_list,
    unique_ids,
)

RARE_MAX_IMAGES, COMMON_MAX_IMAGES = 10, 100  # LVIS: rare <= 10 < common <= 100 < frequent

# Annotators' coordinates are rounded: an overhang below one pixel is not worth a word.
ROUNDING_PIXELS = 1.0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BoxDataset:
    """Images with labelled boxes.

    Attributes:
        categories: sorted by id; `labels` are positions in this tuple.
        image_ids: [N], in file order.
        image_sizes: [N, 2], (height, width) in pixels.
        file_names: per image, relative to `image_root`.
        on_disk: [N], whether the image file was there when the set was opened.
        boxes_xyxy: [A, 4], grouped by image.
        labels: [A].
        box_image: [A], position of the box's image.
        annotation_ids: [A], ids of the file.
        neg_category_ids: per image, category ids known to be absent; empty if not federated.
        not_exhaustive_category_ids: per image, category ids of which some boxes may be missing.
        num_crowd: crowd regions left out of the boxes.
        fingerprint: first 16 hex digits of the SHA-256 of the file (and of the selection).
    """

    name: str
    path: Path
    image_root: Path
    categories: tuple[Category, ...]
    image_ids: np.ndarray
    image_sizes: np.ndarray
    file_names: tuple[str, ...]
    on_disk: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    box_image: np.ndarray
    annotation_ids: np.ndarray
    neg_category_ids: tuple[tuple[int, ...], ...]
    not_exhaustive_category_ids: tuple[tuple[int, ...], ...]
    is_federated: bool
    num_crowd: int
    fingerprint: str

    @classmethod
    def load(
        cls, json_path: Path | str, image_root: Path | str, name: str | None = None
    ) -> BoxDataset:
        """Read and check an annotation file.

        Boxes of zero or negative size, with NaN or outside their image are dropped, boxes reaching
        beyond it are clipped; one `DataWarning` counts both. The images themselves are opened
        only by `image`.

        Args:
            json_path: LVIS or COCO JSON.
            image_root: folder with the images. For each image the last two parts of `coco_url`,
                then `file_name`, then the 12-digit image id are tried below it.
            name: how to call the set; the stem of the file name by default.

        Raises:
            DataError: anything else that is wrong, naming file, record and remedy.
        """
        path, root = Path(json_path), Path(image_root)
        payload, fingerprint = read_json(path, skip="segmentation")
        images = record_list(payload, "images", path)
        annotations = record_list(payload, "annotations", path)
        categories = parse_categories(record_list(payload, "categories", path), path)
        if not images or not categories:
            empty = "categories" if images else "images"
            raise DataError(f'{path}: "{empty}" is empty. Nothing to load; check the file.')
        category_ids = np.array([category.id for category in categories])
        per_image = _image_fields(images, root, category_ids, path)
        ids, sizes = per_image["image_ids"], per_image["image_sizes"]
        return cls(
            name=name or path.stem,
            path=path,
            image_root=root,
            categories=categories,
            fingerprint=fingerprint,
            **per_image,
            **_box_fields(annotations, ids, sizes, category_ids, path),
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    def __repr__(self) -> str:
        """Show name and sizes, not the arrays."""
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
        """Open image `i` as RGB.

        Raises:
            DataError: missing, unreadable, or not of the size the annotations were made for.
        """
        path = self.image_root / self.file_names[i]
        picture = open_rgb(path, f"image id {self.image_ids[i]} in {self.path.name}")
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

    def missing_images(self) -> tuple[str, ...]:
        """Name the image files that were not on disk when the set was opened."""
        return tuple(self.file_names[i] for i in np.flatnonzero(~self.on_disk))

    def subset_with_images(self) -> BoxDataset:
        """Restrict the set to images on disk; a `DataWarning` counts and names what is left out.

        Raises:
            DataError: no image is on disk.
        """
        missing = self.missing_images()
        if not missing:
            return self
        message = (
            f"{self.path}: {len(missing)} of {len(self)} images are not under {self.image_root} "
            f"({first_few(missing, 3)})"
        )
        if len(missing) == len(self):
            raise DataError(f"{message}. Pass the folder that holds these files as image_root.")
        warnings.warn(f"{message}; the set is restricted to the rest.", DataWarning, stacklevel=2)
        return self.select(np.flatnonzero(self.on_disk))

    def select(self, indices: Sequence[int] | np.ndarray) -> BoxDataset:
        """Return the set restricted to the images at these positions, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        rows = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in chosen]
        kept = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        counts = [len(row) for row in rows]
        digest = hashlib.sha256(self.fingerprint.encode() + chosen.tobytes())
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            image_sizes=self.image_sizes[chosen],
            file_names=tuple(self.file_names[i] for i in chosen),
            on_disk=self.on_disk[chosen],
            boxes_xyxy=self.boxes_xyxy[kept],
            labels=self.labels[kept],
            box_image=np.repeat(np.arange(len(chosen)), counts),
            annotation_ids=self.annotation_ids[kept],
            neg_category_ids=tuple(self.neg_category_ids[i] for i in chosen),
            not_exhaustive_category_ids=tuple(self.not_exhaustive_category_ids[i] for i in chosen),
            fingerprint=digest.hexdigest()[:16],
        )

    def without_labels(self) -> BoxDataset:
        """Return the same boxes with a single category "object": where, but not what."""
        return replace(
            self,
            categories=(Category(id=1, name="object"),),
            labels=np.zeros_like(self.labels),
            neg_category_ids=((),) * len(self),
            not_exhaustive_category_ids=((),) * len(self),
            is_federated=False,
        )


def _image_fields(images: list[Record], root: Path, category_ids: np.ndarray, path: Path) -> dict:
    ids = unique_ids(images, f"{path}: images")
    sizes = _image_sizes(images, path)
    file_names, on_disk = _resolve(images, root, path)
    return {
        "image_ids": ids,
        "image_sizes": sizes,
        "file_names": file_names,
        "on_disk": on_disk,
        **_federated_fields(images, category_ids, path),
    }


def _image_sizes(images: list[Record], path: Path) -> np.ndarray:
    where = f"{path}: images"
    sizes = [int_column(images, side, where) for side in ("height", "width")]
    sizes = np.stack(sizes, axis=1)
    empty = np.flatnonzero((sizes <= 0).any(axis=1))
    if len(empty):
        height, width = sizes[empty[0]]
        raise DataError(
            f"{describe(images, empty[0], where)}: width {width} and height {height} must be "
            "positive. Correct the record."
        )
    return sizes.astype(np.int32)


def _resolve(images: list[Record], root: Path, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Choose for each image the first of its possible names that is on disk."""
    folder = FolderIndex(root)
    names, on_disk = [], np.zeros(len(images), dtype=bool)
    for row, record in enumerate(images):
        candidates = _possible_names(record, describe(images, row, f"{path}: images"))
        found = next((name for name in candidates if name in folder), None)
        names.append(candidates[0] if found is None else found)
        on_disk[row] = found is not None
    return tuple(names), on_disk


def _possible_names(record: Record, where: str) -> list[str]:
    # LVIS v1 val mixes train2017 and val2017, and only coco_url tells which one.
    url, file_name = record.get("coco_url", ""), record.get("file_name", "")
    if not (isinstance(url, str) and isinstance(file_name, str)) or not (url or file_name):
        raise DataError(
            f'{where}: needs the field "file_name" or "coco_url" as text. Add one of them.'
        )
    names = ["/".join(url.split("/")[-2:])] if url else []
    names += [file_name.replace("\\", "/")] if file_name else []
    return [*names, f"{record['id']:012d}.jpg"]


def _federated_fields(images: list[Record], category_ids: np.ndarray, path: Path) -> dict:
    fields = ("neg_category_ids", "not_exhaustive_category_ids")
    is_federated = any(field in record for record in images for field in fields)
    if not is_federated:
        lists = {field: ((),) * len(images) for field in fields}
    else:
        lists = {field: _id_lists(images, field, category_ids, path) for field in fields}
    return {**lists, "is_federated": is_federated}


def _id_lists(
    images: list[Record], field: str, category_ids: np.ndarray, path: Path
) -> tuple[tuple[int, ...], ...]:
    where = f"{path}: images"
    lists = column(images, field, LIST, where)
    known = set(category_ids.tolist())
    for row, values in enumerate(lists):
        unknown = [value for value in values if type(value) is not int or value not in known]
        if unknown:
            raise DataError(
                f'{describe(images, row, where)}: field "{field}" names unknown category '
                f"{unknown[0]!r}. Use ids of the file's own categories."
            )
    return tuple(map(tuple, lists))


def _box_fields(
    annotations: list[Record],
    image_ids: np.ndarray,
    sizes: np.ndarray,
    category_ids: np.ndarray,
    path: Path,
) -> dict:
    """Turn annotation records into arrays sorted by image; drop and clip as `load` says."""
    where = f"{path}: annotations"
    ids = unique_ids(annotations, where)
    box_image = _references(annotations, "image_id", image_ids, "image", where)
    labels = _references(annotations, "category_id", category_ids, "category", where)
    xywh = _xywh(annotations, where)
    crowd = np.array([record.get("iscrowd", 0) == 1 for record in annotations], dtype=bool)
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
    annotations: list[Record], field: str, known: np.ndarray, noun: str, where: str
) -> np.ndarray:
    keys = int_column(annotations, field, where)
    places = index_of(known, keys)
    unknown = np.flatnonzero(places < 0)
    if len(unknown):
        row = unknown[0]
        raise DataError(
            f"{describe(annotations, row, where)}: unknown {noun} {keys[row]}; {len(unknown)} "
            f"annotations name a {noun} that the file does not list. Add it or leave them out."
        )
    return places


def _xywh(annotations: list[Record], where: str) -> np.ndarray:
    rows = column(annotations, "bbox", LIST, where)
    if set(map(len, rows)) <= {4} and set(map(type, chain.from_iterable(rows))) <= NUMBER:
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.float64, count=4 * len(rows))
        return flat.reshape(-1, 4)
    valid = (len(box) == 4 and set(map(type, box)) <= NUMBER for box in rows)
    row = next(row for row, is_box in enumerate(valid) if not is_box)
    raise DataError(
        f'{describe(annotations, row, where)}: field "bbox" is {rows[row]!r}, expected four '
        "numbers [x, y, width, height]. Correct the record."
    )


def clip_to_images(
    boxes_xywh: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clip boxes to their images.

    Args:
        boxes_xywh: [A, 4] in pixels.
        sizes: [A, 2], (height, width) of each box's image.

    Returns:
        Clipped boxes (xyxy, [A, 4]); whether each is usable (finite, of positive size, touching
        its image), [A]; whether more than rounding was cut off, [A].
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
