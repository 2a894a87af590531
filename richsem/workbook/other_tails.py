"""Other long tails (supplement Table 3) and other extra data, over paired seeds."""

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from richsem.config import Profile
from richsem.data.catalog import dataset_spec, open_boxes
from richsem.data.categories import Category
from richsem.data.samples import match_classes
from richsem.operations.store import Judged
from richsem.training.build import data_root
from richsem.training.run_config import RunConfig
from richsem.workbook import reference, seeds, supplement
from richsem.workbook.seeds import COCO_METRICS, Claim

KEYS = tuple(reference.TABLE3)  # sets of Table 3, as the catalogue names them
METHODS = ("baseline", "long baseline", "richsem")
BASELINES = METHODS[:2]  # of equal detection steps, and of equal compute

Arm = tuple[str, int]  # name of the arm, seed


def table3_claims(*, embedded: bool) -> tuple[Claim, ...]:
    """What Table 3 should show: first at equal detection steps, then at equal compute.

    Args:
        embedded: Whether the stand-ins play the sets.
    """
    return tuple(
        Claim(
            words=f"Unlabelled extra images help on {_name(key, embedded)}{how}",
            arm=f"{key}: richsem",
            other=f"{key}: {baseline}",
            metric="AP",
        )
        for baseline, how in zip(BASELINES, ("", " at equal compute"), strict=True)
        for key in KEYS
    )


def kind_claims(*, embedded: bool) -> tuple[Claim, ...]:
    """What each kind of extra data should do for rare classes, and not do to all.

    Args:
        embedded: Whether the stand-ins play the sets.
    """
    claims = []
    for kind in supplement.KINDS:
        name = f"{_name(kind, embedded)} ({dataset_spec(kind).supervision})"
        gain = f"Rare classes gain from {name}"
        claims += [
            Claim(words=gain, arm=kind, other="baseline"),
            Claim(words=f"{gain} at equal compute", arm=kind, other="long baseline"),
            Claim(words=f"{name} costs no AP overall", arm=kind, other="baseline", metric="AP"),
        ]
    labels = "Labels of extra images are worth more than none to rare classes"
    return *claims, Claim(words=labels, arm="inet_lvis", other="inet_unl")


def on_all(findings: Sequence[Mapping[str, str]]) -> str:
    """Whether what Table 3 should show holds on all its sets, in words.

    Args:
        findings: Of `table3_claims`, in their order.
    """
    words = []
    for place, how in enumerate(("equal detection steps", "equal compute")):
        part = findings[place * len(KEYS) : (place + 1) * len(KEYS)]
        shown = all(finding["verdict"] == "holds" for finding in part)
        words.append(f"on all sets at {how}: **{'yes' if shown else 'not shown'}**")
    return "; ".join(words)


def table3_runs(profile: Profile, all_seeds: Sequence[int], root: str = "") -> dict[Arm, RunConfig]:
    """The runs of Table 3 by ("set: method", seed)."""
    return {
        (f"{key}: {method}", seed): _table3(key, method, profile=profile, seed=seed, root=root)
        for key in KEYS
        for method in METHODS
        for seed in all_seeds
    }


def table3_frame(judged: Mapping[Arm, Judged]) -> pd.DataFrame:
    """Percentages by the COCO protocol: columns arm ("set: method"), seed, metric, value."""
    return seeds.seed_frame(judged, COCO_METRICS)


def table3_rows(frame: pd.DataFrame, *, status: str) -> pd.DataFrame:
    """Rows of Table 3: each set's methods, and paired differences between them.

    Args:
        frame: As `table3_frame` gives it.
        status: What our numbers are, in the words of `results`.
    """
    parts = []
    for key in KEYS:
        prefix = f"{key}: "
        own = frame[frame["arm"].str.startswith(prefix)]
        own = own.assign(arm=own["arm"].str.removeprefix(prefix))
        pairs = [("richsem", baseline) for baseline in BASELINES] + [("long baseline", "baseline")]
        change = seeds.differences(own, pairs)
        both = pd.concat([seeds.means(own), change])
        parts.append(seeds.table_rows(both, reference.TABLE3[key], status=status, prefix=prefix))
    return pd.concat(parts, ignore_index=True)


def kind_runs(profile: Profile, all_seeds: Sequence[int], root: str = "") -> dict[Arm, RunConfig]:
    """The baselines, and RichSem with each kind of extra data, by (arm, seed)."""
    known = {"profile": profile, "root": root}
    makers = {
        "baseline": partial(supplement.table4, "dino", "baseline"),
        "long baseline": partial(supplement.control, "long baseline"),
    } | {kind: partial(supplement.extra_kind, kind) for kind in supplement.KINDS}
    return {
        (arm, seed): make(seed=seed, **known) for arm, make in makers.items() for seed in all_seeds
    }


def kind_rows(frame: pd.DataFrame, *, status: str, common: int) -> pd.DataFrame:
    """Rows of the table of extra data: every arm, and each kind's differences to the baselines.

    Of Objects365 with its labels, boxes of other classes teach what boxes without labels teach. If
    no class is shared that is all of them, and the row is that of the boxes; else it was not run.

    Args:
        frame: As `seeds.seed_frame` gives it.
        status: What our numbers are, in the words of `results`.
        common: Classes that Objects365 shares with the detection set.
    """
    if not common:
        same = frame[frame["arm"] == "o365_box"].assign(arm="o365")
        frame = pd.concat([frame, same], ignore_index=True)
    pairs = [(kind, baseline) for baseline in BASELINES for kind in supplement.KINDS]
    pairs += [("long baseline", "baseline"), ("inet_lvis", "inet_unl")]
    rows = pd.concat([seeds.means(frame), seeds.differences(frame, pairs)])
    table = seeds.table_rows(rows, {}, status=status)
    if not common:
        return table
    not_run = {"row": "o365", "metric": "AP", "num_seeds": 0, "status": "not run"}
    return pd.concat([table, pd.DataFrame([not_run])], ignore_index=True)


def kind_words(*, embedded: bool, common: int) -> dict[str, dict[str, str]]:
    """What each row of that table is trained on besides the detection set.

    Args:
        embedded: Whether the stand-ins play the sets.
        common: Classes that Objects365 shares with the detection set.
    """
    words = {name: {"extra data": "none", "annotation": "none"} for name in BASELINES}
    for kind in supplement.KINDS:
        spec = dataset_spec(kind)
        words[kind] = {"extra data": _name(kind, embedded), "annotation": spec.supervision}
    same = "so the run of o365_box" if not common else "not run"
    labels = f"boxes and labels; {common} classes in common, {same}"
    return words | {"o365": {"extra data": _name("o365", embedded), "annotation": labels}}


def classes_in_common(
    config: RunConfig, categories: Sequence[Category], key: str = "o365"
) -> tuple[list[str], int]:
    """Classes of a set of boxes that a detector has too, and how many classes the set has.

    Args:
        config: A run; its data root holds the set.
        categories: The detector's classes.
        key: The set, as the catalogue names it.
    """
    own = open_boxes(key, "train", root=data_root(config.data)).categories
    matches = match_classes(own, categories)
    return [c.name for c, match in zip(own, matches, strict=True) if match >= 0], len(own)


def _name(key: str, embedded: bool) -> str:
    spec = dataset_spec(key)
    return spec.stand_in if embedded else spec.name


def _table3(key: str, method: str, *, profile: Profile, seed: int, root: str) -> RunConfig:
    extra = method == "richsem"
    run = supplement.table3(key, extra=extra, profile=profile, seed=seed, root=root)
    return supplement.longer(run, profile) if method == "long baseline" else run
