"""Published DINO and RichSem checkpoints under this project's names (METHOD 2.9).

What a file does not hold are the text features: the CLIP of which it has a copy computes them once,
from the names exactly as the published code spells them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from richsem.models import clip_weights, weight_files
from richsem.models.clip import RN50, FrozenClip
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.models.published import translation
from richsem.models.weight_files import State

_KNOWN = (
    "a published DINO or RichSem model with two stages, mixed query selection and box-only heads"
)
_BACKBONE = r"backbone\.0\.(?:body\.)?"
_TEACHER = ".clip."  # whole copies of the frozen CLIP, which `FrozenClip` loads where needed


def load_official(source: Path | str | State, text: Tensor | None = None, heads: int = 8) -> Dino:
    """A detector with published weights; arguments are those of `translate`.

    A checkpoint does not tell which stages were frozen: the backbone's configuration freezes what
    METHOD 2.1 does. This matters for further training only.
    """
    fields, state = translate(source, text, heads)
    if "backbone" not in fields:
        raise ValueError("the checkpoint has no backbone: it holds a part of a detector only")
    unused = () if "text_dim" in fields else ("text", "log_scale")  # no head compares with text
    return weight_files.fill(Dino(DinoConfig(**fields)), state, unused)


def translate(
    source: Path | str | State, text: Tensor | None = None, heads: int = 8
) -> tuple[dict[str, Any], State]:
    """Reads a published checkpoint, a file or its tensors, in this project's terms.

    `text` are text features [C, D] (`official_text`), needed if a head compares with text; the
    number of attention heads is the one size that no shape tells. Returns arguments of
    `DinoConfig`, read off names and shapes (`backbone` is missing if the file has none), and
    tensors by this project's names.
    """
    official = source if isinstance(source, Mapping) else weight_files.read(Path(source))
    own = {name: tensor for name, tensor in official.items() if _TEACHER not in name}
    inner, rest = translation.split(own, _BACKBONE)
    state = translation.renamed(rest, translation.NAMES["dino"], known=_KNOWN)
    fields = _fields(state, heads)
    if text is not None or "text" in (fields["classifier"], fields["proposal_classifier"]):
        if text is None:
            raise ValueError(
                "the checkpoint compares with text features but does not hold them; pass "
                "text=official_text(FrozenClip(RN50), {category id: name})"
            )
        expected = (fields.get("num_classes", len(text)), fields.get("text_dim", text.shape[-1]))
        if text.shape != expected:
            raise ValueError(f"text features have shape {tuple(text.shape)}, expected {expected}")
        state["text"] = text
        fields["num_classes"], fields["text_dim"] = text.shape
    if inner:
        # Maps of the backbone are projected by 1x1 convolutions, further levels by 3x3 ones.
        maps = sum(t.shape[-1] == 1 for n, t in state.items() if re.match(r"neck.*\.0\.weight", n))
        fields["backbone"], body = translation.translate_backbone(inner, maps)
        state |= {f"backbone.{name}": tensor for name, tensor in body.items()}
    return fields, state


def held_clip(official: State) -> FrozenClip:
    """The CLIP RN50 of which a checkpoint holds a copy; without one, that of the hub."""
    inner, _ = translation.split(official, r"transformer\.enc_out_class_embed\.clip\.")
    return FrozenClip(RN50, clip_weights.filled(RN50.model, inner) if inner else None)


@torch.no_grad()
def official_text(clip: FrozenClip, names: Mapping[int, str]) -> Tensor:
    """Text features as the published RichSem has them: one row per id, [max id + 1, D].

    `clip` is RN50, which the published models were trained with; `names` are by category id,
    verbatim from the annotation file. Ids that no class has, such as 0, get the text "none" without
    a template.
    """
    tokens = clip.tokenizer(["none"]).to(clip.mean.device)
    blank = clip.model.encode_text(tokens).float()
    table = blank.repeat(max(names) + 1, 1)
    table[list(names)] = clip.text_features(list(names.values()))
    return table


def _fields(state: State, heads: int) -> dict[str, Any]:
    """The arguments of `DinoConfig` that follow from names and shapes."""
    missing = [name for name in ("level_embed", "decoder.content.weight") if name not in state]
    if missing:
        raise ValueError(f"not a published DINO or RichSem checkpoint: {missing} missing")
    levels, dim = state["level_embed"].shape
    cosine = "classifier.projection.weight" in state
    proposal_cosine = "proposals.classifier.projection.weight" in state
    label_embedding = "classifier"
    if "label_embedding.weight" in state:
        label_embedding = "text" if cosine else "table"
    fields = {
        "dim": dim,
        "heads": heads,
        "levels": levels,
        "encoder_layers": translation.count(state, "encoder.layers"),
        "decoder_layers": translation.count(state, "decoder.layers"),
        "encoder_points": _points(state, "encoder.layers.0.attention", heads * levels),
        "decoder_points": _points(state, "decoder.layers.0.cross_attention", heads * levels),
        "ffn": len(state["decoder.layers.0.linear1.weight"]),
        "queries": len(state["decoder.content.weight"]),
        "classifier": "text" if cosine else "linear",
        "proposal_classifier": "text" if proposal_cosine else "linear",
        "label_embedding": label_embedding,
        "semantic": "semantic.projection.weight" in state,
        # Plain DINO pads to the largest image only, which shows in its numbers on COCO.
        "pad_multiple": 1 if label_embedding == "table" else 32,
        "propose_padding": True,
    }
    if not cosine:
        fields["num_classes"] = len(state["classifier.weight"])
    if proposal_cosine:
        fields["text_dim"] = len(state["proposals.classifier.projection.weight"])
        fields["scale"] = float(state["log_scale"].exp())
    return fields


def _points(state: State, attention: str, per_point: int) -> int:
    rows = len(state[f"{attention}.weights.weight"])
    if rows % per_point:
        raise ValueError(f"{attention} has {rows} weights, not a multiple of heads x levels")
    return rows // per_point
