"""DINO with CLIP-text classifiers and the semantic branch, from a batch to predictions."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from richsem.config import Factor, Natural, Positive
from richsem.models.backbones import Backbone, BackboneConfig
from richsem.models.deformable import DeformableAttention
from richsem.models.dino import denoising
from richsem.models.dino.decoder import Decoder, DecoderLayer
from richsem.models.dino.denoising import DenoisingConfig, DenoisingQueries
from richsem.models.dino.encoder import Encoder, EncoderLayer, Neck
from richsem.models.dino.positions import build_pyramid
from richsem.models.dino.query_selection import Proposals
from richsem.models.heads import (
    ClassifierKind,
    Detected,
    Sizes,
    TextClassifier,
    WithVocabulary,
    build_classifier,
    postprocess,
)
from richsem.structures import Batch, DenoisingOutput, DetectorOutput


@dataclass(frozen=True, kw_only=True)
class DinoConfig:
    """Sizes and variants; the defaults are the paper's R50 model with four scales."""

    masks: ClassVar[None] = None  # it finds boxes, not outlines

    backbone: BackboneConfig  # where feature maps come from
    num_classes: Natural  # C
    dim: Positive = 256  # width of tokens and queries
    heads: Positive = 8  # attention heads
    # Feature levels; those beyond the backbone's maps are strided convolutions.
    levels: Positive = 4
    encoder_layers: Positive = 6  # encoder depth
    decoder_layers: Positive = 6  # decoder depth L
    encoder_points: Positive = 4  # sampling points per head and level in the encoder
    decoder_points: Positive = 4  # the same in the decoder
    ffn: Positive = 2048  # hidden width of the feed-forward networks
    queries: Positive = 900  # matching queries Q
    # Class head of the decoder: linear, or cosine to CLIP's text features.
    classifier: Literal["linear", "text"] = "text"
    proposal_classifier: ClassifierKind = "text"  # class head on encoder tokens
    # Content of denoising queries: projected text, the class head's rows, or a table of its own
    # (plain DINO).
    label_embedding: Literal["text", "classifier", "table"] = "text"
    # One learnt bias on text logits, so that training starts from rare positives.
    class_bias: bool = False
    semantic: bool = True  # whether there is a semantic branch (training only)
    text_dim: Positive = 1024  # length D of text features
    scale: Factor = 100.0  # tau, the factor on cosines; frozen
    denoising: DenoisingConfig = field(default_factory=DenoisingConfig)
    pad_multiple: Positive = 32  # images are padded to a multiple of this
    # Tokens of padding may become queries, as in the published code; its weights expect it.
    propose_padding: bool = False
    checkpointing: bool = False  # recompute layers in the backward pass to save memory

    @property
    def uses_text(self) -> bool:
        """Whether text features are used anywhere."""
        kinds = (self.classifier, self.proposal_classifier, self.label_embedding)
        return self.semantic or "text" in kinds


