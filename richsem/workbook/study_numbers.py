"""What notebooks 09 to 11 read off the runs of their studies, beside the published rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import dataset_spec, open_boxes
from richsem.data.categories import Category
from richsem.data.samples import match_classes
from richsem.minilvis.render import prepare
from richsem.operations.store import Judged
from richsem.training.build import data_root
from richsem.training.run_config import RunConfig
from richsem.workbook import comparison, reference, studies, study, supplement
from richsem.workbook.results import Finding
from richsem.workbook.studies import BASELINE, BASELINES, HALF, LONG, RICHSEM, SOFT

BY_DROP = ("arm", "drop", "metric")

# --- Table 4 (notebook 09) ---------------------------------------------------------------------


def learning_curves(judged: Mapping[tuple[str, int], Judged]) -> pd.DataFrame:
    """Learning curves of methods and long baselines.

    Columns run (the arm), step, cpu_seconds, metric, value, seed, detector.
    """
    parts = [
        comparison.curve_frame({arm: run.history}).assign(seed=seed)
        for (arm, seed), run in judged.items()
    ]
    frame = pd.concat(parts, ignore_index=True).replace({"metric": study.AP_NAMES})
    frame[["detector", "run"]] = frame["run"].str.split(": ", n=1, expand=True)
    return frame[frame["run"].isin((*supplement.METHODS, "long baseline"))]


def gain_by_class(
    judged: Mapping[tuple[str, int], Judged],  # what the runs achieve on `dataset`
    first: str,  # arm whose gain it is
    second: str,  # arm that it is compared with
    dataset: BoxDataset,
    teacher: pd.Series,  # percent of its boxes that CLIP names right, by class index
) -> pd.DataFrame:
    """Gain of AP, mean over seeds, by class: columns category, group, teacher, gain (points)."""
    runs = pd.DataFrame({key: run.result.per_category for key, run in judged.items()})
    gain = 100 * (runs[first].mean(axis=1) - runs[second].mean(axis=1))
    frame = pd.DataFrame(
        {
            "category": [category.name for category in dataset.categories],
            "group": dataset.frequency_groups(),
            "teacher": teacher.reindex(range(len(dataset.categories))),
            "gain": gain.reindex([category.id for category in dataset.categories]).to_numpy(),
        }
    )
    return frame.dropna().reset_index(drop=True)


def gain_correlation(classes: pd.DataFrame) -> pd.DataFrame:
    """Does gain follow the teacher (see `gain_by_class`)? Over all classes and within each group.

    By group, "all" first: number of classes, mean teacher and gain, and Spearman's rank
    correlation with its 95 % interval; none below five classes.
    """
    rows = {}
    for group, part in [("all", classes), *classes.groupby("group", sort=False)]:
        found = study.rank_correlation(part["teacher"], part["gain"])
        averages = part[["teacher", "gain"]].mean()
        rows[group] = np.array([len(part), *averages, *found])
    columns = ["classes", "teacher", "gain", "rank_correlation", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


# --- Figure 2: fewer annotations (notebook 10) -------------------------------------------------


def boxes_of_classes(sets: Mapping[float, BoxDataset]) -> pd.DataFrame:
    """Boxes of each class that has any: columns ratio, category, group, instances."""
    complete = sets[min(sets)]
    occurs = complete.instance_counts() > 0
    classes = {"category": np.flatnonzero(occurs), "group": complete.frequency_groups()[occurs]}
    parts = [
        pd.DataFrame({"ratio": drop, **classes, "instances": dataset.instance_counts()[occurs]})
        for drop, dataset in sets.items()
    ]
    return pd.concat(parts, ignore_index=True)


def kept_frame(sets: Mapping[float, BoxDataset]) -> pd.DataFrame:
    """What dropping left, one line per share: counts, and how the rarest classes fare."""
    occurs = sets[min(sets)].instance_counts() > 0
    rows, before = {}, None
    for drop, dataset in sorted(sets.items()):
        left, counts = set(dataset.annotation_ids.tolist()), dataset.instance_counts()
        stated = [(c.image_count, c.instance_count) for c in dataset.categories]
        rows[f"{drop:.0%} dropped"] = {
            "boxes": len(dataset.labels),
            "images": len(dataset),
            "images without a box": int((np.diff(dataset.offsets) == 0).sum()),
            "fewest boxes of a class": int(counts[occurs].min()),
            "classes with one box": int((counts[occurs] == 1).sum()),
            "stated counts agree": stated == [*zip(dataset.image_counts(), counts, strict=True)],
            "part of the row above": before is None or left <= before,
        }
        before = left
    return pd.DataFrame(rows).T


def drop_frame(
    figure: study.Study, judged: Mapping[tuple[tuple[str, float], int], Judged]
) -> pd.DataFrame:
    """Percentages, one line per run and metric: columns arm, drop, seed, metric, value."""
    frame = figure.frame(judged)
    frame.insert(1, "drop", frame["arm"].str[1])
    return frame.assign(arm=frame["arm"].str[0])


def means_by_drop(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, by share dropped: columns arm, drop, metric, mean, low, high, seeds."""
    means = study.means(frame, BY_DROP)
    return means.sort_values("drop", kind="stable", ignore_index=True)


