"""The package `lvis`, as far as its release 0.5.3 has to be mended to judge whole sets."""

import logging
import types
from typing import Any

import numpy as np


class _SparseRows(dict):
    """Stands in for upstream's list of results per (category, area, image): mostly None."""

    def __missing__(self, key: int) -> None:
        """Answer None for a pair without boxes."""


def evaluate_occurring_pairs(self: Any) -> None:
    """Replace LVISEval.evaluate: visit only the (image, category) pairs that have boxes.

    Upstream visits every pair for every area range, 95 million calls on the full val set. Matching,
    accumulation and summary remain upstream's code.
    """
    params = self.params
    self._prepare()
    column_of = {image_id: i for i, image_id in enumerate(params.img_ids)}
    row_of = {category_id: i for i, category_id in enumerate(params.cat_ids)}
    self.eval_imgs = _SparseRows()
    for pair in sorted(set(self._gts) | set(self._dts)):
        self.ious[pair] = self.compute_iou(*pair)
        first = row_of[pair[1]] * len(params.area_rng)
        for area, bounds in enumerate(params.area_rng):
            place = (first + area) * len(params.img_ids) + column_of[pair[0]]
            self.eval_imgs[place] = self.evaluate_img(*pair, bounds)
        del self.ious[pair]


def import_lvis() -> types.ModuleType:
    """Import `lvis` on demand and repair what it does to others.

    It needs OpenCV, installs a root log handler, and uses `np.float`, which numpy removed. The
    name `np` is replaced inside its one module; numpy itself is left alone.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import lvis
        import lvis.eval as lvis_eval
    except ImportError as error:
        raise ImportError(
            f"the package lvis cannot be loaded ({error}). If a system library such as libGL is "
            "missing: apt install libgl1, or replace opencv-python by opencv-python-headless; or "
            'judge without it: pip install "richsem[fast]".'
        ) from error
    finally:
        root.handlers[:], root.level = handlers, level
    if lvis_eval.np is np and not hasattr(np, "float"):
        lvis_eval.np = types.SimpleNamespace(**vars(np), float=float)
    return lvis
