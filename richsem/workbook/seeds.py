"""Several seeds: means with 95 % intervals, paired differences, and what they say about a claim.

Seeds are paired: runs of one seed learn from the same training images, so the difference within a
seed is free of what the seeds differ in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from richsem.data.box_sets import BoxDataset
from richsem.data.categories import spoken_names
from richsem.models.clip import ClipConfig, FrozenClip
from richsem.operations.store import Judged
from richsem.training.run_config import RunConfig
from richsem.workbook import comparison
from richsem.workbook.region_readings import ReadConfig, read_regions
from richsem.workbook.results import TABLE_COLUMNS
from richsem.workbook.zero_shot import class_accuracy

METRICS = {"AP": "AP", "APr": "AP_r", "APc": "AP_c", "APf": "AP_f"}
COCO_METRICS = {"AP": "AP", "AP50": "AP50"}


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a comparison over seeds was made from.

    Attributes:
        runs: All runs.
        split: Where they are judged.
    """

    runs: tuple[RunConfig, ...]
    split: str = "val"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence about two arms that numbers can contradict.

    Attributes:
        words: The claim.
        arm: The arm that should be better.
        other: The one that it is compared with.
        metric: In what.
        margin: By how much at least, in points; negative allows a loss.
    """

    words: str
    arm: str
    other: str
    metric: str = "AP_r"
    margin: float = 0.0


TABLE4_CLAIMS = (
    Claim(words="RichSem finds rare classes better", arm="richsem", other="baseline"),
    Claim(words="RichSem loses no AP overall", arm="richsem", other="baseline", metric="AP"),
    Claim(
        words="RichSem loses nothing on frequent classes",
        arm="richsem",
        other="baseline",
        metric="AP_f",
    ),
    Claim(
        words="RichSem finds rare classes better than Detic's loss", arm="richsem", other="detic"
    ),
    Claim(
        words="RichSem finds rare classes better at equal compute",
        arm="richsem",
        other="long baseline",
    ),
    Claim(
        words="RichSem loses no AP at equal compute",
        arm="richsem",
        other="long baseline",
        metric="AP",
    ),
)


def seed_frame(
    runs: Mapping[tuple[str, int], Judged], metrics: Mapping[str, str] = METRICS
) -> pd.DataFrame:
    """Percentages, one line per arm, seed and metric: columns arm, seed, metric, value.

    Args:
        runs: (arm, seed) -> run.
        metrics: The evaluation's name of a metric -> the table's.
    """
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "metric": name, "value": 100 * run.result.metrics[key]}
        for (arm, seed), run in runs.items()
        for key, name in metrics.items()
        if not np.isnan(run.result.metrics.get(key, np.nan))
    )


def per_seed(frames: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, dict[str, float]]]:
    """Percentages by row, metric and seed, for a table's json.

    Args:
        frames: As `seed_frame` gives them, by what stands before their rows' names.
    """
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for prefix, frame in frames.items():
        for line in frame.itertuples():
            metrics = rows.setdefault(f"{prefix}{line.arm}", {})
            metrics.setdefault(line.metric, {})[str(line.seed)] = line.value
    return rows


def cost_frame(runs: Mapping[tuple[str, int], Judged]) -> pd.DataFrame:
    """Mean cost of a run by arm: columns steps, cpu_seconds and times_the_first.

    The first arm is that of the same set where names begin with one ("set: arm").
    """
    rows = pd.DataFrame(
        {
            "arm": arm,
            "steps": run.history[-1]["step"],
            "cpu_seconds": run.history[-1]["cpu_seconds"],
        }
        for (arm, _), run in runs.items()
    )
    table = rows.groupby("arm", sort=False).mean()
    sets = table.index.str.rpartition(": ").get_level_values(0)
    first = table.groupby(sets, sort=False)["cpu_seconds"].transform("first")
    return table.assign(times_the_first=table["cpu_seconds"] / first)


def codes(runs: Mapping[Any, Judged]) -> set[str]:
    """Commits of the code that trained the runs."""
    return {run.code for run in runs.values() if run.code}


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % confidence interval by Student's t; no interval for a single value."""
    values = np.asarray(values, dtype=float)
    mean = values.mean()
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return mean, mean - half, mean + half


