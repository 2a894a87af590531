"""Detection sets in LVIS (v0.5, v1) or COCO JSON, held as flat arrays.

One reader serves the embedded benchmark and the real sets, training and evaluation. In a federated
file (LVIS) a class is judged on an image only if it is annotated there or listed as absent; those
lists are kept. Boxes are in absolute pixels, origin at the top left corner.
"""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
import numpy as np
from PIL import Image

from richsem import foreign
from richsem.data import pictures, reading
from richsem.data.categories import Category, frequency_groups, sorted_by_id
from richsem.data.reading import DataError, DataWarning, Id, Integer, RecordError, first_few

ROUNDING_PIXELS = 1.0  # coordinates are rounded: an overhang below this is not worth a word
THIN = "thinner than a pixel"
FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")

Side = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]  # 0 counts as absent


class _ImageRecord(msgspec.Struct, gc=False, omit_defaults=True):
    id: Id
    height: Side | None = None
    width: Side | None = None
    file_name: Any = None  # what is no text counts as absent
    coco_url: Any = None
    neg_category_ids: tuple[Integer, ...] | None = None
    not_exhaustive_category_ids: tuple[Integer, ...] | None = None


class _BoxRecord(msgspec.Struct, gc=False):
    id: Id
    image_id: Id
    category_id: Integer
    bbox: reading.Box
    area: float | None = None
    iscrowd: Literal[0, 1, "0", "1", None] | bool = 0
    attributes: Any = None  # of CVAT, with the "rotation" of a box in degrees


class _AnnotationFile(msgspec.Struct, kw_only=True):
    images: list[_ImageRecord]
    annotations: list[_BoxRecord]
    categories: list[Category]


RECORDS = {"images": _ImageRecord, "annotations": _BoxRecord, "categories": Category}


class _BareFile(_AnnotationFile):
    annotations: list[_BoxRecord] = []


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Annotations:
    """What an annotation file says, checked: N images, A boxes, C categories.

    Training and pictures (`BoxDataset`) and the judges (`richsem.evaluation`) start from here, so
    what one of them takes, the other takes.
    """

    path: Path
    content: str  # hash of the file
    categories: tuple[Category, ...]  # sorted by id
    images: Sequence[_ImageRecord]  # N
    image_ids: np.ndarray  # [N], int64, or text where the file names its images
    is_federated: bool
    # [A] each, in the order of the file
    ids: np.ndarray
    box_image: np.ndarray  # position of the image
    labels: np.ndarray  # position of the category
    boxes_xywh: np.ndarray  # [A, 4], float64, as annotated
    areas: np.ndarray  # as annotated; width x height where the file has none
    crowd: np.ndarray
    turned: np.ndarray  # whether a rotation is stated, which nobody applies

    def rows_of(self, image_ids: Collection[Any] | None) -> np.ndarray:
        """Positions of some images, or of all, in the order of their ids."""
        if image_ids is None:
            return np.argsort(self.image_ids)
        wanted = np.unique(reading.as_ids(image_ids))
        rows = reading.index_of(self.image_ids, wanted)
        unknown = wanted[rows < 0]
        if len(unknown):
            raise DataError(
                f"{self.path}: image_ids name {len(unknown)} images that the file does not list "
                f"({first_few(unknown)}). Evaluate against the file the images come from."
            )
        return rows

    def lists(self, field: str) -> tuple[tuple[int, ...], ...]:
        """One of the `FEDERATED` lists of each image; all empty if the file is not federated."""
        if not self.is_federated:
            return ((),) * len(self.images)
        where, ids = f"{self.path}: images", reading.numbers(self.categories, "id")
        reading.require(self.images, field, where)
        lists = tuple(getattr(image, field) for image in self.images)
        what = f'field "{field}" names unknown category'
        keys, lengths = [*chain.from_iterable(lists)], [*map(len, lists)]
        reading.positions(keys, ids, what, self.images, where, lengths)  # all are known
        return lists

    def oddities(self) -> Iterator[str]:
        """In words, what boxes seem to be that are read as upright ones in pixels."""
        sizes = np.array([(one.height or 0, one.width or 0) for one in self.images])
        if other := foreign.box_format(self.boxes_xywh, sizes[self.box_image]):
            yield f"{self.path}: {other}. Write them so."
        if turned := self.ids[self.turned].tolist():
            yield (
                f"{self.path}: {len(turned)} boxes have a rotation in their attributes (annotation "
                f"ids {first_few(turned)}) and are read as upright ones. Export them as polygons."
            )

    def frequency_groups(self) -> np.ndarray:
        """Return "r", "c" or "f" per category, [C], as `BoxDataset.frequency_groups` does."""
        plain = ~self.crowd
        counts = images_of_classes(self.box_image[plain], self.labels[plain], len(self.categories))
        return frequency_groups(self.categories, counts)


