"""Fewer annotations, supplement Figure 2 (notebook 10): what soft labels and extra images give."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from richsem.config import Profile
from richsem.data.box_sets import BoxDataset
from richsem.minilvis.render import prepare
from richsem.operations.store import Judged
from richsem.training.build import training_dataset
from richsem.workbook import study, supplement
from richsem.workbook.study import Claim, Study

BASELINE, SOFT, RICHSEM, HARD = "baseline", "soft labels", "RichSem", "hard labels"
LONG = "long baseline"  # with all annotations only: what half of them have to beat at equal compute
ARMS = {
    BASELINE: {"soft": False},
    SOFT: {"soft": True},
    RICHSEM: {"soft": True, "extra": "inet_lvis"},
    HARD: {"soft": False, "extra": "inet_lvis"},
}
HALF = 0.5
_MOST, _NONE = "gain at the largest drop", "gain with all annotations"
_FEW, _ALL = "RichSem with half of the annotations", "baseline with all annotations"
_LONG_ALL = "long baseline with all annotations"
_MORE, _HALF = "the more annotations are dropped", "half of the annotations beat the baseline with"

CLAIMS = (
    Claim(words=f"Soft labels alone help more, {_MORE}", arm=_MOST, other=_NONE, metric="AP"),
    Claim(words=f"Soft labels alone help rare classes more, {_MORE}", arm=_MOST, other=_NONE),
    *(
        Claim(words=f"With extra images, {_HALF} all{how}", arm=_FEW, other=other, metric=metric)
        for other, compute in ((_ALL, ""), (_LONG_ALL, " at equal compute"))
        for metric, how in (("AP", compute), ("AP_r", f" on rare classes{compute}"))
    ),
)


def default_drops(profile: Profile) -> tuple[float, ...]:
    """The shares of annotations dropped that a profile compares unless others are asked for.

    At demo those that the claims are about: each further one is three runs per seed.
    """
    return {"smoke": (0.0, HALF), "demo": (0.0, HALF, 0.9), "paper": supplement.DROPS}[profile]


def figure2(
    profile: Profile, drops: Sequence[float] = (), *, root: str = "", hard: bool = False
) -> Study:
    """The study of Figure 2, its arms named (arm, share of the annotations that is dropped).

    A seed draws its own training images, and which annotations are removed.

    Args:
        profile: Sizes.
        drops: Shares, among them 0: all is compared with it. By default the profile's.
        root: Folder of real data.
        hard: Also extra images with their labels but without soft labels.

    Raises:
        ValueError: Shares are missing or out of range.
    """
    drops = drops or default_drops(profile)
    if 0 not in drops or not all(0 <= share < 1 for share in drops):
        raise ValueError(
            f"DROPS is {list(drops)}: give shares from 0 to below 1, and 0 among them, because the "
            "claims and the figure compare with all annotations"
        )
    known = {"profile": profile, "root": root}
    arms = {
        (name, float(drop)): study.arm(supplement.figure2, drop, **how, **known)
        for name, how in ARMS.items()
        if hard or name != HARD
        for drop in drops
    }
    arms[LONG, 0.0] = supplement.longer_arm(arms[BASELINE, 0.0], profile)
    return Study(arms=arms, claims=CLAIMS)


def training_sets(configs: study.Runs, seed: int) -> dict[float, BoxDataset]:
    """What the runs of one seed learn from, by the share of annotations that is dropped."""
    chosen = {
        drop: config.data
        for ((arm, drop), own), config in configs.items()
        if arm == BASELINE and own == seed
    }
    for data in chosen.values():
        prepare(data)
    return {drop: training_dataset(data) for drop, data in chosen.items()}


def boxes_of_classes(sets: Mapping[float, BoxDataset]) -> pd.DataFrame:
    """Boxes of each class that has any: columns ratio, category, group, instances."""
    complete = sets[min(sets)]
    occurs = complete.instance_counts() > 0
    known = {"category": np.flatnonzero(occurs), "group": complete.frequency_groups()[occurs]}
    parts = [
        pd.DataFrame({"ratio": drop, **known, "instances": dataset.instance_counts()[occurs]})
        for drop, dataset in sets.items()
    ]
    return pd.concat(parts, ignore_index=True)


def kept_frame(sets: Mapping[float, BoxDataset]) -> pd.DataFrame:
    """What dropping left, one line per share: counts, and how the rarest classes fare."""
    classes = boxes_of_classes(sets).groupby("ratio")["instances"]
    rows, before = {}, None
    for drop, dataset in sorted(sets.items()):
        left = set(dataset.annotation_ids.tolist())
        rows[f"{drop:.0%} dropped"] = {
            "boxes": len(dataset.labels),
            "images": len(dataset),
            "images without a box": int((np.diff(dataset.offsets) == 0).sum()),
            "fewest boxes of a class": int(classes.min()[drop]),
            "classes with one box": int((classes.get_group(drop) == 1).sum()),
            "stated counts agree": _counts_agree(dataset),
            "part of the row above": before is None or left <= before,
        }
        before = left
    return pd.DataFrame(rows).T


def drop_frame(
    figure: Study, judged: Mapping[tuple[tuple[str, float], int], Judged]
) -> pd.DataFrame:
    """Percentages, one line per run and metric: columns arm, drop, seed, metric, value."""
    frame = figure.frame(judged)
    points = frame.pop("arm")
    frame.insert(0, "arm", [arm for arm, _ in points])
    frame.insert(1, "drop", [drop for _, drop in points])
    return frame


def points(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds: columns arm, drop, metric, mean, low, high, seeds."""
    return _by_drop({drop: study.means(part) for drop, part in frame.groupby("drop")})


