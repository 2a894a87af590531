"""From logits to detections: the best (query, class) pairs of each image (METHOD 2.7)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from richsem.boxes import in_pixels

Sizes = Tensor | Sequence[tuple[int, int]]  # height and width in pixels of each image [B, 2]
Detected = tuple[Tensor, Tensor, Tensor]  # scores [N], class indices [N], xyxy in pixels [N, 4]


def postprocess(
    logits: Tensor, boxes: Tensor, sizes_hw: Sizes, max_dets: int = 300
) -> list[Detected]:
    """Picks the highest class scores of each image; a query may be picked for several classes.

    From logits [B, Q, C] and boxes, cxcywh in 0..1 [B, Q, 4], of the last layer to at most
    `max_dets` scores in descending order and boxes scaled to `sizes_hw`, usually the image files',
    which may reach beyond the image; boxes of one thing do not suppress each other. Logits of minus
    infinity are of queries that look at nothing and never picked.
    """
    num_classes = logits.shape[-1]
    # Chosen by logit: sigmoid makes ties of high ones.
    pairs = logits.float().flatten(1)  # [B, Q * C]
    best, places = pairs.topk(min(max_dets, pairs.shape[1]), dim=1)
    scores = best.sigmoid()
    queries, labels = places // num_classes, places % num_classes
    sizes = torch.as_tensor(sizes_hw).to(boxes.device, torch.float32)
    corners = in_pixels(boxes.float(), sizes[:, None])  # [B, Q, 4]
    corners = corners.gather(1, queries[..., None].expand(-1, -1, 4))
    columns = zip(best, scores, labels, corners, strict=True)
    return [tuple(v[logit != -torch.inf] for v in own) for logit, *own in columns]