def contrasts(frame: pd.DataFrame) -> pd.DataFrame:
    """What claims of Figure 2 compare, as `Study.frame`; sides that were not run are left out."""
    drops = sorted(frame["drop"].unique())
    wide = frame.pivot(index=["seed", "metric"], columns=["arm", "drop"], values="value")
    sides = {}
    if {BASELINE, SOFT} <= set(frame["arm"]) and len(drops) > 1:
        gain = wide[SOFT] - wide[BASELINE]
        sides[studies.MOST], sides[studies.NONE] = gain[drops[-1]], gain[drops[0]]
    if (RICHSEM, HALF) in wide.columns and (BASELINE, 0.0) in wide.columns:
        sides[studies.FEW], sides[studies.ALL] = wide[RICHSEM, HALF], wide[BASELINE, 0.0]
        if (LONG, 0.0) in wide.columns:
            sides[studies.LONG_ALL] = wide[LONG, 0.0]
    table = pd.DataFrame(sides, index=wide.index).melt(ignore_index=False, var_name="arm")
    return table.dropna().reset_index()[["arm", "seed", "metric", "value"]]


def gain_change(frame: pd.DataFrame) -> pd.DataFrame:
    """What the largest drop costs the baseline, and how the gain by soft labels changes with it.

    Means over seeds, one line per metric: baseline (nothing dropped), cost (what it then loses),
    gain_all, gain_fewest, and change, the paired difference of the two gains, with its 95 %
    interval (low, high). Empty if there is nothing to compare.
    """
    names = ["baseline", "cost", "gain_all", "gain_fewest", "change", "low", "high"]
    change = study.differences(contrasts(frame), [(studies.MOST, studies.NONE)])
    if change.empty:
        return pd.DataFrame(columns=names)
    change = change.set_index("metric").rename(columns={"mean": "change"})
    table = means_by_drop(frame).pivot(index="metric", columns=["arm", "drop"], values="mean")
    base, gain = table[BASELINE], table[SOFT] - table[BASELINE]
    least, most = min(gain.columns), max(gain.columns)
    columns = {"baseline": base[least], "cost": base[least] - base[most]}
    columns |= {"gain_all": gain[least], "gain_fewest": gain[most]}
    order = [name for name in study.AP_NAMES.values() if name in table.index]
    return pd.DataFrame(columns).join(change)[names].loc[order]


# --- Table 3 and kinds of extra data (notebook 11) ---------------------------------------------


def on_all(findings: Sequence[Finding]) -> str:
    """Whether what Table 3 should show holds on all its sets; findings in the order of claims."""
    words, number = [], len(reference.TABLE3)
    for place, how in enumerate(("equal detection steps", "equal compute")):
        part = findings[place * number : (place + 1) * number]
        shown = all(finding.verdict == "holds" for finding in part)
        words.append(f"on all sets at {how}: **{'yes' if shown else 'not shown'}**")
    return "; ".join(words)


def kind_rows(
    kinds: study.Study,  # of `studies.kinds`
    frame: pd.DataFrame,  # as its `frame` gives it
    profile: str,
    *,
    common: int,  # classes that Objects365 shares with the detection set
) -> pd.DataFrame:
    """Rows of the table of extra data: every arm, and each kind's differences to the baselines.

    Of Objects365 with its labels, boxes of other classes teach what boxes without labels teach. If
    no class is shared that is all of them, and the row is that of the boxes; else it was not run.
    """
    if not common:
        same = frame[frame["arm"] == "o365_box"].assign(arm="o365")
        return kinds.rows(pd.concat([frame, same], ignore_index=True), profile)
    not_run = {"row": "o365", "metric": "AP", "num_seeds": 0, "status": "not run"}
    return pd.concat([kinds.rows(frame, profile), pd.DataFrame([not_run])], ignore_index=True)


def kind_words(*, embedded: bool, common: int) -> dict[str, dict[str, str]]:
    """What each row of that table is trained on besides the detection set, or its stand-in."""
    same = "so the run of o365_box" if not common else "not run"
    words = {kind: dataset_spec(kind).supervision for kind in supplement.KINDS}
    words["o365"] = f"boxes and labels; {common} classes in common, {same}"
    none = {name: {"extra data": "none", "annotation": "none"} for name in BASELINES}
    return none | {
        kind: {"extra data": studies.set_name(kind, embedded=embedded), "annotation": how}
        for kind, how in words.items()
    }


def classes_in_common(config: RunConfig, categories: Sequence[Category]) -> tuple[list[str], int]:
    """A detector's classes that Objects365 has below the run's data root, and how many it has."""
    prepare(config.data)
    own = open_boxes("o365", "train", root=data_root(config.data)).categories
    matches = match_classes(own, categories)
    return [c.name for c, match in zip(own, matches, strict=True) if match >= 0], len(own)