def read_annotations(source: Path | str | Mapping[str, Any], *, bare: bool = False) -> Annotations:
    """Read and check an annotation file, or content in memory.

    What is optional may be absent or null. A file is federated if its images list classes that
    are absent and classes that are not exhaustively annotated; one of both lists does not make it
    so. `iscrowd` is 1, true or "1" for crowd regions. With `bare` a file may also have no list of
    annotations, as those of test splits that a server judges.
    """
    kind = _BareFile if bare else _AnnotationFile
    if isinstance(source, Mapping):
        path, content = Path("annotations in memory"), ""
        file = reading.convert(dict(source), kind, str(path))
    else:
        path = Path(source)
        file, content = reading.read(path, kind)
    for key in ("images", "categories"):
        reading.refuse_empty(getattr(file, key), f'{path}: "{key}"')
    categories = sorted_by_id(file.categories, path)
    image_ids = reading.unique_ids(file.images, f"{path}: images")
    boxes, where = file.annotations, f"{path}: annotations"
    of_images, of_labels = [box.image_id for box in boxes], [box.category_id for box in boxes]
    category_ids = reading.numbers(categories, "id")
    flat = chain.from_iterable(box.bbox for box in boxes)
    xywh = np.fromiter(flat, np.float64, 4 * len(boxes)).reshape(-1, 4)
    areas = np.array([box.area for box in boxes], dtype=np.float64)  # absent is NaN
    with np.errstate(all="ignore"):
        areas = np.where(np.isnan(areas), xywh[:, 2] * xywh[:, 3], areas)
    return Annotations(
        path=path,
        content=content,
        categories=categories,
        images=file.images,
        image_ids=image_ids,
        is_federated=all(
            any(getattr(image, field) is not None for image in file.images) for field in FEDERATED
        ),
        ids=reading.unique_ids(boxes, where),
        box_image=reading.positions(of_images, image_ids, "unknown image", boxes, where),
        labels=reading.positions(of_labels, category_ids, "unknown category", boxes, where),
        boxes_xywh=xywh,
        areas=areas,
        crowd=np.array([box.iscrowd in (1, "1") for box in boxes], dtype=bool),
        turned=np.array([foreign.is_turned(box.attributes) for box in boxes], dtype=bool),
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BoxDataset(pictures.PictureSet):
    """Images with labelled boxes: N images, A boxes, C categories."""

    categories: tuple[Category, ...]  # sorted by id; `labels` are positions in this tuple
    image_ids: np.ndarray  # [N], in file order; int64, or text where the file names its images
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
    file_images: int = 0  # images of the file, of which the set may have some; 0 where nobody knows

    @classmethod
    def load(
        cls, json_path: Path | str, image_root: Path | str, name: str | None = None
    ) -> "BoxDataset":
        """Read and check an annotation file.

        Boxes of zero or negative size, with NaN or outside their image are dropped, boxes reaching
        beyond it are clipped, thin ones stay; one `DataWarning` counts all. The images themselves
        are opened only by `image`. For each, the last two parts of `coco_url`, then `file_name`,
        then the 12-digit image id are tried below `image_root`. The set is called as its file by
        default.
        """
        return cls.of(read_annotations(json_path), Path(image_root), name)

    @classmethod
    def of(cls, file: Annotations, root: Path, name: str | None = None) -> "BoxDataset":
        """The same for annotations that were read before."""
        where = f"{file.path}: images"
        for side in ("height", "width"):
            reading.require(file.images, side, where)
        sides = [reading.numbers(file.images, side) for side in ("height", "width")]
        sizes = np.stack(sides, axis=1).astype(np.int32)
        names, limits = picture_names(file, root), sizes[file.box_image]
        lists = {field: file.lists(field) for field in FEDERATED}
        for message in file.oddities():
            warnings.warn(message, DataWarning, stacklevel=3)
        boxes, usable, clipped = clip_to_images(file.boxes_xywh, limits)
        plain = ~file.crowd
        faults = {
            "dropped (no positive size, NaN or outside the image; annotation ids": ~usable & plain,
            "clipped to their image (annotation ids": usable & clipped & plain,
            f"{THIN}, kept (annotation ids": usable & is_thin(boxes) & plain,
        }
        pairs = [(what, file.ids[rows]) for what, rows in faults.items() if rows.any()]
        if told := [f"{len(ids)} boxes {what} {first_few(ids)})" for what, ids in pairs]:
            message = (
                f"{file.path}: {'; '.join(told)}. Correct the file if this is not intended; "
                "evaluation counts boxes as its protocol does."
            )
            warnings.warn(message, DataWarning, stacklevel=3)
        kept = np.flatnonzero(usable & plain)
        kept = kept[np.argsort(file.box_image[kept], kind="stable")]
        return cls(
            name=name or file.path.stem,
            path=file.path,
            image_root=root,
            file_names=names,
            content=file.content,
            categories=file.categories,
            image_ids=file.image_ids,
            image_sizes=sizes,
            boxes_xyxy=boxes[kept].astype(np.float32),
            labels=file.labels[kept],
            box_image=file.box_image[kept],
            annotation_ids=file.ids[kept],
            is_federated=file.is_federated,
            num_crowd=int(file.crowd.sum()),
            file_images=len(names),
            **lists,
        )

    def __repr__(self) -> str:
        return (
            f"BoxDataset({self.name!r}: {len(self):,} images, {len(self.labels):,} boxes, "
            f"{len(self.categories):,} categories)"
        )

    @property
    def is_part(self) -> bool:
        """Whether images of the file were left out, by choice or because they are not on disk."""
        return len(self) < self.file_images

    @cached_property
    def offsets(self) -> np.ndarray:
        """Start of each image's boxes, [N + 1]."""
        return np.searchsorted(self.box_image, np.arange(len(self) + 1))

    def boxes_of(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (xyxy, [n, 4]) and labels [n] of image `i`."""
        rows = slice(self.offsets[i], self.offsets[i + 1])
        return self.boxes_xyxy[rows], self.labels[rows]

    def image(self, i: int) -> Image.Image:
        """Open image `i` as RGB; it must have the size the annotations were made for.

        A picture with an EXIF orientation is turned upright, unless its record has the size of the
        pixels as they are stored. Where that may be wrong (they have this size, too), a
        `DataWarning` says so.
        """
        path = self.image_root / self.file_names[i]
        height, width = (int(side) for side in self.image_sizes[i])
        owner = f"image of image id {self.image_ids[i]} in {self.path.name}"
        picture, is_doubtful = pictures.open_fitting(path, owner, (width, height))
        if is_doubtful:
            message = (  # the same for every picture, so that Python shows it once
                f"{self.path}: pictures have an EXIF orientation, and sizes that fit their pixels "
                "as stored (`data check` counts them). They are turned upright, as viewers show "
                "them, where that fits as well. Look at some: if boxes lie wrong, save the "
                "pictures without the tag."
            )
            warnings.warn(message, DataWarning, stacklevel=2)
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
        return images_of_classes(self.box_image, self.labels, len(self.categories))

    def frequency_groups(self) -> np.ndarray:
        """Return "r", "c" or "f" per category, [C]: the file's own groups, or by its counts."""
        return frequency_groups(self.categories, self.image_counts())

    def select(self, indices: Sequence[int] | np.ndarray) -> "BoxDataset":
        """Return the set restricted to the images at these positions, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        rows = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in chosen]
        kept = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        counts = [len(row) for row in rows]
        return self.changed(
            chosen,
            image_ids=self.image_ids[chosen],
            image_sizes=self.image_sizes[chosen],
            file_names=tuple(self.file_names[i] for i in chosen),
            **self.boxes_at(kept) | {"box_image": np.repeat(np.arange(len(chosen)), counts)},
            neg_category_ids=tuple(self.neg_category_ids[i] for i in chosen),
            not_exhaustive_category_ids=tuple(self.not_exhaustive_category_ids[i] for i in chosen),
        )

    def boxes_at(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of some of the boxes."""
        columns = ("boxes_xyxy", "labels", "box_image", "annotation_ids")
        return {column: getattr(self, column)[rows] for column in columns}

    def changed(self, mark: np.ndarray, **fields: Any) -> "BoxDataset":
        """Return the set with other fields; the `mark` tells it from sets changed otherwise."""
        digest = hashlib.sha256(self.content.encode() + mark.tobytes()).hexdigest()[:16]
        return replace(self, content=digest, **fields)

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


def picture_names(file: Annotations, root: Path) -> tuple[str, ...]:
    """For each image the first of its possible names that is on disk, or the first of all.

    A file that several images would do with is only theirs whose first name it is.
    """
    find, names = pictures.on_disk(root), [*map(_possible_names, file.images)]
    if rows := [row for row, candidates in enumerate(names) if not candidates]:
        where, words = f"{file.path}: images", 'needs the field "file_name" or "coco_url" as text'
        raise RecordError("nameless", where, file.images, rows, words, "Add one of them.")
    found = [next(filter(None, map(find, candidates)), candidates[0]) for candidates in names]
    meant = Counter(at for at, _ in {(at, own[0]) for at, own in zip(found, names, strict=True)})
    # What lies there can be one of them at most: boxes of the others would be on a wrong picture.
    if rows := [n for n, at in enumerate(found) if at != names[n][0] and meant[at] > 1]:
        few = first_few(f"{names[n][0]}, not {found[n]}" for n in rows[:3])
        warnings.warn(
            f"{file.path}: {len(rows)} images count as missing, since the file that would do is "
            f"another's as well ({few}). Keep pictures of one name in their folders.",
            DataWarning,
            stacklevel=3,
        )
        for n in rows:
            found[n] = names[n][0]
    return tuple(found)


def _possible_names(record: _ImageRecord) -> list[str]:
    url, name = (own if isinstance(own, str) else "" for own in (record.coco_url, record.file_name))
    # LVIS v1 val mixes train2017 and val2017, and only coco_url tells which one.
    names = ["/".join(url.split("/")[-2:])] if url else []
    names += [name := name.replace("\\", "/")] if name else []
    for place in (url, name):
        # A path of or to another place, or an address with a query.
        if re.match(r"(\.\.)?/|\w+:/", place):
            # Label Studio names a file of a disk by "/data/local-files/?d=FOLDER%2FNAME".
            asked = f"/{unquote(place.rpartition('?d=')[2])}".replace("\\", "/")
            for steps in map(re.compile("/+").split, (place, place.partition("?")[0], asked)):
                names += ["/".join(steps[k:]) for k in range(1, len(steps))]
    names += [unquote(own) for own in names if "%" in own]
    return [*names, f"{record.id:0>12}.jpg"] if names else []


def images_of_classes(box_image: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Number of images that show each class [C], of boxes by position of image and class [A]."""
    pairs = np.unique(box_image * classes + labels)  # of image and class
    return np.bincount(pairs % classes, minlength=classes)


def clip_to_images(
    boxes_xywh: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clip boxes [A, 4] in pixels to their images of (height, width) [A, 2].

    Returns the clipped boxes as xyxy, whether each is usable (finite, of positive size, touching
    its image) and whether more than rounding was cut off, both [A].
    """
    with np.errstate(invalid="ignore", over="ignore"):
        corners = boxes_xywh.copy()
        corners[:, 2:] += boxes_xywh[:, :2]
        inside = np.clip(corners, 0, sizes[:, [1, 0, 1, 0]])
        positive = (boxes_xywh[:, 2] > 0) & (boxes_xywh[:, 3] > 0)
        visible = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
        clipped = (np.abs(corners - inside) >= ROUNDING_PIXELS).any(axis=1)
    usable = np.isfinite(boxes_xywh).all(axis=1) & positive & visible
    return inside, usable, clipped


def is_thin(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Whether boxes [A, 4] in pixels are less than one wide or high, but for rounding."""
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2] < 0.999).any(axis=1)
