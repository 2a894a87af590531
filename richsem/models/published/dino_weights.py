"""Published DINO and RichSem checkpoints under this project's names (METHOD 2.9).

Every tensor of a published file is either renamed or left out with a reason; a name that nobody
knows is an error, so nothing gets lost silently. What a file does not hold are the text features:
CLIP computes them once, from the names exactly as the published code spells them.
"""

import argparse
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from richsem.models.clip import FrozenClip
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.models.published.backbone_weights import translate_backbone

State = dict[str, Tensor]

_RENAMED = (  # the start of an official name -> ours; the first match counts
    (r"transformer\.level_embed$", "level_embed"),
    (r"transformer\.encoder\.layers\.(\d+)\.self_attn\.", r"encoder.layers.\1.attention."),
    (r"transformer\.encoder\.layers\.", "encoder.layers."),
    (r"transformer\.decoder\.layers\.(\d+)\.self_attn\.", r"decoder.layers.\1.self_attention."),
    (r"transformer\.decoder\.layers\.(\d+)\.cross_attn\.", r"decoder.layers.\1.cross_attention."),
    (r"transformer\.decoder\.layers\.(\d+)\.norm1\.", r"decoder.layers.\1.cross_norm."),
    (r"transformer\.decoder\.layers\.(\d+)\.norm2\.", r"decoder.layers.\1.self_norm."),
    (r"transformer\.decoder\.layers\.(\d+)\.norm3\.", r"decoder.layers.\1.ffn_norm."),
    (r"transformer\.decoder\.layers\.", "decoder.layers."),
    (r"transformer\.decoder\.norm\.", "decoder.norm."),
    (r"transformer\.decoder\.ref_point_head\.", "decoder.position."),
    (r"transformer\.tgt_embed\.", "decoder.content."),
    (r"transformer\.enc_output\.", "proposals.memory."),
    (r"transformer\.enc_output_norm\.", "proposals.norm."),
    (r"transformer\.enc_out_bbox_embed\.", "proposals.boxes."),
    (r"transformer\.enc_out_class_embed\.dino_visual_proj\.", "proposals.classifier.projection."),
    (r"transformer\.enc_out_class_embed\.(?=weight|bias)", "proposals.classifier."),
    (r"input_proj\.", "neck.projections."),
    (r"bbox_embed\.0\.", "decoder.boxes."),
    (r"class_embed\.0\.", "classifier."),
    (r"class_embed\.dino_visual_proj\.", "classifier.projection."),
    (r"class_embed\.clip_visual_proj\.", "semantic.projection."),
    (r"class_embed\.label_proj\.", "label_embedding."),
    (r"label_enc\.", "label_embedding."),
)
_ATTENTION = {
    ".sampling_offsets.": ".offsets.",
    ".attention_weights.": ".weights.",
    ".value_proj.": ".values.",
    ".output_proj.": ".output.",
}
_SHARED = re.compile(r"(?:transformer\.decoder\.)?(bbox_embed|class_embed)\.\d+\.")
_SCALE = re.compile(r"(?:transformer\.enc_out_)?class_embed\.logit_scale$")
_BACKBONE = re.compile(r"backbone\.0\.(?:body\.)?")
_TEACHER = "the frozen CLIP teacher, which FrozenClip loads where it is needed"
_TEXT = ("text", "log_scale")
_NO_CLASS = "none"  # the text of ids that no class has


@dataclass(frozen=True)
class OfficialCheckpoint:
    """A published checkpoint in this project's terms.

    Attributes:
        fields: Arguments of `DinoConfig`, read off the names and shapes; `backbone` is missing if
            the file has none.
        state: Tensors by this project's names.
        ignored: The official names that are left out, with the reason.
    """

    fields: dict[str, Any]
    state: State
    ignored: dict[str, str]


def load_official(
    source: Path | str | Mapping[str, Tensor], text: Tensor | None = None, heads: int = 8
) -> Dino:
    """A detector with published weights; arguments and errors are those of `translate`.

    A checkpoint does not tell which stages were frozen: the backbone's configuration freezes what
    METHOD 2.1 does. This matters for further training only.
    """
    found = translate(source, text, heads)
    if "backbone" not in found.fields:
        raise ValueError("the checkpoint has no backbone: it holds a part of a detector only")
    model = Dino(DinoConfig(**found.fields))
    missing, unknown = model.load_state_dict(found.state, strict=False)
    # Without a head that compares with text, neither text features nor their scale are used.
    needed = [name for name in missing if "text_dim" in found.fields or name not in _TEXT]
    if needed or unknown:
        raise ValueError(f"weights do not fit the model: missing {needed}, unknown {unknown}")
    return model


