"""What timm's networks are: their maps and what pictures they take, found out on shapes."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import timm
import torch
from timm.models._features import FeatureGetterNet
from torch import nn

from richsem.models.shapes import shapes_only

_ONE_SIZE = ("mvitv2_",)  # networks for one size of which shapes do not show it
_REFUSED = (
    "{} takes pictures of one size, which a detector does not have; choose another network ({})"
)
_MADE = (4, 8, 16, 32, 64)  # strides that are made from the one map of a plain ViT


def on_meta(name: str, **arguments: Any) -> nn.Module:
    """The architecture without memory for its weights, for names and shapes."""
    with shapes_only():
        return timm.create_model(name, **arguments)


def network_parameters(name: str, num_classes: int = 0) -> int:
    """Parameters of timm's whole network, with a classifier if it has classes."""
    return sum(p.numel() for p in on_meta(name, num_classes=num_classes).parameters())


@cache
def map_info(name: str) -> tuple[dict[str, Any], ...]:
    """What timm says of each of a network's maps, such as its `reduction` and `module`."""
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=5, cutoff=0)
        raise ValueError(f"unknown backbone {name!r}; timm has e.g. {', '.join(close)}")
    try:
        return tuple(on_meta(name, features_only=True).feature_info.info)
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        raise ValueError(f"{name} gives no maps ({error}); choose another network") from error


def patch_side(name: str) -> int:
    """Side of a plain ViT's patches in pixels; 0 for a network with maps of several strides."""
    strides = {stage["reduction"] for stage in map_info(name)}
    return strides.pop() if len(strides) == 1 else 0


def stages_of(name: str) -> dict[int, str]:
    """Stride -> the module whose output has it; a plain ViT's stride is the next power of two."""
    if patch := patch_side(name):
        return {2 ** math.ceil(math.log2(patch)): map_info(name)[-1]["module"]}
    return {stage["reduction"]: stage["module"] for stage in map_info(name)}


def stage_of(stride: int, name: str) -> str:
    """The module whose output has this stride."""
    stages = stages_of(name)
    if stride not in stages:
        raise ValueError(f"{name} has no stage of stride {stride}; it has {list(stages)}")
    return stages[stride]


def check_strides(strides: tuple[int, ...], name: str) -> None:
    """Refuses strides of which a network has no map and of which none can be made."""
    for stride in strides:
        if not patch_side(name):
            stage_of(stride, name)
        elif stride not in _MADE:
            made = ", ".join(map(str, _MADE))
            raise ValueError(f"{name}: maps of strides {made} are made of its one, not {stride}")


@cache
def arguments_of(name: str) -> Mapping[str, Any]:
    """How a network is made so that it gives maps of pictures of any size."""
    if not patch_side(name):
        return MappingProxyType({"features_only": True})
    arguments = {"num_classes": 0, "dynamic_img_size": True}
    try:
        on_meta(name, **arguments)
    except TypeError:  # it always does that, or never: see `side_multiple`
        del arguments["dynamic_img_size"]
    return MappingProxyType(arguments)


@cache
def side_multiple(name: str) -> int:
    """What sides of pictures have to be multiples of; a network for one size is refused."""
    if name.startswith(("swin_", "focalnet")):
        return 4
    if name.startswith(_ONE_SIZE):
        raise ValueError(_REFUSED.format(name, "its tables of positions end there"))
    look, patch = on_meta(name, **arguments_of(name)).eval(), patch_side(name)
    sizes = {patch: (12, 20)} if patch else {1: (193, 351), 32: (6, 11)}
    if patch:
        look = partial(look.forward_intermediates, intermediates_only=True)
    elif isinstance(look, FeatureGetterNet):  # of attention, whose limits shapes do not all show
        del sizes[1]
    problem = ""
    for multiple, sides in sizes.items():
        try:
            with torch.device("meta"), torch.no_grad():
                look(torch.zeros(1, 3, *(multiple * side for side in sides)))
            return multiple
        except Exception as error:  # whatever a network may find wrong with a size
            problem = str(error).partition("\n")[0] or type(error).__name__
    raise ValueError(_REFUSED.format(name, problem[:100]))
