"""A study: arms that are trained with several seeds, how they are compared, and what is claimed.

Seeds are paired: runs of one seed learn from the same training images, so the difference within a
seed is free of what the seeds differ in. Where a study has several sets or detectors, its arms are
named "set: arm", and only arms of one set are compared. Intervals are those of 95 %.
"""

import functools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from richsem import provenance
from richsem.data.box_sets import BoxDataset
from richsem.evaluation import MASK
from richsem.operations.store import Judged
from richsem.training.run_config import RunConfig
from richsem.workbook import results

AP_NAMES = {"AP": "AP", "APr": "AP_r", "APc": "AP_c", "APf": "AP_f"}

Arm = Any  # a name, or what else tells arms apart
Make = Callable[[int], RunConfig]  # the run of a seed
Estimate = tuple[float, float, float]  # value, low and high end of its interval
Pairs = Iterable[tuple[str, str]] | Mapping[str, tuple[str, str]]  # of arms; names replace "a - b"


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a comparison was made from, for its provenance."""

    runs: tuple[RunConfig, ...]
    split: str = "val"  # where they are judged


class Claim(NamedTuple):
    """A sentence about two arms that numbers can contradict; those of studies: `claims.csv`."""

    words: str
    arm: str  # the arm that should be better
    other: str  # the one that it is compared with
    metric: str = "AP_r"
    margin: float = 0.0  # by how much at least, in points; negative allows a loss
    # Before the runs that it is judged by, or after their results were seen (LOG.md says which).
    stated: Literal["before", "after"] = "before"


_CLAIMS = pd.read_csv(Path(__file__).with_name("claims.csv"), index_col="result")


def claims_of(result: str, **names: str) -> list[Claim]:
    """What is claimed of a table or figure; `names` stand for what their words have in braces."""
    own = _CLAIMS.loc[[result]].to_dict("records")
    return [Claim(**row | {"words": row["words"].format(**names)}) for row in own]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms over seeds: what is run, compared, claimed and published."""

    arms: Mapping[Arm, Make]
    pairs: Sequence[tuple[str, str]] = ()  # differences "first - second" that a table states
    claims: Sequence[Claim] = ()
    paper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by arm and metric
    other_quantity: str = ""  # arms that begin so: the paper has something else than we measure
    deciding: Collection[Arm] = ()  # arms that more seeds are spent on
    metrics: Mapping[str, str] = field(default_factory=lambda: AP_NAMES)  # evaluation's -> table's

    def runs(
        self, seeds: Iterable[int], more: Iterable[int] = ()
    ) -> dict[tuple[Arm, int], RunConfig]:
        """The runs of all arms and seeds, and those of the deciding arms with `more` seeds.

        Arms may share a run, which is trained once.
        """
        every = dict.fromkeys(seeds)
        most = every | dict.fromkeys(more)
        return {
            (arm, seed): make(seed)
            for arm, make in self.arms.items()
            for seed in (most if arm in self.deciding else every)
        }

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
        rows = []
        summary = pd.concat([means(frame), differences(frame, self.pairs)])
        for arm, metric, *estimate, seeds in summary.itertuples(index=False):
            paper = self.paper.get(arm, {}).get(metric)
            unlike = bool(self.other_quantity) and arm.startswith(self.other_quantity)
            unlike &= not metric.startswith(MASK)
            status = results.usual_status(profile, published=paper is not None and not unlike)
            rows.append((arm, metric, paper, *estimate, seeds, status))
        table = pd.DataFrame(rows, columns=list(results.TABLE_COLUMNS))
        sets = pd.factorize(table["row"].map(set_of))[0]
        return table.iloc[sets.argsort(kind="stable")].reset_index(drop=True)

    def findings(self, frame: pd.DataFrame) -> list[results.Finding]:
        """What became of the claims, as text for the files of a result and the report.

        A claim holds if the whole interval of the paired difference is above its margin, is refuted
        if the whole interval is below, and is open otherwise; one seed decides nothing. Claims
        about arms that were not run, or about classes that a split does not have, are left out.
        """
        found = []
        for line in corrected(self.claims, frame).itertuples():
            difference, ends, why = f"{line.mean:+.1f} {line.metric}", (None, None), "one seed"
            if line.seeds > 1:
                ends = round(line.low, 4), round(line.high, 4)
                difference += f" [{line.low:.2f}, {line.high:.2f}]"
                why = "the interval includes the margin"
            verdict = f"open: {why}" if line.verdict == "open" else line.verdict
            told = (line.claim, difference, str(line.seeds), verdict, line.stated)
            found.append(results.Finding(*told, round(line.mean, 4), *ends, line.margin))
        return found


