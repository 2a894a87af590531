"""When is Detic's choice of a box worth more than a tile? Three causes move how often it is right.

The paper's argument is that the choice misses. So the difference of the two methods should follow
the rate of right choices, whatever moves that rate. Stated before the runs: the difference changes
its sign where about half of the choices are right, and curves of different causes fall together.
"""

import json
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from richsem.config import Profile
from richsem.data.drawn import StagedConfig, drawn_folder
from richsem.data.transforms import Picture
from richsem.minilvis.staged import BOXES
from richsem.operations import store
from richsem.training import runs
from richsem.workbook import coarse, labs, study
from richsem.workbook.study import Claim, Study

TILES, CHOICE = "RichSem", "Detic"
MEASURED = 1  # images of each class on which choices are counted
SAME = 1.5  # points of AP_r within which curves of different causes count as one


class Level(NamedTuple):
    """One point of a curve."""

    scale: float = 1.0  # of the named thing and of all others
    others: int = 0
    slips: float = 0.0  # part of the choices that falls on any query


# Chosen so that the rates of the start weights are spread (0.75 down to 0.1, 0.3 and 0.3), before anything was
# trained. All causes begin at the same level.
CAUSES = {
    "the choice slips": tuple(Level(slips=share) for share in (0.0, 0.25, 0.5, 1.0)),
    "smaller things": tuple(Level(scale=scale) for scale in (1.0, 0.8, 0.65, 0.5)),
    "more others": tuple(Level(others=number) for number in (0, 1, 3, 6)),
}


def staged(level: Level, profile: Profile) -> StagedConfig:
    """The images of a level."""
    small = {"images": 2, "classes_per_group": 4} if profile == "smoke" else {}
    return StagedConfig(scale=level.scale, others=level.others, **small)


def when_detic(profile: Profile) -> Study:
    """RichSem and Detic at every level; arms are named "cause 0: RichSem".

    Levels that are the same images share their runs.
    """
    known = labs.order(profile).arms
    arms, pairs, claims = {}, [], []
    for cause, levels in CAUSES.items():
        for number, level in enumerate(levels):
            extra, place = {"staged": staged(level, profile)}, f"{cause} {number}"
            words = f"staged {level.scale:g} {level.others}"
            arms[f"{place}: {TILES}"] = labs.changed(known["richsem"], words, extra=extra)
            chosen = labs.changed(known["detic"], words, extra=extra)
            if level.slips:
                slips = {"choice_slips": level.slips}
                chosen = labs.changed(chosen, f"slips {level.slips:g}", loss=slips)
            arms[f"{place}: {CHOICE}"] = chosen
            pairs.append((f"{place}: {TILES}", f"{place}: {CHOICE}"))
        last = f"{cause} {len(levels) - 1}"
        words = f"Tiles help rare classes more than Detic's choice at the last level of: {cause}"
        claims.append(Claim(words=words, arm=f"{last}: {TILES}", other=f"{last}: {CHOICE}"))
    words = "At the first level, where the choice is right most often, it helps them more"
    first = f"{next(iter(CAUSES))} 0"
    claims.append(Claim(words=words, arm=f"{first}: {CHOICE}", other=f"{first}: {TILES}"))
    return Study(arms=arms, pairs=pairs, claims=claims)


def rates(profile: Profile, seeds: range) -> pd.DataFrame:
    """How often the largest box is on the named thing (IoU 0.5): cause, level, seed, when, right.

    Counted with the detector that chooses, on images as it sees them in training: at the start, and
    when Detic's run of the seed has ended. The runs have to be finished.
    """
    rows, arms = [], when_detic(profile).arms
    for cause, levels in CAUSES.items():
        for number, level in enumerate(levels):
            for seed in seeds:
                config = arms[f"{cause} {number}: {CHOICE}"](seed)
                ended = runs.open_trained(store.run_folder(config))
                start = runs.open_small([one.name for one in ended.classes])
                for when, trained in (("start", start), ("end", ended)):
                    right = _rate(staged(level, profile), level.slips, trained, config)
                    rows.append((cause, number, seed, when, right))
    return pd.DataFrame(rows, columns=["cause", "level", "seed", "when", "right"])
