"""A study: arms that are trained with several seeds, how they are compared, and what is claimed.

Seeds are paired: runs of one seed learn from the same training images, so the difference within a
seed is free of what the seeds differ in. Where a study has several sets or detectors, its arms are
named "set: arm", and only arms of one set are compared.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from richsem import provenance
from richsem.data.box_sets import BoxDataset
from richsem.operations.store import Judged
from richsem.training.run_config import RunConfig
from richsem.workbook import intervals, results

METRICS = {"AP": "AP", "APr": "AP_r", "APc": "AP_c", "APf": "AP_f"}
COCO_METRICS = {"AP": "AP", "AP50": "AP50"}

Arm = Any  # a name, or what else tells arms apart
Runs = dict[tuple[Arm, int], RunConfig]  # by arm and seed


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a comparison was made from, for its provenance."""

    runs: tuple[RunConfig, ...]
    split: str = "val"  # where they are judged


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence about two arms that numbers can contradict."""

    words: str
    arm: str  # the arm that should be better
    other: str  # the one that it is compared with
    metric: str = "AP_r"
    margin: float = 0.0  # by how much at least, in points; negative allows a loss


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms over seeds: what is run, compared, claimed and published."""

    arms: Mapping[Arm, Callable[[int], RunConfig]]  # the run of a seed
    pairs: Sequence[tuple[str, str]] = ()  # differences "first - second" that a table states
    claims: Sequence[Claim] = ()
    paper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by arm and metric
    other_quantity: str = ""  # arms that begin so: the paper has something else than we measure
    metrics: Mapping[str, str] = field(default_factory=lambda: METRICS)  # evaluation's -> table's

    def runs(self, seeds: Iterable[int]) -> Runs:
        """The runs of all arms and seeds; arms may share a run, which is trained once."""
        seeds = tuple(seeds)
        return {(arm, seed): make(seed) for arm, make in self.arms.items() for seed in seeds}

    def frame(self, judged: Mapping[tuple[Arm, int], Judged]) -> pd.DataFrame:
        """Percentages, one line per arm, seed and metric: columns arm, seed, metric, value."""
        return pd.DataFrame(
            {"arm": arm, "seed": seed, "metric": name, "value": 100 * run.result.metrics[key]}
            for (arm, seed), run in judged.items()
            for key, name in self.metrics.items()
            if not np.isnan(run.result.metrics.get(key, np.nan))
        )

    def rows(self, frame: pd.DataFrame, profile: str) -> pd.DataFrame:
        """Means and differences as rows of a published table, set by set.

        Nothing is "reproduced" where nothing was published, or another quantity.
        """
        summary = pd.concat([means(frame), differences(frame, self.pairs)])
        rows = []
        for line in summary.itertuples():
            paper = self.paper.get(line.arm, {}).get(line.metric)
            unlike = bool(self.other_quantity) and line.arm.startswith(self.other_quantity)
            published = paper is not None and not unlike
            status = results.usual_status(profile, published=published)
            values = (line.arm, line.metric, paper, line.mean, line.low, line.high, line.seeds)
            rows.append(dict(zip(results.TABLE_COLUMNS, (*values, status), strict=True)))
        table = pd.DataFrame(rows, columns=list(results.TABLE_COLUMNS))
        sets = pd.factorize(table["row"].map(set_of))[0]
        return table.iloc[sets.argsort(kind="stable")].reset_index(drop=True)

    def findings(self, frame: pd.DataFrame) -> list[dict[str, str]]:
        """What became of the claims, see `check`."""
        return check(self.claims, frame)


def arm(recipe: Callable[..., RunConfig], *names: Any, **known: Any) -> Callable[[int], RunConfig]:
    """A recipe of which only the seed is open."""
    return lambda seed: recipe(*names, seed=seed, **known)


def set_of(arm: str) -> str:
    """The set in front of an arm's name, with its colon; empty where there is none."""
    return arm.partition(": ")[0] + ": " if ": " in arm else ""