def words(number: int) -> str:
    """How many seeds, and whether there are intervals, for a caption."""
    return f"{number} seeds, 95 % intervals over seeds" if number > 1 else "one seed, no intervals"


def means(frame: pd.DataFrame) -> pd.DataFrame:
    """A line per arm and metric: columns arm, metric, mean, low, high, seeds."""
    rows = []
    for (arm, metric), part in frame.groupby(["arm", "metric"], sort=False):
        mean, low, high = interval(part["value"])
        rows.append(
            {"arm": arm, "metric": metric, "mean": mean, "low": low, "high": high}
            | {"seeds": len(part)}
        )
    return pd.DataFrame(rows)


def differences(frame: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Paired differences "first - second" over the seeds that both have, in the form of `means`."""
    parts = []
    for first, second in pairs:
        wide = frame[frame["arm"].isin([first, second])].pivot(
            index=["seed", "metric"], columns="arm", values="value"
        )
        if {first, second} <= set(wide.columns):
            change = (wide[first] - wide[second]).dropna().rename("value").reset_index()
            parts.append(change.assign(arm=f"{first} - {second}"))
    return means(pd.concat(parts)) if parts else pd.DataFrame()


def table_rows(
    summary: pd.DataFrame,
    paper: Mapping[str, Mapping[str, float]],
    *,
    status: str,
    prefix: str = "",
) -> pd.DataFrame:
    """Means or differences as rows of a published table.

    Args:
        summary: As `means` gives it.
        paper: Arm -> metric -> published value; arms without one have none.
        status: What our numbers are, in the words of `results`; nothing is "reproduced" where
            nothing was published.
        prefix: Before each row's name.
    """
    rows = [
        {
            "row": f"{prefix}{line.arm}",
            "metric": line.metric,
            "paper": paper.get(line.arm, {}).get(line.metric),
            "ours": line.mean,
            "ci_low": line.low,
            "ci_high": line.high,
            "num_seeds": line.seeds,
            "status": status,
        }
        for line in summary.itertuples()
    ]
    table = pd.DataFrame(rows).reindex(columns=list(TABLE_COLUMNS))
    alone = table["paper"].isna() & (table["status"] == "reproduced")
    return table.assign(status=table["status"].mask(alone, "ours only"))


def check(claims: Sequence[Claim], frame: pd.DataFrame) -> pd.DataFrame:
    """What the numbers say about claims: columns claim, difference, low, high, seeds, verdict.

    A claim holds if the whole interval of the paired difference is above its margin, is refuted if
    the whole interval is below, and is open otherwise; one seed decides nothing. Claims about
    arms that were not run, or about classes that a split does not have, are left out.
    """
    rows = []
    for claim in claims:
        change = differences(frame[frame["metric"] == claim.metric], [(claim.arm, claim.other)])
        if change.empty:
            continue
        found = change.iloc[0]
        if found.seeds < 2:
            verdict = "open: one seed"
        elif found.low > claim.margin:
            verdict = "holds"
        elif found.high < claim.margin:
            verdict = "refuted"
        else:
            verdict = "open: the interval includes the margin"
        rows.append(
            {
                "claim": claim.words,
                "difference": f"{found['mean']:+.1f} {claim.metric}",
                "low": found.low,
                "high": found.high,
                "margin": claim.margin,
                "seeds": int(found.seeds),
                "verdict": verdict,
            }
        )
    return pd.DataFrame(rows)


def findings(checked: pd.DataFrame, prefix: str = "") -> list[dict[str, str]]:
    """What became of claims, as text for the files of a result (see `results`) and the report.

    Args:
        checked: As `check` gives it.
        prefix: Before each claim.

    Returns:
        For each claim its words ("claim"), the "difference" with its 95 % interval, the number of
        "seeds" and the "verdict".
    """
    return [
        {
            "claim": f"{prefix}{row.claim}",
            "difference": f"{row.difference} [{row.low:.2f}, {row.high:.2f}]"
            if row.seeds > 1
            else row.difference,
            "seeds": str(row.seeds),
            "verdict": row.verdict,
        }
        for row in checked.itertuples()
    ]


def in_words(found: Sequence[Mapping[str, str]]) -> str:
    """Findings as a Markdown list, the verdict first."""
    return "\n".join(f"- **{f['verdict']}**: {f['claim']} ({f['difference']})" for f in found)


def arms_over_seeds(
    arms: Mapping[str, Callable[[int], RunConfig]], seeds: Sequence[int]
) -> dict[tuple[str, int], RunConfig]:
    """The runs of all arms and seeds; arms that are the same run are trained once."""
    return {(arm, seed): make(seed) for arm, make in arms.items() for seed in seeds}


def curve_frame(runs: Mapping[tuple[str, int], Judged], arms: Sequence[str]) -> pd.DataFrame:
    """Learning curves: columns run (the arm), seed, step, cpu_seconds, metric, value."""
    parts = [
        comparison.curve_frame({arm: run.history}).assign(seed=seed)
        for (arm, seed), run in runs.items()
        if arm in arms
    ]
    return pd.concat(parts, ignore_index=True).replace({"metric": METRICS})


def teacher_accuracy(teacher: ClipConfig, dataset: BoxDataset) -> pd.Series:
    """Percent of the true boxes of each class that CLIP names right, by class index."""
    names = spoken_names(dataset.categories)
    reading = read_regions(FrozenClip(teacher), dataset, names, ReadConfig(mode="roi"))
    return class_accuracy(reading.ranks[0, 0], dataset.labels, 1)


def gain_by_class(
    runs: Mapping[tuple[str, int], Judged],
    first: str,
    second: str,
    dataset: BoxDataset,
    teacher: pd.Series,
) -> pd.DataFrame:
    """AP gained by each class, and how well the teacher names its boxes.

    Args:
        runs: (arm, seed) -> run.
        first: Arm whose gain it is.
        second: Arm that it is compared with.
        dataset: What they were judged on.
        teacher: Percent of a class's boxes that the teacher names right, by class index.

    Returns:
        Columns category, group, teacher, gain (points, mean over seeds).
    """
    ap = {
        arm: pd.DataFrame(
            {seed: run.result.per_category for (name, seed), run in runs.items() if name == arm}
        ).mean(axis=1)
        for arm in (first, second)
    }
    gain = 100 * (ap[first] - ap[second])
    groups = dataset.frequency_groups()
    rows = [
        {"category": c.name, "group": groups[i], "teacher": teacher[i], "gain": gain[c.id]}
        for i, c in enumerate(dataset.categories)
        if i in teacher.index and c.id in gain.index
    ]
    return pd.DataFrame(rows)


def gain_correlation(classes: pd.DataFrame) -> pd.DataFrame:
    """Does gain follow the teacher? Over all classes ("all") and within each group.

    Args:
        classes: As `gain_by_class` gives it.

    Returns:
        By group: number of classes, mean teacher and gain, and Spearman's rank correlation with
        its 95 % interval (Fisher's z with the variance of Fieller et al., 1957); none below five
        classes.
    """
    rows = {}
    for group, part in [("all", classes), *classes.groupby("group", sort=False)]:
        row = {"classes": len(part), **part[["teacher", "gain"]].mean()}
        if len(part) > 4:
            rank = part[["teacher", "gain"]].corr(method="spearman").iloc[0, 1]
            half = 1.96 * np.sqrt(1.06 / (len(part) - 3))
            middle = np.arctanh(np.clip(rank, -0.9999, 0.9999))
            low, high = np.tanh(middle - half), np.tanh(middle + half)
            row |= {"rank_correlation": rank, "low": low, "high": high}
        rows[group] = row
    columns = ["classes", "teacher", "gain", "rank_correlation", "low", "high"]
    return pd.DataFrame(rows).T.reindex(columns=columns)