class Dino(WithVocabulary):
    """Backbone, neck, encoder, proposals, decoder and heads; computes no loss."""

    def __init__(self, config: DinoConfig, text: Tensor | None = None) -> None:
        """New weights; `text` are raw text features F [C, D], see `WithVocabulary`."""
        super().__init__(config, text)
        dim, sizes = config.dim, (config.dim, config.heads, config.levels)
        self.backbone = Backbone(config.backbone)
        self.neck = Neck(self.backbone.channels, dim, config.levels)
        self.level_embed = nn.Parameter(torch.empty(config.levels, dim))
        points, ffn = config.encoder_points, config.ffn
        layers = [EncoderLayer(*sizes, points, ffn) for _ in range(config.encoder_layers)]
        self.encoder = Encoder(layers, config.checkpointing)
        head = build_classifier(config.proposal_classifier, dim, config)
        self.proposals = Proposals(dim, config.queries, head, config.propose_padding)
        points = config.decoder_points
        layers = [DecoderLayer(*sizes, points, ffn) for _ in range(config.decoder_layers)]
        self.decoder = Decoder(layers, dim, config.queries, config.checkpointing)
        self._reset_transformer()
        self.classifier = build_classifier(config.classifier, dim, config)
        self.semantic = TextClassifier(dim, config.text_dim) if config.semantic else None
        self.label_embedding = self._label_embedding()

    def forward(self, batch: Batch) -> DetectorOutput:
        """Predictions; denoising queries and the semantic branch take part in training only."""
        maps = batch.features or self.backbone.look(batch.images, batch.padding)
        levels = self.neck(self.backbone.finish(maps))
        pyramid = build_pyramid(levels, batch.padding, self.level_embed)
        memory, scale = self.encoder(pyramid), self.log_scale.exp()
        selected = self.proposals(memory, pyramid, self.text, scale)
        content = self.decoder.content.weight[: selected.index.shape[1]]
        content = content.expand(len(memory), -1, -1)
        box_logits, mask, missing = selected.box_logits.detach(), None, selected.missing
        noisy = self.denoising_queries(batch) if self.training else None
        number = 0 if noisy is None else noisy.content.shape[1]  # P; they come first
        if noisy is not None:
            groups = noisy.num_groups, noisy.num_slots
            mask = denoising.attention_mask(*groups, content.shape[1], content.device)
            content = torch.cat([noisy.content, content], 1)
            box_logits = torch.cat([noisy.box_logits, box_logits], 1)
            missing = None if missing is None else F.pad(missing, (number, 0))
        decoded = self.decoder(content, box_logits, memory, pyramid, mask, missing=missing)
        logits = self.classifier(decoded.hidden, self.text, scale)  # [L, B, P + Q, C]
        if selected.missing is not None and not self.training:
            logits = logits.masked_fill(selected.missing[..., None], -torch.inf)
        semantic = of_noisy = None
        if self.training and self.semantic is not None:
            semantic = self.semantic(decoded.hidden[-1], self.text, scale)  # [B, P + Q, C]
            of_noisy, semantic = semantic[:, :number], semantic[:, number:]
        output = DetectorOutput(
            logits=logits[:, :, number:],
            boxes=decoded.boxes[:, :, number:],
            proposal_logits=selected.logits,
            proposal_boxes=selected.box_logits.sigmoid(),
            semantic_logits=semantic,
            last_references=decoded.last_references[:, number:],
        )
        if noisy is None:
            return output
        same = logits[:, :, :number], decoded.boxes[:, :, :number], of_noisy
        return replace(output, denoising=DenoisingOutput(*same, *groups))

    def detections(
        self, output: DetectorOutput, sizes_hw: Sizes, max_dets: int = 300
    ) -> list[Detected]:
        """The best detections of each image; see `richsem.models.heads.postprocess`."""
        return postprocess(output.logits[-1], output.boxes[-1], sizes_hw, max_dets)

    def denoising_queries(self, batch: Batch) -> DenoisingQueries | None:
        """Denoising queries for the batch's targets, or None if they are turned off."""
        noise, num_classes = self.config.denoising, self.config.num_classes
        if not noise.number:
            return None
        return denoising.build_queries(batch.targets, noise, num_classes, self.embed_labels)

    def embed_labels(self, labels: Tensor) -> Tensor:
        """Content of denoising queries for class indices [...]: [..., dim]."""
        if self.config.label_embedding == "text":
            return F.embedding(labels, self.label_embedding(self.text))
        table = self.classifier if self.label_embedding is None else self.label_embedding
        return F.embedding(labels, table.weight)

    def _label_embedding(self) -> nn.Module | None:
        config = self.config
        if config.label_embedding == "text":
            projection = nn.Linear(config.text_dim, config.dim, bias=False)
            nn.init.normal_(projection.weight, std=config.text_dim**-0.5)
            return projection
        if config.label_embedding == "table":
            return nn.Embedding(config.num_classes + 1, config.dim)
        if config.classifier != "linear":
            raise ValueError(
                "label_embedding 'classifier' takes the rows of a linear class head, but "
                f"classifier is {config.classifier!r}; use 'text' or 'table'"
            )
        return None

    def _reset_transformer(self) -> None:
        """METHOD 2.6: Xavier on every matrix, then the attentions' and box heads' own starts."""
        for part in (self.encoder, self.proposals, self.decoder):
            for name, parameter in part.named_parameters():
                if parameter.dim() > 1 and not name.startswith(("boxes.layers.2", "classifier")):
                    nn.init.xavier_uniform_(parameter)
            for module in part.modules():
                if isinstance(module, DeformableAttention):
                    module.reset_parameters()
        nn.init.normal_(self.level_embed)
