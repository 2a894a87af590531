"""Pictures with boxes, ready to be drawn: annotations, detections, and what training is told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from richsem.data.box_sets import BoxDataset
from richsem.data.transforms import Picture


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture, or a part of it, with boxes that refer to the whole picture."""

    image: Image.Image | np.ndarray  # [H, W, 3]
    boxes_xyxy: np.ndarray | Sequence = ()  # in pixels [n, 4]
    names: Sequence[str] = ()  # n names, "" for none
    kinds: Sequence[str] = ()  # how each is drawn, see `drawing.LOOKS`
    arrows_xyxy: np.ndarray | Sequence = ()  # boxes that an arrow points at [k, 4]
    title: str = ""  # above the picture
    note: str = ""  # below it
    origin: tuple[int, int] = (0, 0)  # left upper corner (x, y) of the part


def of_groups(
    image: Image.Image,
    boxes_xyxy: np.ndarray,
    names: Sequence[str],
    groups: Sequence,
    title: str = "",
) -> Panel:
    """Boxes with names on a picture, those of frequency group "r" as rare ones."""
    kinds = ["rare" if group == "r" else "other" for group in groups]
    return Panel(image=image, boxes_xyxy=boxes_xyxy, names=names, kinds=kinds, title=title)


def of_classes(
    dataset: BoxDataset, image: int, boxes_xyxy: np.ndarray, labels: np.ndarray, title: str = ""
) -> Panel:
    """Boxes of classes of a data set on one of its images."""
    names = [dataset.categories[label].name for label in labels]
    groups = dataset.frequency_groups()[labels]
    return of_groups(dataset.image(image), boxes_xyxy, names, groups, title)


def annotated(dataset: BoxDataset, image: int, title: str = "") -> Panel:
    """An image of a data set with its boxes."""
    return of_classes(dataset, image, *dataset.boxes_of(image), title)


def enlarged(panel: Panel, picture: Image.Image) -> Panel:
    """The same on a larger copy of the whole picture, with boxes and arrows in its pixels."""
    zoom = picture.width / np.asarray(panel.image).shape[1]
    places = {
        name: zoom * np.reshape(getattr(panel, name), (-1, 4))
        for name in ("boxes_xyxy", "arrows_xyxy")
    }
    return replace(panel, image=picture, **places)


def of_target(picture: Picture, names: Sequence[str], **words: str) -> Panel:
    """A target whose labels are positions in `names`, with "?" for an unknown class."""
    called = ["?" if label < 0 else names[label] for label in picture.labels.tolist()]
    return told(picture.image.permute(1, 2, 0), picture.boxes_xyxy, called, **words)


def of_known(picture: Picture, **words: str) -> Panel:
    """Coarse boxes (label 0) and the objects that are known to be in them (all others)."""
    coarse = picture.labels == 0
    boxes, objects = (picture.boxes_xyxy[rows] for rows in (coarse, ~coarse))
    return told(picture.image.permute(1, 2, 0), boxes, [""] * len(boxes), objects, **words)


def told(
    image: np.ndarray,
    boxes_xyxy: np.ndarray,  # what a detector is told, or finds [n, 4]
    names: Sequence[str],
    objects_xyxy: np.ndarray | Sequence = (),  # what it does not know [k, 4]
    **words: str,
) -> Panel:
    """Boxes with names over objects without; arrays or tensors, in pixels."""
    boxes = [np.asarray(some).reshape(-1, 4) for some in (objects_xyxy, boxes_xyxy)]
    kinds = ["object"] * len(boxes[0]) + ["target"] * len(boxes[1])
    names = [""] * len(boxes[0]) + list(names)
    return Panel(
        image=np.asarray(image), boxes_xyxy=np.concatenate(boxes), names=names, kinds=kinds, **words
    )
