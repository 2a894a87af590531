"""Extra data without boxes: images with labels, with captions, or with nothing at all.

These are the sets that the detector learns from as coarse boxes (the whole image, or its tile of
a mosaic): INet-LVIS, INet-Unl and CC3M.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise, product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from richsem import kept
from richsem.data import pictures, reading
from richsem.data.box_sets import BoxDataset
from richsem.data.categories import Category, clean_name, sorted_by_id
from richsem.data.reading import Id, Integer

TOKEN = re.compile(r"\w+|[^\w\s]")


class _LabelledRecord(msgspec.Struct):
    id: Id
    file_name: str
    height: Integer
    width: Integer
    pos_category_ids: tuple[Integer, ...]


class _LabelledFile(msgspec.Struct):
    images: list[_LabelledRecord]
    categories: list[Category]


class _CaptionRecord(msgspec.Struct):
    caption: str
    image: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageSet(pictures.PictureSet):
    """Images with image-level supervision."""

    categories: tuple[Category, ...] = ()  # what the labels index; empty for a set without labels
    labels: tuple[tuple[int, ...], ...] = ()  # per image, positions in `categories`
    captions: tuple[str, ...] = ()  # per image, or empty for a set without captions
    image_sizes: np.ndarray | None = None  # [N, 2], (height, width) in pixels, if the file tells

    def __repr__(self) -> str:
        labelled = sum(map(bool, self.labels))
        return f"ImageSet({self.name!r}: {len(self):,} images, {labelled:,} with labels)"

    def image(self, i: int) -> Image.Image:
        """Open image `i` as RGB; a `DataError` names a missing or unreadable file."""
        owner = f"image of record {i} of {self.path.name}"
        return pictures.open_rgb(self.image_root / self.file_names[i], owner)

    def image_counts(self) -> np.ndarray:
        """Count the images that carry each label, [C]."""
        flat = [label for labels in self.labels for label in labels]
        return np.bincount(np.array(flat, dtype=np.int64), minlength=len(self.categories))

    def select(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """Return the set restricted to the images at these positions, in this order."""
        sizes, names = self.image_sizes, self.file_names
        flat = isinstance(names, pictures.ArchivedNames)
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            file_names=names[chosen] if flat else tuple(names[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices) if self.labels else (),
            captions=tuple(self.captions[i] for i in indices) if self.captions else (),
            image_sizes=None if sizes is None else sizes[chosen],
        )

    def without_labels(self) -> "ImageSet":
        """Return the bare images: no labels, no captions."""
        return replace(self, categories=(), labels=((),) * len(self), captions=())


def forget_boxes(dataset: BoxDataset) -> "ImageSet":
    """The images of a detection set with the classes of their boxes as labels, without the boxes.

    What the annotation of a set is worth can so be compared on the same images, and any LVIS or
    COCO file can play the part of INet-LVIS.
    """
    labels = (np.unique(dataset.boxes_of(i)[1]).tolist() for i in range(len(dataset)))
    return ImageSet(
        name=f"{dataset.name}, boxes forgotten",
        path=dataset.path,
        image_root=dataset.image_root,
        file_names=dataset.file_names,
        categories=dataset.categories,
        labels=tuple(map(tuple, labels)),
        image_sizes=dataset.image_sizes,
        content=dataset.content,
    )


def recaptioned(images: ImageSet, captions: Sequence[str]) -> "ImageSet":
    """The same images with other captions, and the labels that these name."""
    if len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images")
    labels = caption_labels(captions, images.categories)
    return replace(images, captions=tuple(captions), labels=labels)


def read_image_labels(json_path: Path | str, image_root: Path | str) -> ImageSet:
    """Read images with `pos_category_ids` and a list of categories (INet-LVIS)."""
    path, where = Path(json_path), f"{json_path}: images"
    file, content = reading.read(path, _LabelledFile)
    images, categories = file.images, sorted_by_id(file.categories, path)
    reading.refuse_empty(images, where)
    reading.refuse_empty(categories, f"{path}: categories")
    reading.unique_ids(images, where)
    named = [record.pos_category_ids for record in images]
    ids = reading.numbers(categories, "id")
    what = 'field "pos_category_ids" names unknown category'
    keys, lengths = [*chain.from_iterable(named)], [*map(len, named)]
    flat = reading.positions(keys, ids, what, images, where, lengths).tolist()
    ends = pairwise(accumulate(lengths, initial=0))
    sizes = [reading.numbers(images, side) for side in ("height", "width")]
    return ImageSet(
        **_origin(path, image_root, content),
        file_names=tuple(record.file_name for record in images),
        categories=categories,
        labels=tuple(tuple(flat[start:end]) for start, end in ends),
        image_sizes=np.stack(sizes, axis=1).astype(np.int32),
    )


def read_image_list(json_path: Path | str, image_root: Path | str) -> ImageSet:
    """Read a list of [relative path, integer] pairs (INet-Unl); the integer is not used."""
    path = Path(json_path)
    if path.suffix == ".npz":
        return _read_archived(path, image_root)
    pairs, content = reading.read(path, list[tuple[str, int]], entry="[relative path, number]")
    reading.refuse_empty(pairs, str(path))
    names = tuple(name for name, _ in pairs)
    return ImageSet(
        **_origin(path, image_root, content), file_names=names, labels=((),) * len(pairs)
    )


def _read_archived(path: Path, image_root: Path | str) -> ImageSet:
    """The same for pictures that stay in tar files, from columns of `ArchivedNames`."""
    try:
        with path.open("rb") as file, np.load(file) as columns:
            names = pictures.ArchivedNames(**columns)
    except Exception as error:  # cut and altered files fail in many ways
        raise reading.DataError(f"{path} is damaged ({error}). Prepare the set anew.") from error
    reading.refuse_empty(names, str(path))
    origin = _origin(path, image_root, kept.digest(path))
    return ImageSet(**origin, file_names=names, labels=((),) * len(names))


def read_captions(
    json_path: Path | str, image_root: Path | str, categories: Sequence[Category] = ()
) -> ImageSet:
    """Read a list of {caption, image} (CC3M) and label each image by the names in its caption.

    Classes are looked for as `caption_labels` says; without any, no image has labels.
    """
    path = Path(json_path)
    records, content = reading.read(path, list[_CaptionRecord])
    reading.refuse_empty(records, str(path))
    names = pictures.flat_names([record.image for record in records])
    origin = _origin(path, image_root, content)
    images = ImageSet(**origin, file_names=names, categories=tuple(categories))
    return recaptioned(images, [record.caption for record in records])


def _origin(path: Path, image_root: Path | str, content: str) -> dict[str, Any]:
    """Where a set comes from: its file with the hash of it, and the folder of its images."""
    return {"name": path.stem, "path": path, "image_root": Path(image_root), "content": content}


def caption_labels(
    captions: Sequence[str], categories: Sequence[Category]
) -> tuple[tuple[int, ...], ...]:
    """The positions of the classes that each caption names, sorted.

    A class is found if its name or a synonym occurs in the caption as whole words, compared
    without case, with "_" read as a space and anything from "(" on left out; a plural in -s or
    -es counts. Overlapping names all count, as in plain substring search: "hot dog" is also a dog.
    A name shared by several classes stands for all of them.
    """
    named: dict[tuple[str, ...], set[int]] = {}  # phrase -> classes
    for label, category in enumerate(categories):
        for name in {category.name, *category.synonyms}:
            words = TOKEN.findall(clean_name(name))
            for ending in ("", "s", "es") if words else ():
                named.setdefault((*words[:-1], words[-1] + ending), set()).add(label)
    lengths, labels = {len(phrase) for phrase in named}, []
    for caption in captions:
        words = TOKEN.findall(caption.lower().replace("_", " "))
        found: set[int] = set()
        for start, length in product(range(len(words)), lengths):
            found |= named.get(tuple(words[start : start + length]), set())
        labels.append(tuple(sorted(found)))
    return tuple(labels)
