"""What timm's networks are, from shapes alone: their maps and what pictures they take."""

import math
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from typing import Any

import timm
import torch
from timm.models._features import FeatureGetterNet
from torch import nn

_ONE_SIZE = ("mvitv2_",)  # networks for one size of which shapes do not show it
_REFUSED = (
    "{} takes pictures of one size, which a detector does not have; choose another network ({})"
)


def shapes_only() -> torch.device:
    """Modules that are made inside (`with shapes_only():`) have no weights."""
    return torch.device("meta")


def on_meta(name: str, **arguments: Any) -> nn.Module:
    """The architecture without memory for its weights, for names and shapes."""
    with shapes_only():
        return timm.create_model(name, **arguments)


def network_parameters(name: str, num_classes: int = 0) -> int:
    """Parameters of timm's whole network, with a classifier if it has classes."""
    return sum(p.numel() for p in on_meta(name, num_classes=num_classes).parameters())


@dataclass(frozen=True)
class Network:
    """What a detector has to know of one of timm's networks."""

    name: str
    stages: dict[int, str]  # stride -> module; of a plain ViT the last one, at a power of two
    patch: int  # side of a plain ViT's patches in pixels; 0 with maps of several strides
    arguments: dict[str, Any]  # with which it gives maps of pictures of any size
    multiple: int  # what sides of pictures have to be multiples of

    def stage(self, stride: int) -> str:
        """The module whose output has this stride."""
        if stride not in self.stages:
            known = list(self.stages)
            raise ValueError(f"{self.name} has no stage of stride {stride}; it has {known}")
        return self.stages[stride]


@cache
def network_of(name: str) -> Network:
    """What a network is; a `ValueError` says that there is none, or that no detector can use it."""
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=5, cutoff=0)
        raise ValueError(f"unknown backbone {name!r}; timm has e.g. {', '.join(close)}")
    try:
        info = on_meta(name, features_only=True).feature_info.info
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        raise ValueError(f"{name} gives no maps ({error}); choose another network") from error
    stages = {stage["reduction"]: stage["module"] for stage in info}
    if len(stages) > 1:
        arguments: dict[str, Any] = {"features_only": True}
        return Network(name, stages, 0, arguments, _side_multiple(name, 0, arguments))
    [(patch, module)] = stages.items()
    arguments = {"num_classes": 0, "dynamic_img_size": True}
    try:
        on_meta(name, **arguments)
    except TypeError:  # it always does that, or never, and is refused then
        del arguments["dynamic_img_size"]
    _side_multiple(name, patch, arguments)
    stride = 2 ** math.ceil(math.log2(patch))
    return Network(name, {stride: module}, patch, arguments, stride)


def _side_multiple(name: str, patch: int, arguments: dict[str, Any]) -> int:
    """What sides of pictures have to be multiples of; a network for one size is refused."""
    if name.startswith(("swin_", "focalnet")):
        return 4
    if name.startswith(_ONE_SIZE):
        raise ValueError(_REFUSED.format(name, "its tables of positions end there"))
    look = on_meta(name, **arguments).eval()
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
