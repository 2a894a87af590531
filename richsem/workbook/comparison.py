"""The baseline and RichSem side by side (notebook 07): losses, learning curves, classes, sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
from torch import nn

from richsem.config import Profile
from richsem.data.box_sets import BoxDataset
from richsem.evaluation import EvaluationResult
from richsem.operations.cost import count_parameters
from richsem.recipes import dino_recipes
from richsem.training.loop import Row
from richsem.training.run_config import RunConfig

METRICS = ("AP", "AP50", "AP75", "APr", "APc", "APf")


def pair(
    profile: Profile, *, seed: int = 0, root: str = "", steps: int = 0
) -> dict[str, RunConfig]:
    """The baseline and RichSem, with so many detection steps; 0 keeps their own."""
    recipes = {"baseline": dino_recipes.baseline, "RichSem": dino_recipes.richsem}
    configs = {}
    for name, recipe in recipes.items():
        config = recipe(profile, seed=seed, root=root)
        turns = 2 if config.data.extra else 1
        train = replace(config.train, steps=steps * turns or config.train.steps)
        configs[name] = replace(config, train=train)
    return configs


def history_frame(histories: Mapping[str, Sequence[Row]]) -> pd.DataFrame:
    """Losses: columns run, step, cpu_seconds, kind (of batch), term, value."""
    return pd.DataFrame(
        {
            "run": run,
            "step": row["step"],
            "cpu_seconds": row["cpu_seconds"],
            "kind": kind,
            "term": term,
            "value": value,
        }
        for run, rows in histories.items()
        for row in rows
        for kind, terms in row["losses"].items()
        for term, value in terms.items()
    )


def curve_frame(histories: Mapping[str, Sequence[Row]]) -> pd.DataFrame:
    """Learning curves in percent: columns run, step, cpu_seconds, metric, value."""
    columns = ["run", "step", "cpu_seconds", "metric", "value"]
    rows = [
        (run, row["step"], row["cpu_seconds"], metric, 100 * row["metrics"][metric])
        for run, rows in histories.items()
        for row in rows
        for metric in METRICS
        if metric in row.get("metrics", {})
    ]
    return pd.DataFrame(rows, columns=columns)


def metrics_frame(judgements: Mapping[str, EvaluationResult]) -> pd.DataFrame:
    """The main metrics in percent, one row per run."""
    rows = {
        run: {name: 100 * result.metrics[name] for name in METRICS if name in result.metrics}
        for run, result in judgements.items()
    }
    return pd.DataFrame(rows).T


def what_we_saw(table: pd.DataFrame, baseline: str, other: str) -> str:
    """The differences of two runs in words; one seed is an example and no proof."""
    gains = table.loc[other] - table.loc[baseline]
    parts = [f"{name} {gain:+.1f}" for name, gain in gains.items() if name != "AP75"]
    return (
        f"**What we saw.** {other} against {baseline}, one seed: {', '.join(parts)}. "
        "Seeds differ by a point or so: read a small difference as none. Whether the difference "
        "is real, and what is left of it at equal compute, takes several seeds."
    )


def ap_by_class(judgements: Mapping[str, EvaluationResult], dataset: BoxDataset) -> pd.DataFrame:
    """AP of every judged class in percent: one column per run, and name and frequency group."""
    frame = pd.DataFrame({run: 100 * pd.Series(r.per_category) for run, r in judgements.items()})
    groups = dataset.frequency_groups()
    known = {c.id: (c.name, g) for c, g in zip(dataset.categories, groups, strict=True)}
    frame[["category", "group"]] = [known[i] for i in frame.index]
    return frame


def parameters_frame(detectors: Mapping[str, nn.Module]) -> pd.DataFrame:
    """Parameters of each detector, in all and by part."""
    counts = {run: count_parameters(detector) for run, detector in detectors.items()}
    rows = {run: {"all": sum(parts.values()), **parts} for run, parts in counts.items()}
    return pd.DataFrame(rows).fillna(0).astype(int)
