"""How coarse a coarse box is: the box of a whole image or tile against the objects inside it.

Extra images come without boxes, so this is measured where the objects are known: on images of a
detection set, and on the drawn portraits, whose drawing can be repeated up to the object's place.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchvision.ops import box_iou
from torchvision.transforms.v2.functional import pil_to_tensor

from richsem import kept
from richsem.config import from_params
from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import MiniLvisConfig
from richsem.data.corrupt import jitter_boxes, uniform_draws
from richsem.data.image_sets import ImageSet
from richsem.data.reading import DataError
from richsem.data.transforms import NUM_TILES, MosaicConfig, Picture, Transform, mosaic
from richsem.minilvis import plans
from richsem.minilvis.scenes import portrait_box

_PORTRAIT_PLANS = {"imagenet_lvis": plans.plan_portraits, "imagenet_unl": plans.plan_unlabelled}


@dataclass(frozen=True, kw_only=True)
class KnownObjects:
    """Images whose objects are known, although a detector would be given coarse boxes only.

    Attributes:
        images: Where the images come from.
        rows: Their positions in `images` [n].
        boxes_xyxy: Per image the true boxes in pixels [k, 4].
    """

    images: ImageSet | BoxDataset
    rows: np.ndarray
    boxes_xyxy: tuple[np.ndarray, ...]

    def picture(self, i: int) -> Picture:
        """Image `i` of `rows` with the box of the whole image first and its objects after it.

        The labels are the positions of the boxes, so that each can be found again after an
        augmentation that drops some.
        """
        image = pil_to_tensor(self.images.image(int(self.rows[i])))
        height, width = image.shape[-2:]
        boxes = np.concatenate([[(0, 0, width, height)], self.boxes_xyxy[i]])
        return Picture(
            image=image,
            boxes_xyxy=torch.from_numpy(boxes).float(),
            labels=torch.arange(len(boxes)),
        )


def known_portraits(images: ImageSet, max_images: int, *, seed: int = 0) -> KnownObjects:
    """Some of the drawn object-centric images with the box of the one object of each.

    Raises:
        DataError: The set was not drawn by this version of the code; its objects are not known.
    """
    rows = _some(len(images), max_images, seed)
    return KnownObjects(images=images, rows=rows, boxes_xyxy=tuple(_portrait_boxes(images, rows)))


def known_scenes(dataset: BoxDataset, max_images: int, *, seed: int = 0) -> KnownObjects:
    """Some images of a detection set with their annotated boxes; images without a box are left out.

    Raises:
        DataError: No image has a box.
    """
    shown = np.flatnonzero(np.diff(dataset.offsets))
    if not len(shown):
        raise DataError(f"{dataset!r} has no boxes. Nothing to compare whole images with.")
    rows = shown[_some(len(shown), max_images, seed)]
    boxes = tuple(dataset.boxes_of(int(row))[0] for row in rows)
    return KnownObjects(images=dataset, rows=rows, boxes_xyxy=boxes)


def objects_are_known(images: ImageSet) -> bool:
    """Whether `known_portraits` works for this set."""
    root = images.path.parent.parent
    today = root.name.endswith(kept.key(trace=("pictures",))[:8])
    drawn = today and (root / "manifest.json").is_file()
    return drawn and images.image_root.name in _PORTRAIT_PLANS


def coarseness(
    known: KnownObjects,
    *,
    transform: Transform | None = None,
    mosaic_config: MosaicConfig | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the coarse box of each image with each object inside it.

    Args:
        known: Images with their true boxes.
        transform: Augmentation of each image; none leaves it whole.
        mosaic_config: Lays each image with three others on a canvas; none leaves it alone.
        seed: Seed of augmentation and mosaics.

    Returns:
        A line per object: `iou` of the coarse box with what is visible of the object (0 if a crop
        or the edge of the canvas has taken all of it), `coarse_side` and `object_side`, the square
        roots of both areas relative to the image that the detector sees.
    """
    rng = torch.Generator().manual_seed(seed)
    tiles = [known.picture(i) for i in range(len(known.rows))]
    if transform is not None:
        tiles = [transform(tile, rng) for tile in tiles]
    frames = []
    for i, tile in enumerate(tiles):
        seen = tile
        if mosaic_config is not None:
            others = [tiles[(i + step) % len(tiles)] for step in range(1, NUM_TILES)]
            seen = mosaic([tile, *others], mosaic_config, rng)
        boxes = torch.zeros(1 + len(known.boxes_xyxy[i]), 4)
        boxes[tile.labels] = seen.boxes_xyxy[: len(tile.labels)]
        frames.append(_compared(boxes, seen.size))
    return pd.concat(frames, ignore_index=True)


def noise_ious(
    dataset: BoxDataset, scales: Sequence[float], *, seed: int = 0, max_boxes: int = 2000
) -> pd.DataFrame:
    """How well boxes shifted at each noise scale of Figure 1 still fit: the yardstick.

    Returns:
        Columns `scale` and `iou`, the median IoU of shifted and true boxes.
    """
    rows = _some(len(dataset.labels), max_boxes, seed)
    boxes, sizes = dataset.boxes_xyxy[rows], dataset.image_sizes[dataset.box_image[rows]]
    draws = uniform_draws(len(rows), seed)
    medians = []
    for scale in scales:
        moved = jitter_boxes(boxes, scale, sizes, draws)
        pairs = box_iou(torch.from_numpy(moved), torch.from_numpy(boxes)).diagonal()
        medians.append(float(np.median(pairs.numpy())))
    return pd.DataFrame({"scale": scales, "iou": medians})


def _compared(boxes: torch.Tensor, size: tuple[int, int]) -> pd.DataFrame:
    """The first box against the others, in an image of this height and width."""
    height, width = size
    extents = boxes[:, 2:] - boxes[:, :2]
    sides = (extents.prod(dim=1) / (height * width)).sqrt().numpy()
    return pd.DataFrame(
        {
            "iou": box_iou(boxes[:1], boxes[1:])[0].numpy(),
            "coarse_side": sides[0],
            "object_side": sides[1:],
        }
    )


def _some(number: int, max_number: int, seed: int) -> np.ndarray:
    """At most so many of the numbers from 0, in random order."""
    return np.random.default_rng(seed).permutation(number)[:max_number]


def _portrait_boxes(images: ImageSet, rows: np.ndarray) -> list[np.ndarray]:
    if not objects_are_known(images):
        raise DataError(
            f"{images!r} was not drawn by this version of the code, where its objects are is not "
            "known. Use images of a set with boxes (known_scenes)."
        )
    manifest = json.loads((images.path.parent.parent / "manifest.json").read_bytes())
    config = from_params(MiniLvisConfig, manifest["config"])
    folder = images.image_root.name
    specs = _PORTRAIT_PLANS[folder](config)
    boxes = []
    for row in rows:
        index = int(Path(images.file_names[row]).stem) - 1
        spec, rng = specs[index], plans.stream(config, folder, index)
        side = config.portrait_size
        box = portrait_box(spec.things[0], size=side, scene=spec.scene, rng=rng)
        boxes.append(box[None])
    return boxes
