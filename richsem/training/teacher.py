"""The teacher beside a training run: soft labels for annotated boxes or for the student's."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from richsem.boxes import sides, to_xyxy
from richsem.losses.dino_criterion import TeacherBoxes
from richsem.models.clip import FrozenClip, RegionMode, soft_labels
from richsem.structures import Batch, DetectorOutput


@dataclass(eq=False)
class Teacher:
    """A frozen CLIP that says what is in each box of a batch (METHOD 1).

    In the `roi` mode its trunk sees the padded batch as the detector does, once, if there is any
    box to look at. Labels that are already there (cached ones) are kept.
    """

    clip: FrozenClip
    text: Tensor  # features F [C, D] of the detector's classes
    # `gt` looks at the annotated boxes; `pred` and `pred_all` at the boxes that enter the student's
    # last layer (the criterion takes those of matched queries, or all).
    boxes: TeacherBoxes = "gt"
    _: KW_ONLY
    mode: RegionMode = "roi"  # the paper's way, or `crop`
    zoom: float = 1.0  # enlargement of images for CLIP's trunk in the `roi` mode

    def __call__(self, batch: Batch) -> Batch:
        """The batch with soft labels [N, C] for its annotated boxes."""
        if all(target.soft_labels is not None for target in batch.targets):
            return batch
        labels = self._look(batch, [target.boxes for target in batch.targets])
        pairs = zip(batch.targets, labels, strict=True)
        targets = tuple(replace(target, soft_labels=rows) for target, rows in pairs)
        return replace(batch, targets=targets)

    def sees_as_it_is(self, batch: Batch) -> bool:
        """Whether the trunk is about to run once over these very images, all of them."""
        return (
            self.mode == "roi"
            and self.zoom == 1
            and batch.padding is None
            and not any(side % self.clip.tower.multiple for side in batch.images.shape[-2:])
            and any(len(target.boxes) for target in batch.targets)
            and all(target.soft_labels is None for target in batch.targets)
        )

    def label(self, batch: Batch, output: DetectorOutput) -> tuple[Batch, DetectorOutput]:
        """Batch and output, one of them with soft labels, whichever `boxes` says."""
        if self.boxes == "gt":
            return self(batch), output
        labels = self._look(batch, list(output.last_references))
        return batch, replace(output, query_soft_labels=torch.stack(labels))

    @torch.no_grad()
    def _look(self, batch: Batch, boxes: list[Tensor]) -> list[Tensor]:
        """Probabilities [n, C] for boxes cxcywh [n, 4] of each image."""
        if batch.images is None:
            raise ValueError(
                "the batch has features but neither images nor soft labels: cache the features "
                "together with the teacher's labels, or train from images"
            )
        device = batch.images.device
        clip, text = self.clip.to(device), self.text.to(device)
        labels = [text.new_zeros(0, len(text)) for _ in boxes]  # [0, C] for images without boxes
        rows = [row for row, own in enumerate(boxes) if len(own)]
        # Scaled before the corners are taken: kept soft labels rest on this rounding.
        scaled = (boxes[row] * sides(batch.targets[row].size, boxes[row]) for row in rows)
        pixels = [to_xyxy(own) for own in scaled]
        for row, features in zip(rows, self._features(clip, batch, rows, pixels), strict=True):
            labels[row] = soft_labels(features, text, clip.scale)
        return labels

    def _features(
        self, clip: FrozenClip, batch: Batch, rows: list[int], boxes_xyxy: list[Tensor]
    ) -> Iterator[Tensor]:
        """Region features [n, D] of the images at `rows`."""
        if self.mode == "crop":
            for row, boxes in zip(rows, boxes_xyxy, strict=True):
                height, width = batch.targets[row].size  # without the padding
                yield clip.encode_crops(batch.images[row, :, :height, :width], boxes)
        elif rows:
            maps, scale = clip.batch_map(batch.images, batch.padding, self.zoom)
            places = zip(rows, boxes_xyxy, strict=True)
            rois = [F.pad(boxes, (1, 0), value=row) for row, boxes in places]  # [n, 5]: row, xyxy
            regions = clip.pool_regions(maps, torch.cat(rois), scale)
            yield from regions.split([len(boxes) for boxes in boxes_xyxy])
