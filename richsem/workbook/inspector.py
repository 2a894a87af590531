"""Looking at one box through the teacher: what it sees and says, quickly enough for a slider."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import jitter_boxes, uniform_draws
from richsem.models.clip import FrozenClip, RegionMode, soft_labels


@dataclass(frozen=True, kw_only=True)
class View:
    """One box of one image under one noise draw.

    Attributes:
        image: The whole image.
        true_box: Annotated box, xyxy in pixels.
        moved_box: The box the teacher was given.
        true_name: Annotated class.
        names: Class names by falling probability.
        probabilities: The soft label in the same order.
    """

    image: Image.Image
    true_box: tuple[float, ...]
    moved_box: tuple[float, ...]
    true_name: str
    names: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def crop(self) -> Image.Image:
        """The pixels inside the moved box."""
        left, top, right, bottom = self.moved_box
        box = (int(left), int(top), max(int(right), int(left) + 1), max(int(bottom), int(top) + 1))
        return self.image.crop(box)


class RegionInspector:
    """Answers for single boxes of a data set; the trunk's map of the last image is kept."""

    def __init__(self, clip: FrozenClip, dataset: BoxDataset, names: Sequence[str]) -> None:
        """Takes one name per category, as it is put to the text tower."""
        self.clip, self.dataset, self.names = clip, dataset, tuple(names)
        self.text = clip.text_features(names)
        self._current: tuple[int, torch.Tensor, torch.Tensor, float] | None = None

    def view(
        self, image: int, box: int, *, scale: float = 0.0, seed: int = 0, mode: RegionMode = "roi"
    ) -> View:
        """What the teacher says about box number `box` of image number `image`, moved by noise."""
        boxes, labels = self.dataset.boxes_of(image)
        draws = uniform_draws(len(boxes), seed)[box : box + 1]
        size = self.dataset.image_sizes[image]
        moved = jitter_boxes(boxes[box : box + 1], scale, size, draws)
        pixels, trunk_map, map_scale = self._maps(image)
        given = torch.from_numpy(moved)
        if mode == "crop":
            features = self.clip.encode_crops(pixels, given)
        else:
            features = self.clip.pool_regions(trunk_map, given, map_scale)
        label = soft_labels(features, self.text, self.clip.scale)[0].cpu()
        order = label.argsort(descending=True)
        return View(
            image=self.dataset.image(image),
            true_box=tuple(map(float, boxes[box])),
            moved_box=tuple(map(float, moved[0])),
            true_name=self.names[labels[box]],
            names=tuple(self.names[i] for i in order.tolist()),
            probabilities=label[order].numpy(),
        )

    def _maps(self, image: int) -> tuple[torch.Tensor, torch.Tensor, float]:
        if self._current is None or self._current[0] != image:
            pixels = torch.from_numpy(np.array(self.dataset.image(image))).permute(2, 0, 1)
            pixels = pixels.to(self.clip.mean.device)
            self._current = (image, pixels, *self.clip.trunk_map(pixels))
        return self._current[1:]
