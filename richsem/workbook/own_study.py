"""One's own long tail (notebook 15): what both methods make of it, class by class, at what cost.

Which runs these are is known only when the files are, so the notebook itself asks for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from richsem.config import Profile
from richsem.data.box_sets import BoxDataset
from richsem.data.categories import GROUPS
from richsem.operations import recipe_book, store
from richsem.processes import used_by_children
from richsem.training.build import open_extra
from richsem.training.run_config import RunConfig
from richsem.training.runs import ids_of_classes
from richsem.workbook import results
from richsem.workbook.comparison import at_length

BEFORE, AFTER = "baseline", "RichSem"
CLASSES = 24  # of the table, evenly spaced along the tail


def own_runs(
    profile: Profile, files: Mapping[str, Any], *, seed: int, steps: int, settings: Sequence[str]
) -> dict[str, RunConfig]:
    """Baseline and RichSem on `notebook_data.own_files`, as `python -m richsem train` makes them.

    With at most so many steps on detection pictures, or with the command's own number if it is 0.
    """
    asked = {BEFORE: ("baseline", {"own": files["own"]}), AFTER: ("richsem", files)}
    configs = {}
    for name, (recipe, known) in asked.items():
        config = recipe_book.configure(recipe, profile, seed=seed, settings=settings, **known)
        configs[name] = min(at_length(config, steps), config, key=lambda run: run.train.steps)
    return configs


def trained(configs: Mapping[str, RunConfig]) -> tuple[dict[str, store.Judged], pd.DataFrame]:
    """What runs achieve on what is held out, and their cost, one after the other.

    Steps; processor seconds of training, and of all that was done now (features, soft labels and
    judging, too); the largest memory so far of a process that this one started.
    """
    judged, costs = {}, []
    for name, config in configs.items():
        before, _ = used_by_children()
        judged |= store.finished({name: config})
        after, memory = used_by_children()
        last = judged[name].history[-1]
        costs.append((last["step"], last["cpu_seconds"], after - before, memory))
    columns = ["steps", "CPU-s of training", "CPU-s in all, now", "GB at most"]
    return judged, pd.DataFrame(costs, index=list(configs), columns=columns)


def tail_frame(config: RunConfig, judged: Mapping[str, store.Judged]) -> pd.DataFrame:
    """A line per class, most frequent first: what is learnt from, what is judged by, and AP."""
    train, val = store.training_dataset(config), store.judged_dataset(config, "val")
    extra, ids = config.data.extra, ids_of_classes(train.categories, val.categories)
    pictures = open_extra(extra, config.data, train.categories) if extra else None
    objects = {c.id: n for c, n in zip(val.categories, val.instance_counts(), strict=True)}
    columns = {
        "dataset": train.name,
        "category": [category.name for category in train.categories],
        "group": train.frequency_groups(),
        "pictures": train.image_counts(),
        "instances": train.instance_counts(),
        "extra": pictures.image_counts() if pictures and pictures.categories else 0,
        "judged": [objects.get(i, 0) for i in ids],
    }
    for name, run in judged.items():
        columns[name] = [100 * run.result.per_category.get(i, np.nan) for i in ids]
    frame = pd.DataFrame(columns).sort_values("instances", ascending=False, kind="stable")
    return frame.assign(gain=frame[AFTER] - frame[BEFORE]).reset_index(drop=True)


def tail_table(
    frame: pd.DataFrame, profile: Profile
) -> tuple[pd.DataFrame, dict[str, dict[str, str]]]:
    """AP of groups, then of `CLASSES` classes by their places on the tail; words about the rows."""
    seen = frame.dropna(subset="gain")
    parts = {"all": seen, **{words: seen[seen["group"] == g] for g, words in GROUPS.items()}}
    parts = {f"{name}, {len(part)} classes": part for name, part in parts.items() if len(part)}
    for place in np.unique(np.linspace(0, len(seen) - 1, CLASSES).round().astype(int)):
        parts[f"{seen.index[place] + 1}. {seen['category'].iloc[place]}"] = seen[place : place + 1]
    status, rows, details = results.usual_status(profile, published=False), [], {}
    for name, part in parts.items():
        for metric in (BEFORE, AFTER, "gain"):
            rows.append((name, metric, None, part[metric].mean(), None, None, 1, status))
        counts = {"boxes": "instances", "extra pictures": "extra", "judged by": "judged"}
        details[name] = {words: f"{part[column].sum():,}" for words, column in counts.items()}
    return pd.DataFrame(rows, columns=list(results.TABLE_COLUMNS)), details


def by_rarest(frame: pd.DataFrame, val: BoxDataset) -> tuple[BoxDataset, str]:
    """The judged set with the rarest classes that it shows as its rare ones, and their group.

    Frequencies are those of what was learnt from: the judged part alone would call more rare.
    """
    group = next(g for g in GROUPS if (frame["judged"][frame["group"] == g] > 0).any())
    rare = set(frame["category"][frame["group"] == group])
    categories = [
        msgspec.structs.replace(c, frequency="r" if c.name in rare else "f") for c in val.categories
    ]
    return replace(val, categories=tuple(categories)), GROUPS[group]
