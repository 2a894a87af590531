"""CenterNet2 with CLIP-text classifiers and the semantic branch, from a batch to predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from richsem.boxes import clipped, corrected
from richsem.config import Factor, Natural, Positive, Share
from richsem.models.backbones import Backbone, BackboneConfig
from richsem.models.centernet2 import assignment
from richsem.models.centernet2.assignment import Regions, matched
from richsem.models.centernet2.cascade import (
    CascadeConfig,
    MaskConfig,
    Stage,
    make_mask_head,
    pool_regions,
)
from richsem.models.centernet2.first_stage import (
    CenterHead,
    FeaturePyramid,
    ProposalConfig,
    propose,
)
from richsem.models.heads import Detected, Sizes, TextClassifier, WithVocabulary, build_classifier
from richsem.structures import Batch, RegionOutput, Supervision, TwoStageOutput


@dataclass(frozen=True, kw_only=True)
class CenterNet2Config:
    """Sizes and variants; the defaults are the published R50 model (METHOD 3.3)."""

    backbone: BackboneConfig  # where feature maps come from; regions are pooled from as many levels
    num_classes: Natural  # C
    dim: Positive = 256  # width of the pyramid
    tower: Natural = 4  # convolutions between pyramid and heat map
    proposals: ProposalConfig = field(default_factory=ProposalConfig)  # how cells become proposals
    cascade: CascadeConfig = field(default_factory=CascadeConfig)  # the second stage
    masks: MaskConfig | None = None  # outlines of what is in the boxes; None for boxes alone
    # Class heads of the stages: linear, or cosine to CLIP's text features.
    classifier: Literal["linear", "text"] = "text"
    class_scale: Factor = 50.0  # factor on cosines of the class heads; frozen
    # One learnt bias on text logits, so that training starts from rare positives.
    class_bias: bool = False
    semantic: bool = True  # whether there is a semantic branch (training only)
    semantic_stages: Literal["last", "all"] = "last"  # which stages have one
    text_dim: Positive = 1024  # length D of text features
    scale: Factor = 100.0  # tau, the factor on cosines of the semantic branch; frozen
    min_score: Share = 0.02  # least score of a detection
    nms: Share = 0.5  # IoU above which the weaker of two detections of a class goes
    pad_multiple: Positive = 32  # images are padded to a multiple of this

    @property
    def uses_text(self) -> bool:
        """Whether text features are used anywhere."""
        return self.semantic or self.classifier == "text"


class CenterNet2(WithVocabulary):
    """Backbone, pyramid, heat map and cascade; computes no loss."""

    def __init__(self, config: CenterNet2Config, text: Tensor | None = None) -> None:
        """New weights; `text` are raw text features F [C, D], see `WithVocabulary`."""
        super().__init__(config, text)
        self.backbone = Backbone(config.backbone)
        self.pyramid = FeaturePyramid(self.backbone.channels, config.dim)
        coarsest = self.backbone.strides[-1]
        strides = (*self.backbone.strides, 2 * coarsest, 4 * coarsest)
        self.centers = CenterHead(config.dim, config.tower, strides)
        depth, hidden = len(config.cascade.overlaps), config.cascade.hidden
        self.stages = nn.ModuleList()
        for number in range(depth):
            classifier = build_classifier(config.classifier, hidden, config, affine=True)
            branches = config.semantic and (config.semantic_stages == "all" or number == depth - 1)
            semantic = TextClassifier(hidden, config.text_dim) if branches else None
            self.stages.append(Stage(config.dim, config.cascade, number, classifier, semantic))
        # The last to be drawn: all else starts as it does without.
        self.mask_head = make_mask_head(config.dim, config.masks) if config.masks else None

    def forward(self, batch: Batch) -> TwoStageOutput:
        """Predictions; in training, annotations decide which regions are looked at."""
        config = self.config
        maps = batch.features or self.backbone.look(batch.images, batch.padding)
        levels = self.pyramid(self.backbone.finish(maps))
        heatmap, distances = self.centers(levels)
        cells = self.centers.cells(levels)
        sizes = heatmap.new_tensor([t.size for t in batch.targets], dtype=torch.float32)
        proposals = propose(heatmap, distances, cells, sizes, config.proposals, self.training)
        annotated = masks = None
        if not self.training:
            regions = assignment.join(proposals)
        elif batch.supervision is Supervision.WHOLE_IMAGES:
            number = config.cascade.image_regions
            best = [(boxes[:number], scores[:number]) for boxes, scores in proposals]
            regions = assignment.with_whole_images(best, sizes)
        else:
            annotated = assignment.annotated_regions(batch.targets, sizes)
            everything = assignment.joined(assignment.join(proposals), annotated)
            regions = matched(everything, annotated, config.cascade.overlaps[0])
            number, part = config.cascade.regions, config.cascade.positive_part
            regions = assignment.sampled(regions, len(batch), number, part)
            if self.mask_head and batch.supervision is Supervision.DETECTION:
                own = regions[regions.rows >= 0]
                masks = self.mask_logits(levels, own.images, own.boxes)
        stages = self._refine(levels, sizes, regions, annotated)
        seen = () if self.mask_head is None or self.training else tuple(levels)
        return TwoStageOutput(sizes, cells, heatmap, distances, stages, masks, seen)

    def detections(
        self, output: TwoStageOutput, sizes_hw: Sizes, max_dets: int = 300
    ) -> list[Detected]:
        """The best detections of each image, those of a class far enough apart.

        From predictions in evaluation mode to at most `max_dets` scores in descending order, the
        roots of (mean class probability over the stages x proposal score), and boxes scaled to
        `sizes_hw`, usually the image files'.
        """
        last = output.stages[-1]
        probability = torch.stack([stage.logits.float().sigmoid() for stage in output.stages])
        scores = (probability.mean(dim=0) * last.scores[:, None]).sqrt()
        wanted = torch.as_tensor(sizes_hw).to(output.sizes)
        factors = (wanted / output.sizes).flip(1).repeat(1, 2)
        detected = []
        for image, factor in enumerate(factors):
            own = last.images == image
            detected.append(self._best(scores[own], last.refined[own] * factor, max_dets))
        return detected

    def masks(
        self, output: TwoStageOutput, detected: Sequence[Detected], sizes_hw: Sizes
    ) -> list[Tensor]:
        """Of each image's detections the probability of each cell of their boxes [N, s, s].

        `detected` is what `detections` made of an output in evaluation mode, for these sizes.
        """
        wanted = torch.as_tensor(sizes_hw).to(output.sizes)
        factors = (output.sizes / wanted).flip(1).repeat(1, 2)
        found = []
        for image, (factor, (_, _, boxes)) in enumerate(zip(factors, detected, strict=True)):
            images = torch.full_like(boxes[:, 0], image, dtype=torch.long)
            logits = self.mask_logits(output.levels, images, boxes * factor)
            found.append(logits.float().sigmoid())
        return found

    def mask_logits(self, levels: Sequence[Tensor], images: Tensor, boxes: Tensor) -> Tensor:
        """[R, s, s] of the mask head for regions [R, 4], xyxy in pixels of their images [R]."""
        return self.mask_head(self._pooled(levels, images, boxes, self.config.masks.pooled))[:, 0]

    def _pooled(self, levels: Sequence[Tensor], images: Tensor, boxes: Tensor, side: int) -> Tensor:
        """[R, dim, side, side] from as many levels as the backbone has."""
        strides, samples = self.backbone.strides, self.config.cascade.pool_samples
        return pool_regions(levels[: len(strides)], strides, images, boxes, side, samples)

    def _refine(
        self, levels: Sequence[Tensor], sizes: Tensor, regions: Regions, annotated: Regions | None
    ) -> tuple[RegionOutput, ...]:
        """All stages, each on the boxes of the one before, in training matched anew."""
        config, outputs = self.config.cascade, []
        for number, stage in enumerate(self.stages):
            if annotated is not None and number:
                sides = regions.boxes[:, 2:] - regions.boxes[:, :2]
                regions = regions[(sides > 0).all(dim=1)]
                regions = matched(regions, annotated, config.overlaps[number])
            pooled = self._pooled(levels, regions.images, regions.boxes, config.pooled)
            if pooled.requires_grad:  # the stages teach the pyramid together as much as one
                pooled.register_hook(lambda gradient: gradient / len(self.stages))
            scales = self.config.class_scale, self.log_scale.exp()
            logits, deltas, semantic = stage(pooled, self.text, *scales)
            moved = corrected(regions.boxes, deltas.detach().float(), stage.coding)
            refined = clipped(moved, sizes[regions.images])
            outputs.append(
                RegionOutput(
                    **vars(regions),
                    logits=logits,
                    deltas=deltas,
                    coding=stage.coding,
                    refined=refined,
                    semantic_logits=semantic,
                )
            )
            regions = Regions(regions.images, refined, regions.scores)
        return tuple(outputs)

    def _best(self, scores: Tensor, boxes: Tensor, max_dets: int) -> Detected:
        """Class-wise suppression among scores [R, C] and boxes [R, 4] of one image."""
        regions, labels = (scores > self.config.min_score).nonzero(as_tuple=True)
        scores, boxes = scores[regions, labels], boxes[regions]
        kept = batched_nms(boxes, scores, labels, self.config.nms)[:max_dets]
        return scores[kept], labels[kept], boxes[kept]
