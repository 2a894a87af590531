"""Exercises of notebooks 08 to 15: judging, comparing, and what numbers say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import drop_annotations
from richsem.evaluation import Detections
from richsem.operations import cost
from richsem.operations.store import Judged
from richsem.workbook import comparison, error_verdicts, judging, scaling, study
from richsem.workbook.course import near


def ap_by_hand(answer: Any, *, judgement: error_verdicts.Judgement, label: int) -> str | None:
    """08, compute: AP50 of a class in percent, from its precision-recall curve."""
    curve = error_verdicts.precision_recall(judgement, label)
    envelope = curve["precision"][::-1].cummax()[::-1]
    truth = 100 * error_verdicts.class_ap(judgement)[label]
    slip = "this is the mean over detections; AP is one over levels of recall."
    hint = "at each of the 101 recalls take the envelope's precision, 0 where none is reached."
    return near(answer, truth, {slip: 100 * envelope.mean()}, hint)


def louder_rare_classes(
    answer: Any, *, dataset: BoxDataset, found: Detections, louder: Detections, protocol: Any
) -> str | None:
    """08, change: AP_r at a cap of 20 if rare classes have ten times their scores."""

    def of_rare(detections: Detections, cap: int) -> float:
        table = judging.cap_curve(dataset, detections, protocol, (cap,)).set_index("group")
        return float(table.loc["r", "ap"])

    slips = {"this is AP_r with the scores as they are.": of_rare(found, 20)}
    slips["the cap is 20, not 300."] = of_rare(louder, 300)
    return near(answer, of_rare(louder, 20), slips, "`judging.cap_curve` of `louder`, group r.")


def half_of_an_interval(
    answer: Any, *, numbers: pd.DataFrame, first: str, second: str
) -> str | None:
    """09, compute: half the width of the 95 % interval of a paired difference in AP_r."""
    arms = numbers[numbers["metric"] == "AP_r"].pivot(index="seed", columns="arm", values="value")
    change = arms[first] - arms[second]
    mean, _, high = study.mean_interval(change)
    half, error = high - mean, change.sem()
    unpaired = half / error * (arms[first].sem() ** 2 + arms[second].sem() ** 2) ** 0.5
    spread = half * len(change) ** 0.5
    slips = {
        "the spread of seeds, not of their mean: where is the root of n?": spread,
        "1.96 belongs to many seeds; five have t with 4 degrees of freedom.": 1.96 * error,
        "pair first, then take the spread: the seeds' own difficulty cancels.": unpaired,
    }
    return near(answer, half, slips, "t x s / sqrt(n), of the differences seed by seed.", 0.02)


def verdicts_of_three_seeds(answer: Any, *, one: study.Study, numbers: pd.DataFrame) -> str | None:
    """09, change: how many verdicts differ between the first three seeds and all five."""
    seeds = sorted(set(numbers["seed"]))
    few, every = (
        study.corrected(one.claims, numbers[numbers["seed"].isin(seeds[:n])])["verdict"]
        for n in (3, 5)
    )
    changed = (few != every).sum()
    slips = {"that many stay.": len(few) - changed, "that many hold.": (few == "holds").sum()}
    hint = "judge the claims twice and compare the words line by line."
    return near(answer, changed, slips, hint)


def level_with_all(answer: Any, *, points_of: pd.DataFrame) -> str | None:
    """10, compute: the share dropped at which RichSem's AP_r is the baseline's with all boxes."""

    def crossing(metric: str) -> float:
        own = points_of[points_of["metric"] == metric].set_index(["arm", "drop"])["mean"]
        curve = own["RichSem"].sort_index()
        return float(np.interp(-own["baseline", 0.0], -curve.to_numpy(), curve.index))

    slips = {"this is AP's; AP_r is asked for.": crossing("AP")}
    hint = "`numpy.interp` needs rising x: turn both signs, or the order."
    return near(answer, crossing("AP_r"), slips, hint)


def luck_of_the_draw(answer: Any, *, dataset: BoxDataset, share: float) -> str | None:
    """10, change: how far five draws differ in the number of classes with a single box."""
    draws = [drop_annotations(dataset, share, seed).instance_counts() for seed in range(5)]
    single = [int((counts == 1).sum()) for counts in draws]
    slips = {"that is the mean of the five.": np.mean(single), "that is the most.": max(single)}
    return near(answer, max(single) - min(single), slips, f"drop {share:.0%} with seeds 0 to 4.")


def lower_end_for_all(answer: Any, *, one: study.Study, numbers: pd.DataFrame) -> str | None:
    """11, compute: lower end of labels' gain, in an interval that all claims hold at once."""
    table = study.corrected(one.claims, numbers)
    line = table[table["claim"].str.startswith("Labels")].iloc[0]
    slips = {"this is the plain interval: 5 % is for one claim.": line["low"]}
    hint = "t at 1 - 0.025 / m, with m claims of the table, instead of 0.975."
    return near(answer, line["low_all"], slips, hint, 0.02)


