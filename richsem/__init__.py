"""RichSem as a workbook: long-tailed detection with rich semantics from CLIP.

import richsem
found = richsem.load("my-run").detect("photo.jpg")
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from richsem.models.clip import ClipConfig
    from richsem.training.runs import Trained

__version__ = "0.2.0"


def load(
    folder: Path | str = "small",
    names: Sequence[str] = (),
    *,
    teacher: "ClipConfig | None" = None,
    device: str | None = None,
) -> "Trained":
    """Opens a trained or converted detector; its `detect` finds objects in pictures.

    Args:
        folder: What `train`, `convert` or the run store wrote; "small" is the detector that comes
            with the package and knows drawn pictures only.
        names: Classes to look for instead of its own, for a detector with a text classifier.
        teacher: The CLIP that reads `names`, if not the one that the detector learnt with.
        device: Such as "cpu"; by default the accelerator if there is one.
    """
    from richsem.training import runs

    listed = [*dict.fromkeys(names or ())]
    if isinstance(names, str) or not all(isinstance(n, str) and n.strip() for n in listed):
        raise ValueError(f"names is {names!r:.80}, expected a list such as ['gas mask', 'boat']")
    if folder == "small" and not Path(folder, "detector.json").exists():
        from richsem.minilvis.glyphs import vocabulary

        drawn = [one.words for one in vocabulary("lvis")]
        return runs.open_small(listed or drawn, device=device)
    trained = runs.open_trained(folder, device=device)
    return runs.with_names(trained, listed, teacher) if listed else trained
