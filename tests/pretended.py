"""An accelerator where there is none: tensors that compute on the CPU and keep its rules.

A tensor "there" says that it lies on `DEVICE`. An operation on tensors of both places is an error,
as is giving one there to numpy, or float64, which Macs lack; numbers are those of the CPU. So the
paths that a GPU takes run in full, with data-dependent steps and backward passes, which fake
tensors cannot do. Memory, speed and kernels of a real device are not pretended. In a backward pass
nothing is checked, as autograd itself believes that all is on the CPU.
"""

import contextlib
from unittest import mock

import torch
from accelerate import PartialState
from torch.nn.utils import rnn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE, CPU = torch.device("cuda", 0), torch.device("cpu")
aten = torch.ops.aten
# Real devices take tensors of both places here: copies, and places that are listed on the CPU.
_BOTH = {aten._to_copy.default, aten.copy_.default, aten.index.Tensor}
_PUT = {aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_NUMBERS = {aten._local_scalar_dense.default, aten.equal.default}  # what leaves the device
_MAKERS = (torch.tensor, torch.as_tensor, torch.asarray)


class There(torch.Tensor):
    """A tensor that pretends to lie on the accelerator."""

    @staticmethod
    def __new__(cls, here):
        layout = {name: getattr(here, name) for name in ("dtype", "layout", "requires_grad")}
        return cls._make_wrapper_subclass(
            cls, here.shape, here.stride(), here.storage_offset(), device=CPU, **layout
        )

    def __init__(self, here):
        if here.dtype == torch.float64:
            raise TypeError("accelerators of Macs have no float64")
        self.here = here

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})

    def to(self, *args, **kwargs):
        device, dtype = _asked(*args, **kwargs)
        if is_there(device or DEVICE) and dtype in (None, self.dtype):
            # A module's parameter is exchanged for what comes back, which cannot be itself.
            return self if torch.is_grad_enabled() else There(self.here)
        return aten._to_copy(self, dtype=dtype or self.dtype, device=device or DEVICE)

    def new_tensor(self, numbers, dtype=None):
        return aten._to_copy(torch.tensor(numbers, dtype=dtype or self.dtype), device=DEVICE)

    def cpu(self):
        return aten._to_copy(self, device=CPU)

    def tolist(self):
        return self.here.tolist()

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy


def _asked(*args, **kwargs):
    """Device and type that `Tensor.to` is given, None where it is not."""
    if args and isinstance(args[0], torch.Tensor):
        return args[0].device, args[0].dtype
    return torch._C._nn._parse_to(*args, **kwargs)[:2]


def is_there(device):
    return device is not None and torch.device(device).type == DEVICE.type


def here(tree):
    """The same tensors without pretending."""
    return tree_map(lambda one: one.here if isinstance(one, There) else one, tree)


def compute(operation, args, kwargs):
    """Runs an operation, after it is known that it would run on an accelerator, too."""
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    there = [one for one in tensors if isinstance(one, There)]
    backward = torch._C._current_graph_task_id() != -1
    if there and not backward:
        _refuse(operation, args, [one for one in tensors if not isinstance(one, There)])
    goes = bool(there) if kwargs.get("device") is None else is_there(kwargs["device"])
    goes = goes or backward
    if operation is aten.copy_.default:
        goes = isinstance(args[0], There)
    if is_there(kwargs.get("device")):
        kwargs = kwargs | {"device": CPU}
    out = operation(*here(args), **here(kwargs))
    if not goes or operation in _NUMBERS:
        return out
    written = [
        a.name for a in operation._schema.arguments if a.alias_info and a.alias_info.is_write
    ]
    if written and len(operation._schema.returns) == 1:  # in place
        return kwargs.get(written[0], args[0])
    return tree_map(lambda one: There(one) if isinstance(one, torch.Tensor) else one, out)


def _refuse(operation, args, others):
    """Raises where a real device would, for tensors on the CPU among those there."""
    if operation in _PUT:
        others = [one for one in (args[0], args[2]) if not isinstance(one, There)]
    elif operation is aten.index.Tensor:
        others = [] if isinstance(args[0], There) else [args[0]]
    elif operation in _BOTH:
        return
    if wrong := [tuple(one.shape) for one in others if one.dim()]:  # numbers may come from anywhere
        raise RuntimeError(f"{operation}: on the accelerator, but on the CPU are {wrong}")


class _Operations(TorchDispatchMode):
    """Also what has no tensor there among its inputs, such as making new ones."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Where torch looks for a real device before it asks anybody else."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if is_there(kwargs.get("device")):
            kwargs["device"] = DEVICE
            if function in _MAKERS:
                made = function(here(args[0]), *args[1:], **kwargs | {"device": CPU})
                return aten._to_copy(made, device=DEVICE)
        if function is torch.Tensor.to and not isinstance(args[0], There):
            device, dtype = _asked(*args[1:], **kwargs)
            if is_there(device):
                return aten._to_copy(args[0], dtype=dtype or args[0].dtype, device=DEVICE)
        result = function(*args, **kwargs)
        # Made inside of torch, which sees a CPU.
        inside = function in (rnn.pad_sequence, torch._C._nn.pad_sequence)
        if inside and isinstance(args[0][0], There) and not isinstance(result, There):
            return aten._to_copy(result, device=DEVICE)
        return result


@contextlib.contextmanager
def pretended():
    """An accelerator that everything finds and uses meanwhile."""
    save, one_hot = torch.save, torch.nn.functional.one_hot
    swapped = "torch.__future__.get_swap_module_params_on_conversion"  # parameters, not numbers

    def looked_up(labels, *classes):
        return aten._to_copy(one_hot(here(labels), *classes), device=labels.device)

    with (
        mock.patch.dict(PartialState().__dict__, device=DEVICE),
        mock.patch.object(torch.cuda, "_lazy_init", lambda: None),
        mock.patch(swapped, lambda: True),
        mock.patch.object(torch, "save", lambda content, file: save(here(content), file)),
        mock.patch.object(torch, "inference_mode", torch.no_grad),  # has no wrapped tensors
        mock.patch.object(torch.nn.functional, "one_hot", looked_up),
        _Operations(),
        _Functions(),
    ):
        yield
