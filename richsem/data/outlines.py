"""Outlines of annotated objects, read only where masks are learnt or judged.

They are most of an LVIS file. Not even then are they all taken apart: each stays the bytes of the
file until it is drawn.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from pycocotools import mask
from torch import Tensor

from richsem import masks
from richsem.data import reading
from richsem.data.box_sets import Annotations, BoxDataset
from richsem.data.reading import DataError, DataWarning, first_few

_TELLING = 1000  # outlines, spread over a file, that tell how all of them are written
_NONE = (b"null", b"[]", b"[[]]")  # how exporters write that there is no outline


class _OutlineRecord(msgspec.Struct, gc=False):
    id: reading.Id
    segmentation: msgspec.Raw = msgspec.Raw(_NONE[0])


class _OutlineFile(msgspec.Struct):
    annotations: list[_OutlineRecord]


class Outlines:
    """What an annotation file, or content in memory, says about masks."""

    def __init__(self, source: Path | str | Mapping[str, Any]) -> None:
        if isinstance(source, Mapping):
            self._name = "annotations in memory"
            file = msgspec.json.decode(msgspec.json.encode(source), type=_OutlineFile)
        else:
            self._name = str(source)
            file, _ = reading.read(Path(source), _OutlineFile, outlines=True)
        pairs = ((one.id, one.segmentation) for one in file.annotations)
        # Spaces and ends of lines do not count; 99 bytes tell.
        self._of = {o: text for o, text in pairs if b"".join(bytes(text)[:99].split()) not in _NONE}

    def require(self, dataset: BoxDataset) -> None:
        """Refuses a set of which a box has no outline; warns where outlines lie elsewhere."""
        lacking = [one for one in dataset.annotation_ids.tolist() if one not in self._of]
        if lacking:
            self._made(lacking[0], masks.run_lengths, ())
        if words := self.misplaced(dataset):
            warnings.warn(f"{self._name}: {words}.", DataWarning, stacklevel=2)

    def misplaced(self, dataset: BoxDataset) -> str:
        """In words, if outlines lie elsewhere than the boxes of a set; else empty."""
        ids = dataset.annotation_ids.tolist()
        rows = np.array([row for row, one in enumerate(ids) if one in self._of], dtype=np.int64)
        rows = rows[:: max(1, len(rows) // _TELLING)]
        sizes, boxes = dataset.image_sizes[dataset.box_image[rows]].tolist(), dataset.boxes_xyxy
        pairs = zip(rows, sizes, strict=True)
        runs = [self._made(ids[row], masks.run_lengths, size) for row, size in pairs]
        xywh = np.hstack([boxes[rows, :2], boxes[rows, 2:] - boxes[rows, :2]])
        return masks.misplaced(runs, xywh) if runs else ""

    def masks(self, dataset: BoxDataset, i: int) -> Tensor:
        """The masks of image `i` over its boxes [n, SIDE, SIDE], in the order of `boxes_of`."""
        rows = slice(dataset.offsets[i], dataset.offsets[i + 1])
        boxes, ids = torch.from_numpy(dataset.boxes_xyxy[rows]), dataset.annotation_ids[rows]
        size, drawn = dataset.image_sizes[i].tolist(), [torch.zeros(0, masks.SIDE, masks.SIDE)]
        for one, box in zip(ids.tolist(), boxes, strict=True):
            drawn.append(self._made(one, masks.drawn, box, size)[None])
        return torch.cat(drawn).bool()

    def run_lengths(self, file: Annotations, used: np.ndarray) -> np.ndarray | None:
        """Those of some annotations, as records; None, with a warning, if some have no outline."""
        ids = file.ids[used].tolist()
        if without := [one for one in ids if one not in self._of]:
            warnings.warn(
                f"{file.path}: masks are not judged, as {len(without)} of {len(ids)} annotations "
                f'have no "segmentation" (ids {first_few(without)}).',
                DataWarning,
                stacklevel=4,
            )
            return None
        images = [file.images[row] for row in file.box_image[used]]
        for side in ("height", "width"):
            reading.require(images, side, f"{file.path}: images")
        sizes = [(image.height, image.width) for image in images]
        pairs = zip(ids, sizes, strict=True)
        runs = np.array([self._made(one, masks.run_lengths, size) for one, size in pairs])
        if words := masks.misplaced(runs, file.boxes_xywh[used]):
            warnings.warn(f"{file.path}: {words}.", DataWarning, stacklevel=4)
        return runs

    def _made(self, one: int | str, make: Callable[..., Any], *place: Any) -> Any:
        """A mask of the annotation with this id; a `DataError` says what is wrong with it."""
        try:
            return make(msgspec.json.decode(self._of[one]), *place)
        except KeyError:
            problem = "is missing. Add it, or train without masks (detector.masks=null)"
        except (TypeError, ValueError) as error:
            problem = f"cannot be drawn: {error}"
        raise DataError(f'{self._name}: annotation id {one}: field "segmentation" {problem}.')


def around(record: Any) -> list[float] | None:
    """The box [x, y, width, height] around the outline of an annotation, if it has an area."""
    try:
        outline = msgspec.json.decode(record["segmentation"])
        if isinstance(outline, dict):
            box = mask.toBbox(masks.run_lengths(outline, outline["size"])).tolist()
            return box if min(box[2:]) > 0 else None
        points = np.concatenate([np.reshape(one, (-1, 2)) for one in outline]).astype(float)
        sides = np.ptp(points, axis=0).tolist()
        return [*points.min(axis=0).tolist(), *sides] if min(sides) > 0 else None
    # Absent, or nothing that could be drawn.
    except (KeyError, OverflowError, TypeError, ValueError):
        return None
