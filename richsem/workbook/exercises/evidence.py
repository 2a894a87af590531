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


def ap_by_hand(*, judgement: error_verdicts.Judgement, label: int) -> dict[str, float]:
    """08, compute: AP50 of a class in percent, from its precision-recall curve."""
    curve = error_verdicts.precision_recall(judgement, label)
    envelope = curve["precision"][::-1].cummax()[::-1]
    truth = 100 * error_verdicts.class_ap(judgement)[label]
    return {"right": truth, "detections": 100 * envelope.mean()}


def louder_rare_classes(
    *, dataset: BoxDataset, found: Detections, louder: Detections, protocol: Any
) -> dict[str, float]:
    """08, change: AP_r at a cap of 20 if rare classes have ten times their scores."""
    asked, numbers = {"right": (louder, 20), "as_they_are": (found, 20), "cap": (louder, 300)}, {}
    for name, (detections, cap) in asked.items():
        table = judging.cap_curve(dataset, detections, protocol, (cap,)).set_index("group")
        numbers[name] = table.loc["r", "ap"]
    return numbers


def half_of_an_interval(*, numbers: pd.DataFrame, first: str, second: str) -> dict[str, float]:
    """09, compute: half the width of the 95 % interval of a paired difference in AP_r."""
    arms = numbers[numbers["metric"] == "AP_r"].pivot(index="seed", columns="arm", values="value")
    change = arms[first] - arms[second]
    mean, _, high = study.mean_interval(change)
    half, error = high - mean, change.sem()
    unpaired = half / error * (arms[first].sem() ** 2 + arms[second].sem() ** 2) ** 0.5
    spread = half * len(change) ** 0.5
    return {"right": half, "spread": spread, "many_seeds": 1.96 * error, "unpaired": unpaired}


def verdicts_of_three_seeds(*, one: study.Study, numbers: pd.DataFrame) -> dict[str, float]:
    """09, change: how many verdicts for all claims at once differ between three and five seeds."""
    seeds = sorted(set(numbers["seed"]))
    few, every = (
        study.corrected(one.claims, numbers[numbers["seed"].isin(seeds[:n])]) for n in (3, 5)
    )
    changed, plain = ((few[name] != every[name]).sum() for name in ("verdict_all", "verdict"))
    return {"right": changed, "plain": plain, "hold": (few["verdict_all"] == "holds").sum()}


def level_with_all(*, points_of: pd.DataFrame) -> dict[str, float]:
    """10, compute: the share dropped at which RichSem's AP_r is the baseline's with all boxes."""
    numbers = {}
    for name, metric in {"right": "AP_r", "of_all": "AP"}.items():
        own = points_of[points_of["metric"] == metric].set_index(["arm", "drop"])["mean"]
        curve = own["RichSem"].sort_index()
        numbers[name] = np.interp(-own["baseline", 0.0], -curve.to_numpy(), curve.index)
    return numbers


def luck_of_the_draw(*, dataset: BoxDataset, share: float) -> dict[str, float]:
    """10, change: how far five draws differ in the number of classes with a single box."""
    draws = [drop_annotations(dataset, share, seed).instance_counts() for seed in range(5)]
    single = [int((counts == 1).sum()) for counts in draws]
    most = max(single)
    return {"right": most - min(single), "mean": float(np.mean(single)), "most": most}


def lower_end_for_all(*, one: study.Study, numbers: pd.DataFrame) -> dict[str, float]:
    """11, compute: lower end of labels' gain, in an interval that all claims hold at once."""
    table = study.corrected(one.claims, numbers)
    line = table[table["claim"].str.startswith("Labels")].iloc[0]
    return {"right": line["low_all"], "of_one": line["low"]}


def claim_with_a_margin(answer: study.Claim, *, arms: Sequence[str]) -> str | None:
    """11, change: boxes of other classes cost frequent classes less than two points of AP."""
    if not {answer.arm, answer.other} <= set(arms):
        return f"the arms are {', '.join(arms)}."
    if (answer.arm, answer.other) == ("baseline", "o365_box"):
        return "`arm` is the one that should be better than `other` plus the margin."
    if (answer.arm, answer.other, answer.metric) != ("o365_box", "baseline", "AP_f"):
        return "which arm has boxes of other classes, and which metric is that of frequent ones?"
    return None if answer.margin == -2 else "a loss of less than two is a difference above ... ?"