def translate(
    source: Path | str | Mapping[str, Tensor], text: Tensor | None = None, heads: int = 8
) -> OfficialCheckpoint:
    """Reads a published checkpoint in this project's terms.

    Args:
        source: The file or its tensors.
        text: Text features [C, D] (`official_text`), needed if a head compares with text.
        heads: Attention heads; the one size that no shape tells.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a published DINO or RichSem checkpoint, or `text` does not fit.
    """
    official = source if isinstance(source, Mapping) else read_checkpoint(Path(source))
    ignored = {name: _TEACHER for name in official if ".clip." in name}
    unique, copies = _without_copies({n: t for n, t in official.items() if n not in ignored})
    ignored |= copies
    inner = {name: t for name, t in unique.items() if _BACKBONE.match(name)}
    state = {_our_name(name): t for name, t in unique.items() if name not in inner}
    fields = _fields(state, heads)
    if text is not None or "text" in (fields["classifier"], fields["proposal_classifier"]):
        state["text"] = _checked_text(text, fields)
        fields["num_classes"], fields["text_dim"] = state["text"].shape
    if inner:
        maps = sum(t.shape[-1] == 1 for n, t in state.items() if re.match(r"neck.*\.0\.weight", n))
        originals = {_BACKBONE.sub("", name, count=1): name for name in inner}
        fields["backbone"], body, unused = translate_backbone(
            {short: inner[name] for short, name in originals.items()}, maps
        )
        state |= {f"backbone.{name}": tensor for name, tensor in body.items()}
        ignored |= {originals[short]: reason for short, reason in unused.items()}
    return OfficialCheckpoint(fields, state, ignored)


def read_checkpoint(path: Path) -> State:
    """The tensors of a checkpoint file, {"model": ...} or bare, without running code from it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # the training arguments
                content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in lines if "Unsupported" in line), lines[0]).strip()
        raise ValueError(
            f"{path}: cannot be read safely ({reason}). Open it where it is trusted and save only "
            'its weights: torch.save(torch.load(path, weights_only=False)["model"], new_path)'
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else {}
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f'{path}: no weights; expected tensors by name, or these under "model"')
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


@torch.no_grad()
def official_text(clip: FrozenClip, names: Mapping[int, str]) -> Tensor:
    """Text features as the published RichSem has them: one row per id, [max id + 1, D].

    Args:
        clip: CLIP RN50, which the published models were trained with.
        names: Category id -> name, verbatim from the annotation file. Ids that no class has, such
            as 0, get the text "none" without a template.
    """
    tokens = clip.tokenizer([_NO_CLASS]).to(clip.mean.device)
    blank = clip.model.encode_text(tokens).float()
    table = blank.repeat(max(names) + 1, 1)
    table[list(names)] = clip.text_features(list(names.values()))
    return table


def _without_copies(official: State) -> tuple[State, dict[str, str]]:
    """Each shared module once; the other names it is stored under must hold the same values."""
    unique: State = {}
    ignored = {}
    for name in sorted(official, key=lambda name: _first_name(name) != name):
        first = _first_name(name)
        if first not in unique:
            unique[first] = official[name]
        elif torch.equal(official[name], unique[first]):
            ignored[name] = f"the same as {first}"
        else:
            raise ValueError(
                f"{name} differs from {first}: a model with separate heads per decoder layer, "
                "which this detector does not have"
            )
    return unique, ignored


def _first_name(name: str) -> str:
    """The name that stands for all under which a module is stored."""
    if _SCALE.match(name):
        return "class_embed.logit_scale"
    return _SHARED.sub(r"\1.0.", name) if _SHARED.match(name) else name


def _our_name(name: str) -> str:
    if name == "class_embed.logit_scale":
        return "log_scale"
    for pattern, replacement in _RENAMED:
        if re.match(pattern, name):
            renamed = re.sub(pattern, replacement, name, count=1)
            for theirs, ours in _ATTENTION.items():
                renamed = renamed.replace(theirs, ours)
            return renamed
    raise ValueError(
        f"{name}: not a tensor of a published DINO or RichSem model with two stages, mixed query "
        "selection and box-only heads"
    )


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
        "encoder_layers": _count(state, "encoder.layers"),
        "decoder_layers": _count(state, "decoder.layers"),
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
    }
    if not cosine:
        fields["num_classes"] = len(state["classifier.weight"])
    if proposal_cosine:
        fields["text_dim"] = len(state["proposals.classifier.projection.weight"])
        fields["scale"] = float(state["log_scale"].exp())
    return fields


def _count(state: State, prefix: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{prefix}.")})


def _points(state: State, attention: str, per_point: int) -> int:
    rows = len(state[f"{attention}.weights.weight"])
    if rows % per_point:
        raise ValueError(f"{attention} has {rows} weights, not a multiple of heads x levels")
    return rows // per_point


def _checked_text(text: Tensor | None, fields: Mapping[str, Any]) -> Tensor:
    if text is None:
        raise ValueError(
            "the checkpoint compares with text features but does not hold them; pass "
            "text=official_text(FrozenClip(RN50), {category id: name})"
        )
    expected = (fields.get("num_classes", len(text)), fields.get("text_dim", text.shape[-1]))
    if text.shape != expected:
        raise ValueError(f"text features have shape {tuple(text.shape)}, expected {expected}")
    return text