def means(frame: pd.DataFrame) -> pd.DataFrame:
    """A line per arm and metric: columns arm, metric, mean, low, high, seeds."""
    rows = []
    for (name, metric), part in frame.groupby(["arm", "metric"], sort=False):
        mean, low, high = intervals.of_mean(part["value"])
        row = {"arm": name, "metric": metric, "mean": mean, "low": low, "high": high}
        rows.append(row | {"seeds": len(part)})
    return pd.DataFrame(rows)


def differences(frame: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Paired differences "first - second" over the seeds that both have, in the form of `means`.

    Pairs of which an arm was not run are left out.
    """
    parts = []
    for first, second in pairs:
        wide = frame[frame["arm"].isin([first, second])].pivot(
            index=["seed", "metric"], columns="arm", values="value"
        )
        if {first, second} <= set(wide.columns):
            change = (wide[first] - wide[second]).dropna().rename("value").reset_index()
            name = f"{first} - {second.removeprefix(set_of(first))}"
            parts.append(change.assign(arm=name))
    return means(pd.concat(parts)) if parts else pd.DataFrame()


def check(claims: Iterable[Claim], frame: pd.DataFrame) -> list[dict[str, str]]:
    """What became of claims, as text for the files of a result (see `results`) and the report.

    A claim holds if the whole interval of the paired difference is above its margin, is refuted if
    the whole interval is below, and is open otherwise; one seed decides nothing. Claims about
    arms that were not run, or about classes that a split does not have, are left out.

    Returns:
        For each claim its words ("claim"), the "difference" with its 95 % interval, the number of
        "seeds" and the "verdict".
    """
    found = []
    for claim in claims:
        change = differences(frame[frame["metric"] == claim.metric], [(claim.arm, claim.other)])
        for line in change.itertuples():  # one, or none
            difference, verdict = f"{line.mean:+.1f} {claim.metric}", "open: one seed"
            if line.seeds > 1:
                difference += f" [{line.low:.2f}, {line.high:.2f}]"
                verdict = "open: the interval includes the margin"
            if line.low > claim.margin:
                verdict = "holds"
            elif line.high < claim.margin:
                verdict = "refuted"
            row = {"claim": claim.words, "difference": difference, "seeds": str(line.seeds)}
            found.append(row | {"verdict": verdict})
    return found


def in_words(found: Iterable[Mapping[str, str]]) -> str:
    """Findings as a Markdown list, the verdict first."""
    return "\n".join(f"- **{f['verdict']}**: {f['claim']} ({f['difference']})" for f in found)


def claims_frame(claims: Iterable[Claim]) -> pd.DataFrame:
    """Claims as a table, before anything is run."""
    return pd.DataFrame([vars(claim) for claim in claims])


def per_seed(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Percentages by arm, metric and seed, for a table's json."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for line in frame.itertuples():
        metrics = rows.setdefault(line.arm, {})
        metrics.setdefault(line.metric, {})[str(line.seed)] = line.value
    return rows


def cost_frame(judged: Mapping[tuple[str, int], Judged]) -> pd.DataFrame:
    """Mean cost of a run by arm: steps, cpu_seconds, and times_the_first arm of the same set."""
    last = {key: run.history[-1] for key, run in judged.items()}
    rows = pd.DataFrame(
        {"arm": arm, "steps": row["step"], "cpu_seconds": row["cpu_seconds"]}
        for (arm, _), row in last.items()
    )
    table = rows.groupby("arm", sort=False).mean()
    first = table.groupby(table.index.map(set_of), sort=False)["cpu_seconds"].transform("first")
    return table.assign(times_the_first=table["cpu_seconds"] / first)


def caption(seeds: int) -> str:
    """How many seeds, and whether there are intervals."""
    return f"{seeds} seeds, 95 % intervals over seeds" if seeds > 1 else "one seed, no intervals"


def stamp(
    judged: Mapping[Any, Judged], split: str, datasets: Iterable[BoxDataset], started: float
) -> dict[str, Any]:
    """What results of these runs were made from, see `provenance.stamp`."""
    configs = tuple(run.config for run in judged.values())
    return provenance.stamp(
        StudyConfig(runs=configs, split=split),
        sorted({config.train.seed for config in configs}),
        {dataset.name: dataset.fingerprint for dataset in datasets},
        started,
        trained_by={run.code for run in judged.values() if run.code},
    )
