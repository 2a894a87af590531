"""Other long tails (supplement Table 3) and other extra data, over paired seeds."""

from collections.abc import Mapping, Sequence

import pandas as pd

from richsem import reference, supplement
from richsem.config import Profile
from richsem.data.catalog import dataset_spec, open_boxes
from richsem.data.categories import Category
from richsem.data.training_sets import match_classes
from richsem.engine.build import data_root
from richsem.engine.store import Judged
from richsem.recipes import RunConfig
from richsem.studies import seeds
from richsem.studies.seeds import COCO_METRICS, Claim

KEYS = tuple(reference.TABLE3)  # sets of Table 3, as the catalogue names them
METHODS = ("baseline", "richsem")

TABLE3_CLAIMS = tuple(
    Claim(
        words=f"Unlabelled extra images help on {dataset_spec(key).name}",
        arm=f"{key}: richsem",
        other=f"{key}: baseline",
        metric="AP",
    )
    for key in KEYS
)
KIND_CLAIMS = (
    *(
        Claim(
            words=f"Rare classes gain from {dataset_spec(kind).name} "
            f"({dataset_spec(kind).supervision})",
            arm=kind,
            other="baseline",
        )
        for kind in supplement.KINDS
    ),
    Claim(
        words="Labels of extra images are worth more than none", arm="inet_lvis", other="inet_unl"
    ),
)

Arm = tuple[str, int]  # name of the arm, seed


def table3_runs(profile: Profile, all_seeds: Sequence[int], root: str = "") -> dict[Arm, RunConfig]:
    """The runs of Table 3 by ("set: method", seed)."""
    return {
        (f"{key}: {method}", seed): supplement.table3(
            key, extra=method == "richsem", profile=profile, seed=seed, root=root
        )
        for key in KEYS
        for method in METHODS
        for seed in all_seeds
    }


def table3_frame(judged: Mapping[Arm, Judged]) -> pd.DataFrame:
    """Percentages by the COCO protocol: columns arm ("set: method"), seed, metric, value."""
    return seeds.seed_frame(judged, COCO_METRICS)


def table3_rows(frame: pd.DataFrame, *, status: str) -> pd.DataFrame:
    """Rows of Table 3: each set's two methods and their paired difference.

    Args:
        frame: As `table3_frame` gives it.
        status: What our numbers are, in the words of `results`.
    """
    parts = []
    for key in KEYS:
        prefix = f"{key}: "
        own = frame[frame["arm"].str.startswith(prefix)]
        own = own.assign(arm=own["arm"].str.removeprefix(prefix))
        change = seeds.differences(own, [("richsem", "baseline")])
        both = pd.concat([seeds.means(own), change])
        parts.append(seeds.table_rows(both, reference.TABLE3[key], status=status, prefix=prefix))
    return pd.concat(parts, ignore_index=True)


def kind_runs(profile: Profile, all_seeds: Sequence[int], root: str = "") -> dict[Arm, RunConfig]:
    """The baseline, and RichSem with each kind of extra data, by (arm, seed)."""
    known = {"profile": profile, "root": root}
    configs = {
        ("baseline", seed): supplement.table4("dino", "baseline", seed=seed, **known)
        for seed in all_seeds
    }
    return configs | {
        (kind, seed): supplement.extra_kind(kind, seed=seed, **known)
        for kind in supplement.KINDS
        for seed in all_seeds
    }


def kind_rows(frame: pd.DataFrame, *, status: str) -> pd.DataFrame:
    """Rows of the table of extra data: every arm, and each kind's difference to the baseline."""
    changes = seeds.differences(frame, [(kind, "baseline") for kind in supplement.KINDS])
    return seeds.table_rows(pd.concat([seeds.means(frame), changes]), {}, status=status)


def kind_words(*, embedded: bool) -> dict[str, dict[str, str]]:
    """What each row of that table is trained on besides the detection set.

    Args:
        embedded: Whether the stand-ins play the sets.
    """
    words = {"baseline": {"extra data": "none", "annotation": "none"}}
    for kind in supplement.KINDS:
        spec = dataset_spec(kind)
        name = spec.stand_in if embedded else spec.name
        words[kind] = {"extra data": name, "annotation": spec.supervision}
    return words


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