def arm(recipe: Callable[..., RunConfig], *names: Any, **how: Any) -> Make:
    """A recipe of which only the seed is open."""
    return lambda seed: recipe(*names, seed=seed, **how)


def of_all_seeds(change: Callable[..., RunConfig]) -> Callable[..., Make]:
    """What changes a run, as what changes the runs of all seeds; it keeps its words for `help`."""

    @functools.wraps(change)
    def changed(make: Make, *words: Any, **how: Any) -> Make:
        return lambda seed: change(make(seed), *words, **how)

    return changed


def set_of(arm: str) -> str:
    """The set in front of an arm's name, with its colon; empty where there is none."""
    return arm.partition(": ")[0] + ": " if ": " in arm else ""


def mean_interval(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean and its interval by Student's t; with a single value the ends are nan."""
    values = np.asarray(values, dtype=float)
    mean = values.mean()
    if len(values) < 2:
        return mean, np.nan, np.nan
    # Not `ttest_1samp().confidence_interval()`, which warns where all values are the same.
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return mean, mean - half, mean + half


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Spearman's correlation and its interval; below five pairs all are nan.

    Fisher's z with the variance of Fieller et al. (1957).
    """
    if len(first) < 5:
        return np.nan, np.nan, np.nan
    rank = stats.spearmanr(first, second).statistic
    half = 1.96 * np.sqrt(1.06 / (len(first) - 3))
    middle = np.arctanh(np.clip(rank, -0.9999, 0.9999))
    return rank, np.tanh(middle - half), np.tanh(middle + half)


def means(frame: pd.DataFrame, by: Sequence[str] = ("arm", "metric")) -> pd.DataFrame:
    """Over seeds, a line per arm and metric: columns arm, metric, mean, low, high, seeds."""
    rows = [
        (*key, *mean_interval(part["value"]), len(part))
        for key, part in frame.groupby(list(by), sort=False)
    ]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "seeds"])


def differences(
    frame: pd.DataFrame, pairs: Pairs, by: Sequence[str] = ("arm", "metric")
) -> pd.DataFrame:
    """Paired differences "first - second" in the form of `means`, of pairs that were run."""
    if not isinstance(pairs, Mapping):
        pairs = {f"{a} - {b.removeprefix(set_of(a))}": (a, b) for a, b in pairs}
    parts = []
    index = ["seed", *(column for column in by if column != "arm")]
    for name, (first, second) in pairs.items():
        both = frame[frame["arm"].isin([first, second])]
        wide = both.pivot(index=index, columns="arm", values="value")
        if {first, second} <= set(wide.columns):
            change = (wide[first] - wide[second]).dropna().rename("value").reset_index()
            parts.append(change.assign(arm=name))
    return means(pd.concat(parts), by) if parts else pd.DataFrame()


def over(changes: pd.DataFrame, other: str) -> pd.DataFrame:
    """Those of `differences` that are to one arm, under the names of the others."""
    own = changes[changes["arm"].str.endswith(f" - {other}")]
    return own.assign(arm=own["arm"].str.removesuffix(f" - {other}"))


def changes_in_words(
    frame: pd.DataFrame,  # of `Study.frame`
    steps: Mapping[str, tuple[str, str]],  # what is added -> the arm with it and the one without
) -> str:
    """Paired differences as a Markdown list, with what their intervals say; of arms that were run.

    A difference whose interval includes zero is "open", as is one of a single seed.
    """
    told = {words: [] for words in steps}
    for metric in ("AP", "AP_r", "AP_f"):
        for line in differences(frame[frame["metric"] == metric], steps).itertuples():
            interval = f" [{line.low:.1f}, {line.high:.1f}]" if line.seeds > 1 else ""
            verdict = "more" if line.low > 0 else "less" if line.high < 0 else "open"
            told[line.arm].append(f"{line.mean:+.1f} {metric}{interval} ({verdict})")
    return "\n".join(f"- **{words}**: {', '.join(own)}" for words, own in told.items() if own)


def in_words(found: Iterable[results.Finding]) -> str:
    """Findings as a Markdown list, the verdict first; late claims say that they are late."""
    late = {"before": "", "after": "; *added after results were seen*"}
    return "\n".join(
        f"- **{one.verdict}**: {one.claim} ({one.difference}){late[one.stated]}" for one in found
    )


def tally(found: Sequence[results.Finding]) -> str:
    """How many claims hold, in a sentence."""
    ends = [one.verdict.partition(":")[0] for one in found]
    yes, no, unknown = map(ends.count, ("holds", "refuted", "open"))
    return f"Of {len(ends)} claims this upholds {yes}, refutes {no} and leaves {unknown} open."


def per_seed(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Percentages by arm, metric and seed, for a table's json."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for line in frame.itertuples():
        metrics = rows.setdefault(line.arm, {})
        metrics.setdefault(line.metric, {})[str(line.seed)] = line.value
    return rows


def shipped_numbers(table_id: str) -> pd.DataFrame:
    """What a shipped table of the demo profile was averaged from, in the form of `Study.frame`."""
    record = json.loads(results.find(table_id, "demo")["shipped"].read_bytes())
    return pd.DataFrame(
        {"arm": arm, "seed": int(seed), "metric": metric, "value": value}
        for arm, metrics in record["per_seed"].items()
        for metric, values in metrics.items()
        for seed, value in values.items()
    )


def corrected(claims: Iterable[Claim], frame: pd.DataFrame) -> pd.DataFrame:
    """Claims judged by intervals that are right all at once, and what the table could have seen.

    Columns claim, metric, margin, stated, seeds, mean, and those of `at_once`.
    """
    rows = [
        (claim.words, *claim[3:], line.seeds, line.mean, line.low, line.high)
        for claim in claims
        for part in [frame[frame["metric"] == claim.metric]]
        for line in differences(part, [(claim.arm, claim.other)]).itertuples()  # one, or none
    ]
    names = ["claim", "metric", "margin", "stated", "seeds", "mean", "low", "high"]
    return at_once(pd.DataFrame(rows, columns=names))


def at_once(table: pd.DataFrame) -> pd.DataFrame:
    """Claims of one table (columns metric, margin, seeds, mean, high), judged one by one and all.

    Bonferroni: of m claims each interval has the level 1 - 0.05 / m, so in at most one table of
    twenty any of them misses its difference, however the claims depend on each other (they share
    arms). Holm's steps refute a little more, but give no interval to hold against a margin.

    Its columns, and low, high, verdict and sees, plain; the same with "_all", corrected. `sees` is
    the smallest true distance from the margin that is told from it in four of five repetitions, in
    points, with the spread that the claims on a metric share.
    """
    number = max(len(table), 1)
    plain, every = (stats.t.ppf(1 - 0.025 / m, table["seeds"] - 1) for m in (1, number))
    table = table.copy()
    error = (table["high"] - table["mean"]) / plain
    variance = (error**2 * table["seeds"]).groupby(table["metric"]).transform("mean")
    for end, bar in {"": plain, "_all": every}.items():
        low, high = table["mean"] - bar * error, table["mean"] + bar * error
        table[f"low{end}"], table[f"high{end}"] = low, high
        told = [low > table["margin"], high < table["margin"]]
        table[f"verdict{end}"] = np.select(told, ["holds", "refuted"], "open")
        shifts = [smallest_shift(*pair) for pair in zip(table["seeds"], bar, strict=True)]
        table[f"sees{end}"] = shifts * np.sqrt(variance / table["seeds"])
    return table


@functools.cache
def smallest_shift(seeds: int, bar: float) -> float:
    """The mean, in standard errors, whose t is above `bar` in four of five cases; of one, nan."""
    if seeds < 2:
        return np.nan
    shifts = np.linspace(0, 3 * bar + 3, 500)
    return float(np.interp(0.8, stats.nct.sf(bar, seeds - 1, shifts), shifts))


def corrected_in_words(table: pd.DataFrame) -> str:
    """What `corrected` gives as a Markdown table, plain and corrected side by side."""
    if not (table["seeds"] > 1).any():
        return "One seed: there is no interval to correct."
    mean = zip(table["mean"], table["metric"], strict=True)
    cells = {"claim": [*table["claim"]], "difference": [f"{x:+.1f} {name}" for x, name in mean]}
    for end, words in {"": "95 %", "_all": f"95 % for all {len(table)}"}.items():
        own = table[[f"low{end}", f"high{end}", f"verdict{end}", f"sees{end}"]]
        cells[words] = [
            f"**{verdict}** [{low:.2f}, {high:.2f}], sees {sees:.1f}"
            for low, high, verdict, sees in own.itertuples(index=False)
        ]
    return results.markdown_table(cells)


def cost_frame(judged: Mapping[tuple[str, int], Judged]) -> pd.DataFrame:
    """Mean cost of a run by arm: steps, cpu_seconds, and times_the_first arm of the same set."""
    last = [(arm, run.history[-1]) for (arm, _), run in judged.items()]
    rows = [(arm, row["step"], row["cpu_seconds"]) for arm, row in last]
    frame = pd.DataFrame(rows, columns=["arm", "steps", "cpu_seconds"])
    table = frame.groupby("arm", sort=False).mean()
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
