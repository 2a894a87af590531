"""The frozen teacher: CLIP's text features, region features and soft labels (METHOD 1).

Boxes are absolute xyxy in pixels of the image they belong to; images are uint8 or 0..1 float
[3, H, W] and normalised here, so a caller never has to know CLIP's statistics. Features are
L2-normalised float32 [N, D].
"""

import hashlib
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import open_clip
import torch
from open_clip.model import _build_vision_tower
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from richsem import kept, paths, shards
from richsem.config import Positive
from richsem.models import clip_weights, clip_words
from richsem.models.miniclip import MINI_CLIP, MINI_PROMPTS
from richsem.models.networks import shapes_only
from richsem.models.towers import tower_of
from richsem.paths import user_path, write_atomic

RegionMode = Literal["crop", "roi"]

# The bare name and the 80 ImageNet templates: 81 prompts a class.
IMAGENET_PROMPTS = ("{}.", *(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES))


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Which CLIP and how its regions are read."""

    # open_clip's name, `richsem-mini` for the embedded one, `local-dir:FOLDER` for a folder with
    # `open_clip_config.json`, weights and tokenizer, or `hf-hub:OWNER/NAME`.
    model: str = MINI_CLIP
    # Hub tag or local file; empty for the embedded CLIP's shipped file, a folder's or repository's.
    weights: str = ""
    short_side: Positive = 256  # shorter image side before the trunk in the `roi` mode, in pixels
    # The longer side is at most this long, even if the shorter one gets shorter.
    long_side: Positive = 1333
    # A ViT with a class token in the `roi` mode: patches as values of the last block, or as they
    # leave it, which is how the published code reads a ViT.
    values: bool = True
    prompts: str = ""  # text file, one template with `{}` a line; empty for CLIP's own
    # Text file of class names, one a line in the order of the classes' ids; empty for the
    # annotation file's names.
    names: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """What may be files whose content decides what the teacher says."""
        inside = []
        if self.model.startswith(clip_weights.FOLDER):
            folder = user_path(self.model.removeprefix(clip_weights.FOLDER))
            inside = [str(file) for file in sorted(folder.glob("*"))]
        return *inside, self.weights, self.prompts, self.names


MINI = ClipConfig()
RN50 = ClipConfig(model="RN50-quickgelu", weights="openai", short_side=800)

_PADDING_GREY = (0.485, 0.456, 0.406)  # the ImageNet mean: zero for a detector
ROIS = {"sampling_ratio": 0, "aligned": True}  # of RoIAlign (METHOD 1)
_REGIONS = 256  # regions encoded together: an image of LVIS times all noise scales has thousands
_PIXELS = 2**20  # of crops encoded together: 256 of the embedded CLIP's sides of 64, 20 of RN50's
_TEXTS = 128  # texts encoded together
# Rows this short are encoded name by name: rounding is then that of the shipped runs, to the bit.
_SHORT_CONTEXT = 16
_NAMES = 8  # names that are encoded and kept together


class FrozenClip(nn.Module):
    """CLIP as a teacher: nothing in it is trained and nothing in it keeps a gradient.

    `roi` is the paper's way: the trunk runs once over the whole image, RoIAlign cuts each box out
    of its last map, and CLIP's own attention pooling turns the cut into an embedding. `crop` is
    the direct way: each box is cut out of the pixels and encoded as an image.
    """

    @torch.no_grad()
    def __init__(self, config: ClipConfig, model: nn.Module | None = None) -> None:
        """Loads the model of `config`, or takes a ready open_clip model of this kind."""
        super().__init__()
        self.config = config
        own = MINI_PROMPTS if config.model == MINI_CLIP else IMAGENET_PROMPTS
        self.prompts = clip_words.prompts_of(config.prompts) if config.prompts else own
        is_ready = model is not None
        opened = (model, None) if is_ready else clip_weights.opened(config.model, config.weights)
        self.model, tokenizer = opened
        visual = self.model.eval().visual
        self.tower = tower_of(visual, config.values)
        self.crop_size, self.grid = self.tower.side, self.tower.grid
        mean, std = clip_weights.statistics(config.model, config.weights, visual)
        length = self.model.context_length
        self.tokenizer = tokenizer or open_clip.get_tokenizer("RN50", context_length=length)
        nothing = torch.zeros(1, length, dtype=torch.long)
        self.dim = self.model.encode_text(nothing).shape[-1]  # length D of an embedding
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.requires_grad_(False).train(False)

    def train(self, mode: bool = True) -> "FrozenClip":
        """Stays in evaluation mode inside a model that trains: its batch norms are fixed."""
        return super().train(False)

    @property
    def scale(self) -> float:
        """tau: the factor on cosines, exp(logit_scale)."""
        return float(self.model.logit_scale.exp())

    def check(self, mode: RegionMode) -> None:
        """A `ValueError` says why regions cannot be read in a mode; crops always can."""
        if mode == "roi" and self.tower.reason:
            raise ValueError(
                f"{self.config.model!r} has no map to read regions from, because "
                f"{self.tower.reason}; take its crops (`crop`; runs: data.teacher_mode=crop)"
            )

    # --- images -> regions -----------------------------------------------------------------

    def normalise(self, image: Tensor) -> Tensor:
        """[..., 3, H, W] uint8 or 0..1 float -> CLIP's input statistics."""
        pixels = image.float() / 255 if image.dtype == torch.uint8 else image
        return (pixels - self.mean) / self.std

    @torch.no_grad()
    def trunk_map(self, image: Tensor) -> tuple[Tensor, float]:
        """The trunk's last map [1, C, h, w] of one whole image [3, H, W], and cells per pixel.

        The image is resized to `config.short_side`, at most `config.long_side`.
        """
        short, long = sorted(image.shape[-2:])
        ratio = min(self.config.short_side / short, self.config.long_side / long)
        size = [max(1, round(side * ratio)) for side in image.shape[-2:]]
        return self._padded_map(self.normalise(image)[None], size), ratio / self.tower.stride

    @torch.no_grad()
    def batch_map(
        self, images: Tensor, padding: Tensor | None = None, zoom: float = 1.0
    ) -> tuple[Tensor, float]:
        """The trunk's last map [B, C, h, w] of a detector's batch as it is, and cells per pixel.

        Images [B, 3, H, W] are in 0..1, `padding` is True on padding [B, H, W], and `zoom` enlarges
        both before the trunk (METHOD 1).
        """
        if padding is not None:  # grey, as where a detector pads images after their normalisation
            grey = images.new_tensor(_PADDING_GREY)[:, None, None]
            images = torch.where(padding[:, None], grey, images)
        size = None if zoom == 1 else [round(zoom * side) for side in images.shape[-2:]]
        return self._padded_map(self.normalise(images), size), zoom / self.tower.stride

    def _padded_map(self, pixels: Tensor, size: list[int] | None) -> Tensor:
        """The trunk's last map of pixels, resized if a size is given and padded to whole cells."""
        if size is not None:
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
        self.check("roi")
        pad_h, pad_w = (-side % self.tower.multiple for side in pixels.shape[-2:])
        return self.tower.map(F.pad(pixels, (0, pad_w, 0, pad_h)))

    @torch.no_grad()
    def pool_regions(self, trunk_map: Tensor, boxes_xyxy: Tensor, scale: float) -> Tensor:
        """RoIAlign on a trunk map [1, C, h, w], then CLIP's own pooling: [N, D] unit vectors.

        Boxes [N, 4] are in pixels, of which one is `scale` cells; for the maps of several images
        they are [N, 5], the number of the map first.
        """
        rois = boxes_xyxy.to(trunk_map)
        rois = rois if rois.shape[1] == 5 else F.pad(rois, (1, 0))
        cut = partial(roi_align, trunk_map, output_size=self.grid, spatial_scale=scale, **ROIS)
        return torch.cat([self.pool(cut(part)) for part in rois.split(_REGIONS)])

    @torch.no_grad()
    def encode_crops(self, image: Tensor, boxes_xyxy: Tensor) -> Tensor:
        """Cuts each box out of the pixels, resizes it to CLIP's input and encodes it: [N, D]."""
        pixels = self.normalise(image)[None]
        cut = partial(roi_align, pixels, output_size=self.crop_size, **ROIS)
        parts = boxes_xyxy.to(pixels).split(max(1, _PIXELS // self.crop_size**2))
        encoded = [self.model.encode_image(cut([part])) for part in parts if len(part)]
        whole = torch.cat(encoded) if encoded else pixels.new_zeros(0, self.dim)
        return F.normalize(whole.float(), dim=-1)

    def regions(self, image: Tensor, boxes_xyxy: Tensor, mode: RegionMode) -> Tensor:
        """Region features [N, D] of one image [3, H, W] in either mode."""
        if mode == "crop":
            return self.encode_crops(image, boxes_xyxy)
        trunk_map, scale = self.trunk_map(image)
        return self.pool_regions(trunk_map, boxes_xyxy, scale)

    @torch.no_grad()
    def pool(self, cuts: Tensor) -> Tensor:
        """CLIP's pooling and projection of [N, C, grid, grid] maps: [N, D] unit vectors."""
        if not len(cuts):
            return cuts.new_zeros(0, self.dim)
        return F.normalize(self.tower.pool(cuts).float(), dim=-1)

    # --- names -> text features ------------------------------------------------------------

    @torch.no_grad()
    def text_features(self, names: Sequence[str], cache: Path | None = None) -> Tensor:
        """Text features F [len(names), D]: the mean over prompts of raw text embeddings.

        They are kept on disk, because 81 prompts for 1,203 classes take minutes on a CPU.
        L2-normalise them before use (`soft_labels` does).
        """
        parts = self._text_shards(names, cache)
        make = partial(self._write_texts, names)
        tables = shards.made(parts, make, self._read_texts, title="encoding names", unit="name")
        return torch.cat(tables).to(self.mean.device)

    @torch.no_grad()
    def seconds_of_texts(self, names: Sequence[str]) -> float:
        """How long `text_features` will take for the names that are not kept yet, roughly."""
        left = sum(len(part) for part in self._text_shards(names) if not part.is_complete)
        if not left:
            return 0.0
        few = names[:2]
        texts = [prompt.format(name) for name in few for prompt in self.prompts]
        self._encode_texts(texts[:1])  # the first call sets things up
        start = time.perf_counter()
        self._encode_texts(texts).cpu()
        return (time.perf_counter() - start) * left / len(few)

    def _text_shards(self, names: Sequence[str], cache: Path | None = None) -> list[shards.Shard]:
        key = kept.key(
            *(self.config.model, self.fingerprint, *self.prompts, "", *names), trace=("teacher",)
        )
        folder = (cache or paths.CACHE / "text") / key
        return shards.cut(folder, len(names), _NAMES, suffix=".safetensors")

    def _write_texts(self, names: Sequence[str], part: shards.Shard) -> None:
        texts = [prompt.format(names[row]) for row in part.items for prompt in self.prompts]
        embeddings = self._encode_texts(texts).view(len(part), len(self.prompts), -1)
        write_atomic(part.path, save({"text": embeddings.mean(1).cpu()}))

    def _read_texts(self, part: shards.Shard) -> Tensor:
        table = load_file(part.path)["text"]
        if table.shape != (len(part), self.dim) or not table.isfinite().all():
            raise ValueError(f"no text features of {len(part)} names")
        return table

    def _encode_texts(self, texts: list[str]) -> Tensor:
        """Raw embeddings [T, D]; texts of like length are encoded together."""
        model = self.model
        tokens = self.tokenizer(texts).to(self.mean.device)  # [T, context]
        if tokens.shape[1] <= _SHORT_CONTEXT:
            parts = tokens.split(len(self.prompts))
            return torch.cat([model.encode_text(part).float() for part in parts])
        ends = tokens.argmax(dim=1)  # the end of a text has the largest number
        text = getattr(model, "text", model)  # newer models keep their text tower in one place
        embeddings = tokens.new_empty(len(tokens), self.dim, dtype=torch.float32)
        for rows in ends.argsort().split(_TEXTS):
            part = tokens[rows]
            if _reads_forward(text):
                part = part[:, : int(ends[rows].max()) + 1]
                embeddings[rows] = _encode_cut(text, part).float()
            else:
                embeddings[rows] = model.encode_text(part).float()
        return embeddings

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of how a ViT is read, for caches."""
        state = {name: t.float() for name, t in self.model.state_dict().items()}
        return digest(state if self.config.values else {**state, "patches": torch.zeros(1)})


def digest(state: Mapping[str, Tensor]) -> str:
    """Hash of named tensors, 16 hex digits."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def soft_labels(regions: Tensor, text: Tensor, scale: float) -> Tensor:
    """s = softmax(tau f F^T): what the teacher thinks is in each region (METHOD 1).

    Unit region features f [N, D], raw text features F [C, D] and tau -> probabilities [N, C].
    """
    return torch.softmax(scale * regions @ F.normalize(text, dim=-1).T, dim=-1)


def _reads_forward(text: nn.Module) -> bool:
    """Whether no token sees what comes after it, and a text's embedding is that of its end.

    What lies behind the longest text then changes nothing but the time: of CLIP's 77 places, five
    in six are padding.
    """
    if isinstance(text, open_clip.CLIP):
        return text.text_pool_type == "argmax" and text.attn_mask is not None
    plain = isinstance(text, TextTransformer) and text.cls_emb is None
    causal = plain and text.pool_type == "argmax" and text.attn_mask is not None
    return causal and isinstance(text.text_projection, Tensor)


def _encode_cut(text: open_clip.CLIP | TextTransformer, tokens: Tensor) -> Tensor:
    """What `encode_text` does, for rows of any length [T, length]: raw embeddings [T, D]."""
    length = tokens.shape[1]
    x = text.token_embedding(tokens) + text.positional_embedding[:length]  # [T, length, width]
    x = text.transformer(x, attn_mask=text.attn_mask[:length, :length])
    ends = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]
    return text.ln_final(ends) @ text.text_projection


def reading_modes(config: ClipConfig) -> str:
    """In which modes regions can be read, and why not in the other, from shapes alone."""
    if config.model == MINI_CLIP:
        return "crop, roi; knows drawings only"
    if config.model.startswith("hf-hub:"):
        return "known once it is downloaded"
    parts = open_clip.get_model_config(clip_weights.source(config.model, config.weights))
    with shapes_only():
        visual = _build_vision_tower(parts["embed_dim"], parts["vision_cfg"])
        tower = tower_of(visual.eval(), config.values)
    return f"crop; not roi: {tower.reason}" if tower.reason else "crop, roi"


def say_what_it_knows(config: ClipConfig, data: str) -> None:
    """Warns where the embedded teacher is asked about other data than the drawn benchmark."""
    if config.model == MINI_CLIP:
        warnings.warn(
            f"{data}: the teacher is {MINI_CLIP!r}, which knows drawings only; what it says about "
            "photographs is worth little. Name another (notebook: CLIP; run: data.teacher.model)",
            stacklevel=3,
        )
