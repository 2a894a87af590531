"""The small CLIP of the embedded benchmark, as an ordinary open_clip model.

Image tower: ImageNet EfficientNet-Lite0, frozen, whose five stages are laid over each other at
stride 16 (a hypercolumn: glyphs are small, and what tells them apart is in the middle layers),
then CLIP's attention pooling and a projection, which are trained. Text tower: a two-layer
transformer on open_clip's own tokenizer. Only the trained parameters are shipped; the ImageNet
weights come from a package.
"""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from safetensors.torch import save
from timm.models import register_model
from torch import nn
from torch.nn import functional as F

from richsem.models import weight_files
from richsem.models.backbones import fold_batch_norms, lite0_weights
from richsem.paths import write_atomic

MINI_CLIP = "richsem-mini"
MINI_WEIGHTS = files("richsem.models") / "miniclip.safetensors"
MINI_PROMPTS = ("{}.", "a {}.", "a photo of a {}.", "a drawing of a {}.", "there is a {}.")

MINI_LENGTH = 256  # D of its features

_CONFIG: dict[str, Any] = {
    "embed_dim": MINI_LENGTH,
    "vision_cfg": {
        "timm_model_name": "lite0_hypercolumn",
        "timm_model_pretrained": False,
        "timm_pool": "abs_attn",
        "timm_proj": "mlp",
        "image_size": 64,
    },
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}
_STAGES = {1: 24, 2: 40, 3: 80, 4: 112, 6: 320}  # block index -> channels
_FROZEN = "visual.trunk.body."
_TOKENS = "token_embedding.weight"
_NOT_MINI = "holds no weights of the embedded CLIP; make them with `python -m richsem clip train`"


class Lite0Hypercolumn(nn.Module):
    """EfficientNet-Lite0's stages, resampled to stride 16, concatenated and standardised.

    Maps images [B, 3, H, W] (normalised by .498/.502, sides multiples of 32) to features
    [B, 576, H/16, W/16]. `norm` holds fixed channel statistics, not learnt parameters.
    """

    num_features = sum(_STAGES.values())
    stride = 16
    feature_info = ({"reduction": stride},)

    def __init__(self) -> None:
        super().__init__()
        self.default_cfg = {"pool_size": (4, 4), "mean": (0.498,) * 3, "std": (0.502,) * 3}
        self.body = timm.create_model("efficientnet_lite0", num_classes=0, bn_eps=1e-3)
        self.body.blocks = self.body.blocks[: max(_STAGES) + 1]
        self.body.conv_head, self.body.bn2 = nn.Identity(), nn.Identity()
        self.norm = nn.BatchNorm2d(self.num_features, affine=False)

    def reset_classifier(self, num_classes: int, global_pool: str = "") -> None:
        """There is no classifier; open_clip calls this on every timm tower."""

    def hypercolumn(self, images: torch.Tensor) -> torch.Tensor:
        """The concatenated stages before standardisation, [B, 576, H/16, W/16]."""
        size = (images.shape[-2] // self.stride, images.shape[-1] // self.stride)
        maps = []
        x = self.body.bn1(self.body.conv_stem(images))
        for index, block in enumerate(self.body.blocks):
            x = block(x)
            if index in _STAGES and x.shape[-2] > size[0]:
                maps.append(F.adaptive_avg_pool2d(x, size))
            elif index in _STAGES:
                maps.append(F.interpolate(x, size, mode="bilinear", align_corners=False))
        return torch.cat(maps, dim=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Standardised feature map [B, 576, H/16, W/16]."""
        return self.norm(self.hypercolumn(images.contiguous(memory_format=torch.channels_last)))

    forward_features = forward  # as timm calls the part before the pooling

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        """Pooling is open_clip's."""
        return features


@register_model
def lite0_hypercolumn(pretrained: bool = False, **unused: Any) -> Lite0Hypercolumn:
    """Entry point for timm, which open_clip asks for the image tower by name."""
    return Lite0Hypercolumn()


def create_miniclip() -> nn.Module:
    """The open_clip model with ImageNet's image tower and an untrained head and text tower."""
    model = open_clip.CLIP(**_CONFIG)
    model.eval()
    body, imagenet = model.visual.trunk.body, lite0_weights()
    body.load_state_dict({name: imagenet[name] for name in body.state_dict()})
    fold_batch_norms(body)
    return model.to(memory_format=torch.channels_last)  # with the folding, a third of the time


def mini_tokenizer() -> Callable[[list[str]], torch.Tensor]:
    """CLIP's own tokenizer at the small text tower's length: texts -> ids [N, 16]."""
    return open_clip.get_tokenizer("RN50", context_length=_CONFIG["text_cfg"]["context_length"])


def load_miniclip(path: Path | None = None) -> nn.Module:
    """The trained small CLIP from a file of its trained parameters, by default the shipped one."""
    source = Path(str(MINI_WEIGHTS)) if path is None else path
    if not source.is_file():
        raise FileNotFoundError(
            f"{source}: no weights of the embedded CLIP; train them with "
            "`python -m richsem clip train` or name a file"
        )
    model = create_miniclip()
    with weight_files.explained(source, _NOT_MINI):
        state = {name: tensor.float() for name, tensor in weight_files.read(source).items()}
        known, rows = state.pop("tokens.ids").long(), state.pop("tokens.rows")
        embedding = torch.zeros_like(model.state_dict()[_TOKENS])
        embedding[known] = rows
        state[_TOKENS] = embedding
        weight_files.fill(model, state, unused=(_FROZEN,))
    return model.eval()


def save_miniclip(model: nn.Module, known_tokens: torch.Tensor, path: Path) -> None:
    """Writes the trained parameters in half precision, token embeddings only where trained.

    `known_tokens` are the ids of the tokens that occur in the training captions [T].
    """
    state = {n: t for n, t in model.state_dict().items() if not n.startswith(_FROZEN)}
    state.pop("attn_mask", None)
    state |= {"tokens.ids": known_tokens, "tokens.rows": state.pop(_TOKENS)[known_tokens]}
    halved = {
        name: (t.half() if t.is_floating_point() and t.numel() > 1 else t).contiguous()
        for name, t in state.items()
    }
    # One entry of metadata: several would be written in random order.
    write_atomic(path, save(halved, metadata={"model": MINI_CLIP}))
