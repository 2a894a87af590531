"""Exercises of notebooks 08 to 15: judging, comparing, and what numbers say."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import drop_annotations
from richsem.evaluation import Detections
from richsem.workbook import error_verdicts, judging, study
from richsem.workbook.course import near, points
from richsem.workbook.error_verdicts import Judgement
from richsem.workbook.study import Claim, Study


def ap_by_hand(answer: Any, *, judgement: Judgement, label: int) -> str | None:
    """08, compute: AP50 of a class in percent, from its precision-recall curve."""
    curve = error_verdicts.precision_recall(judgement, label)
    envelope = curve["precision"][::-1].cummax()[::-1]
    truth = 100 * error_verdicts.class_ap(judgement)[label]
    slips = {
        "in percent, please.": truth / 100,
        "this is the mean over detections; AP is one over levels of recall.": 100 * envelope.mean(),
    }
    hint = "at each of the 101 recalls take the envelope's precision, 0 where none is reached."
    return near(answer, truth, slips, hint)


def louder_rare_classes(
    answer: Any, *, dataset: BoxDataset, found: Detections, louder: Detections, protocol: Any
) -> str | None:
    """08, change: AP_r at a cap of 20 if rare classes have ten times their scores."""

    def of_rare(detections: Detections, cap: int) -> float:
        table = judging.cap_curve(dataset, detections, protocol, (cap,)).set_index("group")
        return float(table.loc["r", "ap"])

    slips = {
        "this is AP_r with the scores as they are.": of_rare(found, 20),
        "the cap is 20, not 300.": of_rare(louder, 300),
    }
    return near(answer, of_rare(louder, 20), slips, "`judging.cap_curve` of `louder`, group r.")


def two_protocols(answer: Any) -> str | None:
    """08, argue: why the same boxes have two APs, and which comparison is allowed."""
    unseen = "verified|annotated|looked|federated|not listed"
    same = "same protocol|same rules|same cap|never compare|not be compared|not compare|only within"
    return points(answer, unseen=unseen, false="false|wrong|ignore|not count", same=same)


def half_of_an_interval(
    answer: Any, *, numbers: pd.DataFrame, first: str, second: str
) -> str | None:
    """09, compute: half the width of the 95 % interval of a paired difference in AP_r."""
    arms = numbers[numbers["metric"] == "AP_r"].pivot(index="seed", columns="arm", values="value")
    change = arms[first] - arms[second]
    mean, _, high = study.mean_interval(change)
    half, error = high - mean, change.sem()
    unpaired = half / error * (arms[first].sem() ** 2 + arms[second].sem() ** 2) ** 0.5
    slips = {
        "the spread of seeds, not of their mean: where is the root of n?": half
        * len(change) ** 0.5,
        "1.96 belongs to many seeds; five have t with 4 degrees of freedom.": 1.96 * error,
        "pair first, then take the spread: the seeds' own difficulty cancels.": unpaired,
    }
    return near(answer, half, slips, "t x s / sqrt(n), of the differences seed by seed.")


def verdicts_of_three_seeds(answer: Any, *, one: Study, numbers: pd.DataFrame) -> str | None:
    """09, change: how many verdicts differ between the first three seeds and all five."""
    few, every = (
        study.corrected(one.claims, numbers[numbers["seed"].isin(sorted(set(numbers["seed"]))[:n])])
        for n in (3, 5)
    )
    changed = (few["verdict"] != every["verdict"]).sum()
    slips = {
        "that many stay.": len(few) - changed,
        "that many hold.": (few["verdict"] == "holds").sum(),
    }
    return near(
        answer, changed, slips, "judge the claims twice and compare the words line by line."
    )


def whose_gain(answer: Any) -> str | None:
    """09, argue: how much of the gain is a merit of soft labels, and by which control one knows."""
    control = "hard label|control|shuffled|without soft|without clip"
    return points(answer, labels="label", control=control, rest="soft|clip|teacher")


def level_with_all(answer: Any, *, points_of: pd.DataFrame) -> str | None:
    """10, compute: the share dropped at which RichSem's AP_r is the baseline's with all boxes."""

    def crossing(metric: str) -> float:
        own = points_of[points_of["metric"] == metric].set_index(["arm", "drop"])["mean"]
        curve = own["RichSem"].sort_index()
        return float(np.interp(-own["baseline", 0.0], -curve.to_numpy(), curve.index))

    slips = {
        "this is AP's; AP_r is asked for.": crossing("AP"),
        "as a share, please.": 100 * crossing("AP_r"),
    }
    hint = "`numpy.interp` needs rising x: turn both signs, or the order."
    return near(answer, crossing("AP_r"), slips, hint)


def luck_of_the_draw(answer: Any, *, dataset: BoxDataset, share: float) -> str | None:
    """10, change: how far five draws differ in the number of classes with a single box."""
    draws = [drop_annotations(dataset, share, seed).instance_counts() for seed in range(5)]
    single = [int((counts == 1).sum()) for counts in draws]
    slips = {"that is the mean of the five.": np.mean(single), "that is the most.": max(single)}
    return near(answer, max(single) - min(single), slips, f"drop {share:.0%} with seeds 0 to 4.")


def held_once(answer: Any) -> str | None:
    """10, argue: what to do with a claim that only just clears its margin."""
    again = "again|second|retrain|repeat|another training|more seeds"
    return points(
        answer, again=again, chance="chance|noise|rounding|luck|spread", many="claims|margin"
    )


def lower_end_for_all(answer: Any, *, one: Study, numbers: pd.DataFrame) -> str | None:
    """11, compute: lower end of labels' gain, in an interval that all claims hold at once."""
    table = study.corrected(one.claims, numbers)
    line = table[table["claim"].str.startswith("Labels")].iloc[0]
    slips = {"this is the plain interval: 5 % is for one claim.": line["low"]}
    hint = "t at 1 - 0.025 / m, with m claims of the table, instead of 0.975."
    return near(answer, line["low_all"], slips, hint)


def claim_with_a_margin(answer: Claim, *, arms: Sequence[str]) -> str | None:
    """11, change: boxes of other classes cost frequent classes less than two points of AP."""
    if not {answer.arm, answer.other} <= set(arms):
        return f"the arms are {', '.join(arms)}."
    if (answer.arm, answer.other) == ("baseline", "o365_box"):
        return "`arm` is the one that should be better than `other` plus the margin."
    if (answer.arm, answer.other, answer.metric) != ("o365_box", "baseline", "AP_f"):
        return "which arm has boxes of other classes, and which metric is that of frequent ones?"
    return None if answer.margin == -2 else "a loss of less than two is a difference above ... ?"


def next_images(answer: Any) -> str | None:
    """11, argue: which extra images to collect next, and what they cost."""
    cost = "frequent|cost|pay|lose"
    return points(answer, labels="label", cost=cost, kind="portrait|scene|object-centric|boxes")