def gains(frame: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Paired differences of arms to the baseline at each share dropped, in the form of `points`."""
    parts = [
        {drop: study.differences(part, [(arm, BASELINE)]) for drop, part in frame.groupby("drop")}
        for arm in arms
        if arm != BASELINE
    ]
    return pd.concat(map(_by_drop, parts), ignore_index=True)


def _by_drop(parts: Mapping[float, pd.DataFrame]) -> pd.DataFrame:
    columns = ["arm", "drop", "metric", "mean", "low", "high", "seeds"]
    frames = [part.assign(drop=drop) for drop, part in parts.items()]
    return pd.concat(frames, ignore_index=True)[columns]


def contrasts(frame: pd.DataFrame) -> pd.DataFrame:
    """What `CLAIMS` compare, seed by seed, in the form of `Study.frame`.

    Sides of a claim that were not run (no half of the annotations, a single share) are left out.
    """
    drops = sorted(frame["drop"].unique())
    wide = frame.pivot(index=["seed", "metric"], columns=["arm", "drop"], values="value")
    parts = {}
    if {BASELINE, SOFT} <= set(frame["arm"]) and len(drops) > 1:
        gain = wide[SOFT] - wide[BASELINE]
        parts[_MOST], parts[_NONE] = gain[drops[-1]], gain[drops[0]]
    if (RICHSEM, HALF) in wide.columns and (BASELINE, 0.0) in wide.columns:
        parts[_FEW], parts[_ALL] = wide[RICHSEM, HALF], wide[BASELINE, 0.0]
        if (LONG, 0.0) in wide.columns:
            parts[_LONG_ALL] = wide[LONG, 0.0]
    sides = [
        side.dropna().rename("value").reset_index().assign(arm=name) for name, side in parts.items()
    ]
    columns = ["arm", "seed", "metric", "value"]
    return pd.concat(sides)[columns] if sides else pd.DataFrame(columns=columns)


def growth(frame: pd.DataFrame) -> pd.DataFrame:
    """What the largest drop costs the baseline, and how the gain by soft labels changes with it.

    Args:
        frame: As `drop_frame` gives it.

    Returns:
        Means over seeds, one line per metric: baseline (nothing dropped), cost (what it then
        loses), gain_all, gain_fewest, and change, the paired difference of the two gains, with its
        95 % interval (low, high). Empty if there is nothing to compare.
    """
    names = ["baseline", "cost", "gain_all", "gain_fewest", "change", "low", "high"]
    change = study.differences(contrasts(frame), [(_MOST, _NONE)])
    if change.empty:
        return pd.DataFrame(columns=names)
    change = change.set_index("metric").rename(columns={"mean": "change"})
    table = points(frame).pivot(index="metric", columns=["arm", "drop"], values="mean")
    base, gain = table[BASELINE], table[SOFT] - table[BASELINE]
    least, most = min(gain.columns), max(gain.columns)
    columns = {"baseline": base[least], "cost": base[least] - base[most]}
    columns |= {"gain_all": gain[least], "gain_fewest": gain[most]}
    order = [name for name in study.METRICS.values() if name in table.index]
    return pd.DataFrame(columns).join(change)[names].loc[order]


def _counts_agree(dataset: BoxDataset) -> bool:
    """Whether the categories state as many images and boxes as there are."""
    stated = [(c.image_count, c.instance_count) for c in dataset.categories]
    actual = zip(dataset.image_counts().tolist(), dataset.instance_counts().tolist(), strict=True)
    return stated == list(actual)