def training_states(*, parts: pd.DataFrame) -> dict[str, float]:
    """12, compute: GB of weights, gradients and two means of the ladder's last detector."""
    weights = 4 * parts.iloc[-1].sum() * scaling.MEGA / cost.GIGA
    numbers = {"right": 4, "weights": 1, "one_mean": 3, "megabytes": 4000}
    return {name: times * weights for name, times in numbers.items()}


def deeper_decoder(*, config: scaling.ScalingConfig) -> dict[str, float]:
    """12, change: by what factor an image's GFLOP grow with twice the decoder layers of R50."""
    small, size = scaling.rung(config, "R50"), scaling.image_size(config, config.short_side)
    both = (small, replace(small, decoder_layers=2 * small.decoder_layers))
    flop = [sum(cost.image_flops(one, size).values()) for one in both]
    count = [sum(cost.count_parameters(cost.on_meta(one)).values()) for one in both]
    factor = flop[1] / flop[0]
    return {"right": factor, "part": 2, "parameters": count[1] / count[0], "added": factor - 1}


def wrong_per_image(*, side: comparison.SideBySide, score: float) -> dict[str, float]:
    """13, compute: wrong boxes that the baseline shows per image from a score on."""
    wrong, images = (side.wrong["baseline"] >= score).sum(), len(side.dataset)
    every = len(side.shown(dict.fromkeys(side.wrong, score))["baseline"])
    any_score = len(side.wrong["baseline"]) / images
    numbers = {"right": wrong / images, "in_all": wrong, "shown": every / images}
    return numbers | {"share": wrong / max(every, 1), "any_score": any_score}


def gain_at(*, side: comparison.SideBySide, score: float = 0.1) -> dict[str, float]:
    """13, change: points of rare objects that RichSem finds more at one score for both runs."""
    numbers = {}
    for name, alike in {"right": False, "alike": True}.items():
        outcomes = side.outcomes(side.thresholds(score, alike=alike))
        share = outcomes[["baseline", "RichSem"]].eq(comparison.FOUND).mean()
        numbers[name] = 100 * (share["RichSem"] - share["baseline"])
    return numbers


def by_chance(*, claims: pd.DataFrame) -> dict[str, float]:
    """14, compute: claims that would hold by chance if all differences were nothing."""
    n = len(claims)
    return {"right": 0.025 * n, "either_side": 0.05 * n, "share": 0.025, "inside": 0.95 * n}


def holding_by(*, claims: pd.DataFrame, margin: float = 1.0) -> dict[str, float]:
    """14, change: claims that still hold if a difference has to be a point at least."""
    hold, own = (claims["low"] > margin).sum(), (claims["low"] > claims["margin"]).sum()
    middle = (claims["mean"] > margin).sum()
    return {"right": hold, "own_margin": own, "middle": middle, "others": len(claims) - hold}


def gain_where_judged(*, tail: pd.DataFrame, least: int = 5) -> dict[str, float]:
    """15, compute: the mean gain of classes with enough boxes to be judged by."""
    gains, learnt = (tail["gain"][tail[column] >= least] for column in ("judged", "instances"))
    slips = {"every": tail["gain"].mean(), "learnt": learnt.mean(), "median": gains.median()}
    return {"right": gains.mean(), **slips}


def pictures_gained(
    *, marked: BoxDataset, judged: Mapping[str, Judged], score: float = 0.1
) -> dict[str, float]:
    """15, change: pictures that gain less those that lose, if a score of 0.1 is enough."""
    found = {name: run.detections for name, run in judged.items()}
    side = comparison.SideBySide.of(marked, found)
    gain = comparison.ranking(side.outcomes(side.thresholds(score, alike=False)))["gain"]
    return {"right": np.sign(gain).sum(), "gain": (gain > 0).sum()}
