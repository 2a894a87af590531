"""Weight files of any origin: read without running what is in them, or refused in one line.

What a file is follows from its content, whatever it is called. Archives of torch carry check sums,
which torch does not look at; here they are, so that no damaged number passes for a weight.
"""

import argparse
import contextlib
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from richsem import foreign

State = dict[str, Tensor]
Model = TypeVar("Model", bound=nn.Module)
Kind = Literal["safetensors", "archive", "pickle"]  # the last one is what torch wrote before 1.6

_CUT = "is damaged or not complete"
_AGAIN = "copy or download it again"
_OBJECTS = "holds more than tensors, and opening that may run code"
_ALONE = "nothing was run; save tensors alone: torch.save(model.state_dict(), FILE)"
_SAVE = "torch.save(torch.load(FILE){0}, NEW)"
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch's pickles begin with


class CheckpointError(ValueError):
    """A file of weights is absent, damaged or made for another network."""


class _Inert:
    """Stands for an object of a pickle that is not looked at: it does nothing."""

    def __init__(self, *parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# What else is in files of tensors: arguments, best numbers and folders.
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
_PATHS = ("pathlib.PosixPath", "pathlib.WindowsPath")
_BESIDE = [argparse.Namespace, *((_Inert, name) for name in _SCALARS + _PATHS)]


def read(path: Path, within: Sequence[str] = ("model", "state_dict")) -> State:
    """The tensors of a file by their names, on the CPU, without running code from it.

    Known are torch's archives and its older pickles, TorchScript, and safetensors. Where the
    tensors lie under one of the names `within`, the first one counts; a warning names others, such
    as averaged ones (EMA). Prefixes of wrappers ("module.") are dropped. A `CheckpointError` says
    in one line what else the file is.
    """
    content = load(path)
    content = content if isinstance(content, Mapping) else {}
    taken = next((n for n in within if content.get(n) is not None), "")
    state = content.get(taken, content)
    others = {n: own for n, own in content.items() if n in within or re.search("ema|avg", str(n))}
    if taken and (place := _place({n: own for n, own in others.items() if n != taken})):
        words = f"taken are the weights under {taken!r}, not {place}; to take those first"
        warnings.warn(f"{path}: {words}: {_SAVE.format(place)}", stacklevel=2)
    state = state if isinstance(state, Mapping) else {}
    wrong = [n for n, t in state.items() if not (isinstance(n, str) and isinstance(t, Tensor))]
    if not state or wrong:
        found = f"; {wrong[0]!r} is a {type(state[wrong[0]]).__name__}" if wrong else ""
        if place := _place(content):
            found = f", not {place}; save these alone: {_SAVE.format(place)}"
        expected = f"expected tensors by name, or these under {within[0]!r}"
        raise CheckpointError(f"{path}: no weights; {expected}{found}")
    for prefix in ("module.", "_orig_mod.", "module."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        if problem := _problem(name, tensor):
            raise CheckpointError(f"{path}: tensor {name} {problem}; {_AGAIN}, or use another one")
    return {name: tensor.detach() for name, tensor in state.items()}


def load(path: Path) -> Any:
    """All that a file holds; what is no tensor is of Python's simplest kinds."""
    read_kind = {"safetensors": load_file, "archive": _from_archive, "pickle": _from_torch}
    with explained(path, _CUT, _AGAIN), warnings.catch_warnings(action="ignore"):
        return read_kind[kind(path)](path)


def kind(path: Path) -> Kind:
    """How a file keeps tensors; a `CheckpointError` says what it is if it keeps none."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name the file of weights in it")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint")
    with path.open("rb") as file:
        head = file.read(foreign.BYTES)
    with explained(path, _CUT, _AGAIN):  # an archive lists its content at its end
        if head.startswith(b"PK\3\4"):
            zipfile.ZipFile(path).close()
            return "archive"
        if head[8:9] == b"{":  # behind the length of the header
            with safe_open(path, "pt"):
                return "safetensors"
    if head.startswith(_OLD):
        return "pickle"
    what = foreign.what_it_is(head) or (
        f"damaged, or no file of tensors: it begins with {head[:8]!r}; known are those of torch "
        "and safetensors"
    )
    raise CheckpointError(f"{path} is {what}")


@contextlib.contextmanager
def explained(file: Path | str, what: str, remedy: str = "") -> Iterator[None]:
    """Says in one line what it means that reading or using a file's content fails inside.

    What is wrong with bytes that nobody wrote on purpose shows in nearly any exception.
    """
    try:
        yield
    except (CheckpointError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        if isinstance(error, KeyError):
            reason = f"{reason} is missing"
        # Around torch's own words stands advice that would be wrong here.
        reason = re.split(r"WeightsUnpickler error: | a trusted source\. ", reason)[-1]
        reason = re.split(r" was not an allowed| Check the doc| Please ", reason)[0]
        if "weights_only" in reason or not reason:
            reason = type(error).__name__
        if " GLOBAL " in reason:
            what, remedy = _OBJECTS, _ALONE
        raise CheckpointError(f"{file} {what} ({reason:.300}){remedy and f'; {remedy}'}") from error


def fill(model: Model, state: State, unused: Sequence[str] = ()) -> Model:
    """The model with these weights; of names that begin like one of `unused` it may keep its own.

    A `ValueError` says what is missing, not known or of another shape.
    """
    own = model.state_dict().items()
    needed = {name: t for name, t in own if name in state or not name.startswith(tuple(unused))}
    if wrong := mismatches(needed, state):
        raise ValueError(first_of(wrong))
    model.load_state_dict(state, strict=False)
    return model


def mismatches(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Differences between a module's tensors and stored ones, one line each."""
    lines = [f"{name} is missing" for name in own if name not in state]
    lines += [f"{name} is not known" for name in state if name not in own]
    for name, tensor in own.items():
        if name in state and not fits(tensor, state[name]):
            found, expected = list(state[name].shape), list(tensor.shape)
            if found == expected:
                found, expected = state[name].dtype, tensor.dtype
            lines.append(f"{name} is {found}, expected {expected}")
    return lines


def fits(own: Tensor, stored: Tensor) -> bool:
    """Whether a stored tensor can be taken: it has the shape, and fractions where they belong."""
    whole = own.is_floating_point() and not stored.is_floating_point()
    return own.shape == stored.shape and not whole


def first_of(lines: Collection[str]) -> str:
    """The first lines of many, as one."""
    return "; ".join(list(lines)[:3]) + (f"; {len(lines) - 3} more" if len(lines) > 3 else "")


def _place(content: Mapping[Any, Any], depth: int = 2) -> str:
    """How Python names where tensors lie, such as ['ema']['module']; empty if not so deep."""
    for name, own in content.items() if depth else ():
        if isinstance(own, Mapping):
            is_state = own and all(isinstance(tensor, Tensor) for tensor in own.values())
            if is_state or (inner := _place(own, depth - 1)):
                return f"[{name!r}]{'' if is_state else inner}"
    return ""


def _problem(name: str, tensor: Tensor) -> str:
    """Why a tensor cannot be a weight, if so."""
    coded = tensor.is_quantized or (tensor.is_floating_point() and tensor.dtype.itemsize == 1)
    if coded or tensor.layout != torch.strided or tensor.is_meta:
        return f"holds no plain numbers ({tensor.layout}, {tensor.device}, {tensor.dtype})"
    # Masks of attention are infinite where nobody may look, unused text features are no numbers.
    if tensor.is_floating_point() and not name.endswith(("mask", "text")):
        bad = tensor.numel() - int(tensor.float().isfinite().sum())
        return f"has {bad} values that are no finite numbers" if bad else ""
    return ""


def _from_torch(path: Path) -> Any:
    # Opened here: of a path torch would believe the ending of its name.
    with torch.serialization.safe_globals(_BESIDE), path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _from_archive(path: Path) -> Any:
    """What torch.save or TorchScript wrote."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if not any(name.endswith("data.pkl") for name in names):
            raise CheckpointError(
                f"{path} is packed; unpack it, or save its tensors by torch.save; inside are "
                f"{first_of(names)}"
            )
        tops = sorted({name.partition("/")[0] for name in names})  # torch writes one folder
        if len(tops) > 1 or f"{tops[0]}/data.pkl" not in names:
            raise CheckpointError(
                f"{path} was packed by another program than torch; {_AGAIN}, and leave it packed; "
                f"on top it has {first_of(tops)}"
            )
        code = b""
        for one in archive.infolist():
            with archive.open(one) as file:
                while one.CRC and file.read(1 << 22):  # zero if torch was asked not to compute it
                    pass  # a wrong sum is an error at the end
            code += archive.read(one) if one.filename.endswith(".py") else b""
    # Nothing is damaged, so what fails now was written in this way.
    with explained(path, _OBJECTS, _ALONE):
        if not any(name.endswith("constants.pkl") for name in names):
            return _from_torch(path)
        # Of a script's code only this would be run before anybody calls it.
        if b"__setstate__" in code:
            raise ValueError("its classes have a __setstate__")
        return torch.jit.load(path, map_location="cpu").state_dict()