def claim_with_a_margin(answer: study.Claim, *, arms: Sequence[str]) -> str | None:
    """11, change: boxes of other classes cost frequent classes less than two points of AP."""
    if not {answer.arm, answer.other} <= set(arms):
        return f"the arms are {', '.join(arms)}."
    if (answer.arm, answer.other) == ("baseline", "o365_box"):
        return "`arm` is the one that should be better than `other` plus the margin."
    if (answer.arm, answer.other, answer.metric) != ("o365_box", "baseline", "AP_f"):
        return "which arm has boxes of other classes, and which metric is that of frequent ones?"
    return None if answer.margin == -2 else "a loss of less than two is a difference above ... ?"


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
    return near(answer, wrong / images, slips, "count `side.wrong` from the score on.", 0.02)


def gain_at(answer: Any, *, side: comparison.SideBySide, score: float = 0.1) -> str | None:
    """13, change: points of rare objects that RichSem finds more at one score for both runs."""

    def gain(alike: bool) -> float:
        outcomes = side.outcomes(side.thresholds(score, alike=alike))
        share = outcomes[["baseline", "RichSem"]].eq(comparison.FOUND).mean()
        return 100 * (share["RichSem"] - share["baseline"])

    slips = {"that is at equally many wrong boxes: `alike=False` gives one score.": gain(True)}
    return near(answer, gain(False), slips, "compare what `side.outcomes` calls found, by run.")


def by_chance(answer: Any, *, claims: pd.DataFrame) -> str | None:
    """14, compute: claims that would hold by chance if all differences were nothing."""
    number = len(claims)
    slips = {
        "5 % of intervals miss on either side; a claim holds on one of them.": 0.05 * number,
        "that is the share; asked is a number of claims.": 0.025,
        "95 % of intervals hold the true difference, and these do not hold a claim.": 0.95 * number,
    }
    return near(answer, 0.025 * number, slips, "how often is a whole 95 % interval above 0?", 0.02)


def holding_by(answer: Any, *, claims: pd.DataFrame, margin: float = 1.0) -> str | None:
    """14, change: claims that still hold if a difference has to be a point at least."""
    low, middle = claims["low"], (claims["mean"] > margin).sum()
    slips = {
        "these hold with their own margin.": (low > claims["margin"]).sum(),
        "the whole interval has to clear the margin, not its middle.": middle,
        "these do not hold.": len(claims) - (low > margin).sum(),
    }
    return near(answer, (low > margin).sum(), slips, "compare the column `low`.")


def gain_where_judged(answer: Any, *, tail: pd.DataFrame, least: int = 5) -> str | None:
    """15, compute: the mean gain of classes with enough boxes to be judged by."""
    gains, learnt = (tail["gain"][tail[column] >= least] for column in ("judged", "instances"))
    slips = {
        "that is the mean over all classes.": tail["gain"].mean(),
        "judged by, not learnt from: that is another column.": learnt.mean(),
        "that is the median.": gains.median(),
    }
    return near(answer, gains.mean(), slips, "choose rows of `tail` by `judged`.", 0.02)


def pictures_gained(
    answer: Any, *, marked: BoxDataset, judged: Mapping[str, Judged], score: float = 0.1
) -> str | None:
    """15, change: pictures that gain less those that lose, if a score of 0.1 is enough."""
    found = {name: run.detections for name, run in judged.items()}
    side = comparison.SideBySide.of(marked, found)
    gain = comparison.ranking(side.outcomes(side.thresholds(score, alike=False)))["gain"]
    slips = {"these gain; take away those that lose.": (gain > 0).sum()}
    return near(answer, np.sign(gain).sum(), slips, "rank again what `side.outcomes` gives.")
