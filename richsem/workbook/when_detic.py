"""When is Detic's choice of a box worth more than a tile? Three causes move how often it is right.

The paper's argument is that the choice misses. So the difference of the two methods should follow
the rate of right choices, whatever moves that rate. Stated before the runs: the difference changes
its sign where about half of the choices are right, and curves of different causes fall together.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from richsem.config import Profile
from richsem.data.drawn import StagedConfig, drawn_folder
from richsem.minilvis.render import BOXES
from richsem.operations import store
from richsem.training import runs
from richsem.training.run_config import RunConfig
from richsem.workbook import coarse, labs
from richsem.workbook.study import Study, claims_of, set_of

TILES, CHOICE = "RichSem", "Detic"


class Level(NamedTuple):
    """One point of a curve."""

    scale: float = 1.0  # of the named thing and of all others
    others: int = 0
    slips: float = 0.0  # part of the choices that falls on any query


# Chosen by the rates of the start weights, before anything was trained on them, so that these
# spread: from 0.7, where all causes begin, down to 0.1, 0.2 and 0.3. The second level of each came
# later, when results of the others were known, and was chosen by rates alone, too.
CAUSES = {
    "the choice slips": tuple(Level(slips=share) for share in (0.0, 0.25, 0.5, 1.0)),
    "smaller things": tuple(Level(scale=scale) for scale in (1.0, 0.8, 0.65, 0.5)),
    "more others": tuple(Level(others=number) for number in (0, 1, 3, 6)),
}


def when_detic(profile: Profile, *, root: str = "") -> Study:
    """RichSem and Detic at every level; arms are named "cause 0: RichSem".

    Levels that are the same images share their runs. Only drawn images can be staged: a `root` of
    real sets changes nothing, and at paper these are the demo's runs. The first and the last level
    of each cause decide, which claims are about.
    """
    del root
    known = labs.order("smoke" if profile == "smoke" else "demo").arms
    small = {"images": 2, "classes_per_group": 4} if profile == "smoke" else {}
    arms, pairs, deciding = {}, [], []
    for cause, levels in CAUSES.items():
        for number, (scale, others, slips) in enumerate(levels):
            tiles, choice = (f"{cause} {number}: {method}" for method in (TILES, CHOICE))
            extra = {"staged": StagedConfig(scale=scale, others=others, **small)}
            for arm, method in ((tiles, "richsem"), (choice, "detic")):
                arms[arm] = labs.changed(known[method], f"staged {scale:g} {others}", extra=extra)
            if slips:
                loss = {"choice_slips": slips}
                arms[choice] = labs.changed(arms[choice], f"slips {slips:g}", loss=loss)
            pairs.append((tiles, choice))
            if number in (0, len(levels) - 1) and not small:
                deciding += [tiles, choice]
    claims = claims_of("fig_when_detic")
    return Study(arms=arms, pairs=pairs, claims=claims, deciding=deciding)


def rates(profile: Profile, seeds: Iterable[int]) -> pd.DataFrame:
    """How often the largest box is on the named thing (IoU 0.5): columns place, seed, when, right.

    Places are "cause 0" and so on. Counted with the detector that chooses, before Detic's run of
    the seed and after it. The runs have to be finished.
    """
    study, rows = when_detic(profile), []
    for _, arm in study.pairs:
        place = arm.removesuffix(f": {CHOICE}")
        for seed in seeds:
            config = study.arms[arm](seed)
            ended = runs.open_trained(store.run_folder(config))
            start = runs.open_small([one.name for one in ended.classes])
            for when, trained in (("start", start), ("end", ended)):
                rows.append((place, seed, when, _rate(trained, config)))
    return pd.DataFrame(rows, columns=["place", "seed", "when", "right"])


def _rate(trained: runs.Trained, config: RunConfig) -> float:
    """The part of right choices on an image of each class, as large as training shows it."""
    extra, slips, found = config.data.extra, config.loss.choice_slips, []
    seen = replace(config, data=replace(config.data, transform=extra.transform))
    root = drawn_folder(extra.staged)
    boxes = json.loads((root / BOXES).read_bytes())
    for name, box in [*boxes.items()][:: extra.staged.images]:
        picture = coarse.known_picture(Image.open(root / name), [np.array(box)])
        one = coarse.propose(replace(trained, recipe=seen), picture, label=0)
        right = one.ious[:-1] >= 0.5
        found.append((1 - slips) * right[one.sizes.argmax()] + slips * right.mean())
    return float(np.mean(found))


def points(frame: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Differences RichSem - Detic at every level beside the rate (of `rates`) of right choices.

    Columns cause, level (its number), place, right, seed, metric and value.
    """
    wide = frame.assign(place=frame["arm"].map(set_of).str.removesuffix(": "))
    wide["arm"] = frame["arm"].str.partition(": ")[2]
    wide = wide.pivot(index=["place", "seed", "metric"], columns="arm", values="value")
    table = (wide[TILES] - wide[CHOICE]).rename("value").reset_index()
    table["right"] = table["place"].map(found.groupby("place")["right"].mean())
    names = table["place"].str.rsplit(" ", n=1)
    return table.assign(cause=names.str[0], level=names.str[1])


def lines(table: pd.DataFrame) -> pd.DataFrame:
    """A straight line through the `points` of each cause and seed, in the form of `Study.frame`.

    "slope" is in points for each tenth more right choices, "at half" where half of them are right.
    Seeds that only some levels were run with are left out.
    """
    rows, levels = [], table.groupby("cause")["place"].nunique()
    for (cause, metric, seed), part in table.groupby(["cause", "metric", "seed"], sort=False):
        if len(part) < levels[cause]:
            continue
        slope, level = np.polyfit(part["right"] - 0.5, part["value"], 1)
        found = {"slope": slope / 10, "at half": level}
        rows += [(cause, seed, f"{metric}, {what}", value) for what, value in found.items()]
    return pd.DataFrame(rows, columns=["arm", "seed", "metric", "value"])
