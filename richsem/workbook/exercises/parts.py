"""Exercises of notebooks 00 to 07: the data, the teacher, the detectors, the losses."""

from typing import Any

from torch import Tensor

from richsem.workbook.course import close


def share_of_mistakes(answer: Any, *, soft: Tensor, labels: Tensor) -> str | None:
    """05, compute: share of soft labels whose likeliest class is not the annotated one."""
    wrong = (soft.argmax(dim=1) != labels).float().mean().item()
    if close(answer, wrong, 0.005):
        return None
    if close(answer, 1 - wrong, 0.005):
        return "that is how often the teacher is right."
    if close(answer, 100 * wrong, 0.005):
        return "a share lies between 0 and 1."
    return "compare `soft.argmax(dim=1)` with `labels`, object by object."
