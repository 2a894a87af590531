"""A trained detector as an ONNX file: one picture of one size in, its detections out.

Tracing takes sizes for constants, so a file is for pictures of one size. The semantic branch and
denoising serve training only and are not part of it.
"""

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from richsem import __version__
from richsem.evaluation import LVIS_MAX_DETS
from richsem.paths import check_own, write_own
from richsem.structures import Batch, Target
from richsem.training.runs import Trained

OPSET = 17  # `GridSample` and the `RoiAlign` of both detectors are in 16 and later
TOLERANCE = 1e-4  # of scores, and of boxes in parts of a picture
# Part of the detections that has to agree. Not all: where two of 900 proposals score the same, they
# may become each other's query.
AGREEING = 0.9


class OnePicture(nn.Module):
    """A detector as a function from pixels to scores [N], class indices [N] and boxes [N, 4]."""

    def __init__(self, trained: Trained, size: tuple[int, int]) -> None:
        super().__init__()
        self.detector, nothing = trained.detector.eval(), torch.zeros(0, 4)
        self.target = Target(nothing[:, 0].long(), nothing, size, original_size=size, image_id=0)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """RGB in 0..1 [1, 3, H, W]; boxes are xyxy in 0..1 of the picture, best first."""
        output = self.detector(Batch(targets=(self.target,), images=image))
        ((scores, labels, boxes),) = self.detector.detections(output, [(1, 1)], LVIS_MAX_DETS)
        return scores, labels, boxes.float()


def export(trained: Trained, out: Path, size: Sequence[int] = ()) -> tuple[int, int]:
    """Writes a detector on the CPU as a file, after onnxruntime has run it on a picture of noise.

    `size` is the height and width of pictures in pixels, by default the square of the detector's
    short side. Returns how many detections torch makes there, and how many of them onnxruntime
    makes, too, within `TOLERANCE`; a `ValueError` says why nothing was written.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"export needs {error.name}: pip install onnx onnxruntime") from error
    check_own(out)
    size = tuple(size) or (max(trained.transform.short_sides),) * 2
    multiple = trained.detector.config.pad_multiple
    if min(size) < 1 or any(side % multiple for side in size):
        raise ValueError(f"size is {list(size)}, expected two multiples of {multiple} pixels")
    model, file = OnePicture(trained, size), io.BytesIO()
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    axes = {name: {0: "detections"} for name in ("scores", "labels", "boxes")}
    names = {"input_names": ["image"], "output_names": list(axes), "dynamic_axes": axes}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what tracing takes for a constant, as it shall
        expected = model(image)
        try:  # the tracer: `torch.export` does not follow suppression and lists of regions
            torch.onnx.export(model, (image,), file, **names, opset_version=OPSET, dynamo=False)
        except RuntimeError as error:
            raise ValueError(f"this detector cannot be written as ONNX: {error}") from error
    graph = onnx.load_from_string(file.getvalue())
    onnx.helper.set_model_props(graph, _description(trained, size))
    content = graph.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": image.numpy()})
    number, same = len(expected[0]), agreeing(expected, [torch.from_numpy(one) for one in found])
    if same < AGREEING * number:
        raise ValueError(f"not written: onnxruntime finds {same} of {number} detections of torch")
    write_own(out, content)
    return number, same


def agreeing(expected: Sequence[Tensor], found: Sequence[Tensor]) -> int:
    """Number of expected detections (scores, labels, boxes) that were found, in whatever order."""
    one, other = (torch.column_stack([part.float() for part in own]) for own in (expected, found))
    return int((torch.cdist(one, other, p=torch.inf) < TOLERANCE).any(1).sum())


def _description(trained: Trained, size: Sequence[int]) -> dict[str, str]:
    """What the file says about itself."""
    backbone = trained.detector.backbone
    return {
        "made by": f"richsem {__version__}, {type(trained.detector).__name__}",
        "classes": json.dumps([{"id": one.id, "name": one.name} for one in trained.classes]),
        "size": json.dumps(size),
        "image": "RGB in 0..1, the whole picture resized to size (height, width)",
        "mean, std": json.dumps([backbone.mean.flatten().tolist(), backbone.std.flatten().tolist()])
        + " are taken off inside",
        "detections": "best first; labels are places in classes, boxes xyxy in 0..1 of the picture",
    }
