"""Exercises of notebooks 08 to 15: judging, comparing, what a result is worth."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from richsem.data.box_sets import BoxDataset
from richsem.operations import cost
from richsem.operations.store import Judged
from richsem.workbook import comparison, scaling
from richsem.workbook.course import near, points

# --- 12 ------------------------------------------------------------------------------------------


def training_states(answer: Any, *, parts: pd.DataFrame) -> str | None:
    """12, compute: GB of weights, gradients and two means of the ladder's last detector."""
    weights = 4 * parts.iloc[-1].sum() * scaling.MEGA / cost.GIGA
    slips = {
        "these are the weights alone; what else does each parameter bring?": weights,
        "AdamW keeps two running means for each parameter.": 3 * weights,
        "a million bytes are a thousandth of a GB.": 4000 * weights,
    }
    return near(answer, 4 * weights, slips, "parameters times numbers per parameter times bytes.")


def deeper_decoder(answer: Any, *, config: scaling.ScalingConfig) -> str | None:
    """12, change: by what factor an image's GFLOP grow with twice the decoder layers of R50."""
    small, size = scaling.rung(config, "R50"), scaling.image_size(config, config.short_side)
    both = (small, replace(small, decoder_layers=2 * small.decoder_layers))
    flop = [sum(cost.image_flops(one, size).values()) for one in both]
    count = [sum(cost.count_parameters(cost.on_meta(one)).values()) for one in both]
    slips = {
        "the decoder doubles, and it is only a part of the whole.": 2.0,
        "that is the factor of the parameters.": count[1] / count[0],
        "that is what is added; the factor is after by before.": flop[1] / flop[0] - 1,
    }
    return near(answer, flop[1] / flop[0], slips, "sum `cost.image_flops` before and after.")


def one_small_gpu(answer: Any) -> str | None:
    """12, argue: what to do with FocalNet-H on a GPU that is too small."""
    return points(
        answer,
        filled_by="activation|pixel|mosaic|image",
        remedy="checkpoint|recomput|smaller|fewer",
        not_by="state|weight|parameter|shard",
    )


# --- 13 ------------------------------------------------------------------------------------------


def wrong_per_image(answer: Any, *, side: comparison.SideBySide, score: float) -> str | None:
    """13, compute: wrong boxes that the baseline shows per image from a score on."""
    wrong, images = (side.wrong["baseline"] >= score).sum(), len(side.dataset)
    every = len(side.shown(dict.fromkeys(side.wrong, score))["baseline"])
    slips = {
        "that is their number in all images.": wrong,
        "that counts all boxes that are shown, the right ones among them.": every / images,
        "that is a share of the boxes; asked is a number per image.": wrong / max(every, 1),
        "these are all wrong boxes, whatever their score.": len(side.wrong["baseline"]) / images,
    }
    return near(answer, wrong / images, slips, "count `side.wrong` from the score on.")


def gain_at(answer: Any, *, side: comparison.SideBySide, score: float = 0.1) -> str | None:
    """13, change: points of rare objects that RichSem finds more at one score for both runs."""

    def gain(alike: bool) -> float:
        outcomes = side.outcomes(side.thresholds(score, alike=alike))
        share = outcomes[["baseline", "RichSem"]].eq(comparison.FOUND).mean()
        return 100 * (share["RichSem"] - share["baseline"])

    slips = {
        "that is at equally many wrong boxes (`alike=False` gives both one score).": gain(True),
        "points are hundredths.": gain(False) / 100,
        "the gain is RichSem's share less the baseline's.": -gain(False),
    }
    return near(answer, gain(False), slips, "compare what `side.outcomes` calls found, by run.")


def four_pictures(answer: Any) -> str | None:
    """13, argue: what to ask somebody who shows four pictures in which RichSem is better."""
    return points(
        answer,
        choice="rule|chose|pick|select",
        others="lose|loss|worse|fewer|others|average",
        shown="score|threshold|wrong box|false|clutter",
    )


# --- 14 ------------------------------------------------------------------------------------------


def by_chance(answer: Any, *, claims: pd.DataFrame) -> str | None:
    """14, compute: claims that would hold by chance if all differences were nothing."""
    number = len(claims)
    slips = {
        "5 % of intervals miss on either side; a claim holds on one of them.": 0.05 * number,
        "that is the share; asked is a number of claims.": 0.025,
        "95 % of intervals hold the true difference, and these do not hold a claim.": 0.95 * number,
    }
    return near(answer, 0.025 * number, slips, "how often lies a whole 95 % interval above zero?")


def holding_by(answer: Any, *, claims: pd.DataFrame, margin: float = 1.0) -> str | None:
    """14, change: claims that still hold if a difference has to be a point at least."""
    slips = {
        "these hold with their own margin.": (claims["low"] > claims["margin"]).sum(),
        "the whole interval has to clear the margin, not its middle.": (
            claims["mean"] > margin
        ).sum(),
        "these do not hold.": len(claims) - (claims["low"] > margin).sum(),
    }
    return near(answer, (claims["low"] > margin).sum(), slips, "compare the column `low`.")


def a_narrow_claim(answer: Any) -> str | None:
    """14, argue: what a claim is worth that only just holds."""
    return points(
        answer,
        near="margin|zero|close|interval|bound|just",
        many="many|chance|multiple|claims|luck",
        again="seed|again|train|repeat|second",
    )


# --- 15 ------------------------------------------------------------------------------------------


def gain_where_judged(answer: Any, *, tail: pd.DataFrame, least: int = 5) -> str | None:
    """15, compute: the mean gain of classes with enough boxes to be judged by."""
    judged, enough = tail.dropna(subset="gain"), tail["judged"] >= least
    slips = {
        "that is the mean over all classes.": judged["gain"].mean(),
        "judged by, not learnt from: that is another column.": tail["gain"][
            tail["instances"] >= least
        ].mean(),
        "that is the median.": tail["gain"][enough].median(),
    }
    return near(answer, tail["gain"][enough].mean(), slips, "choose rows of `tail` by `judged`.")


def pictures_gained(
    answer: Any, *, marked: BoxDataset, judged: Mapping[str, Judged], score: float = 0.1
) -> str | None:
    """15, change: pictures that gain less those that lose, if a score of 0.1 is enough."""
    seen = comparison.shown({name: run.detections for name, run in judged.items()}, score)
    gain = comparison.ranking(comparison.outcome_frame(marked, seen))["gain"]
    slips = {
        "these gain; take away those that lose.": (gain > 0).sum(),
        "the gain is RichSem's less the baseline's.": -np.sign(gain).sum(),
    }
    return near(answer, np.sign(gain).sum(), slips, "rank again what `comparison.shown` shows.")


def ship_it(answer: Any) -> str | None:
    """15, argue: what a gain of one seed on a few boxes is worth."""
    return points(
        answer,
        few="few|two|box|small",
        seed="seed|chance|luck|repeat|noise",
        teacher="teacher|clip|knows",
    )
