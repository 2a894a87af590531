"""RichSem as a workbook: long-tailed detection with rich semantics from CLIP.

import richsem
found = richsem.load("my-run").detect("photo.jpg")
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from richsem.training.runs import Trained

__version__ = "0.2.0"


def load(folder: Path | str, *, device: str | None = None) -> "Trained":
    """Opens a trained or converted detector; its `detect` finds objects in pictures.

    Args:
        folder: What `train`, `convert` or the run store wrote.
        device: Such as "cpu"; by default the accelerator if there is one.
    """
    from richsem.training.runs import open_trained

    return open_trained(folder, device=device)
