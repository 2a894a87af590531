"""Other long tails (supplement Table 3) and other extra data (notebook 11), over paired seeds."""

from collections.abc import Mapping, Sequence

import pandas as pd

from richsem.config import Profile
from richsem.data.catalog import dataset_spec, open_boxes
from richsem.data.categories import Category
from richsem.data.samples import match_classes
from richsem.training.build import data_root
from richsem.training.run_config import RunConfig
from richsem.workbook import reference, supplement
from richsem.workbook.study import COCO_METRICS, Claim, Study, arm

KEYS = tuple(reference.TABLE3)  # sets of Table 3, as the catalogue names them
BASELINES = ("baseline", "long baseline")  # of equal detection steps, and of equal compute


def table3(profile: Profile, *, root: str = "") -> Study:
    """The study of Table 3: the paper's claim at equal detection steps, then at equal compute.

    Its arms are named "set: method"; where there is no `root`, the stand-ins play the sets.
    """
    arms, pairs, paper = {}, [], {}
    known = {"profile": profile, "root": root}
    for key in KEYS:
        base, long, full = (f"{key}: {method}" for method in (*BASELINES, "richsem"))
        arms[base] = arm(supplement.table3, key, extra=False, **known)
        arms[long] = supplement.longer_arm(arms[base], profile)
        arms[full] = arm(supplement.table3, key, extra=True, **known)
        pairs += [(full, base), (full, long), (long, base)]
        paper |= {f"{key}: {method}": row for method, row in reference.TABLE3[key].items()}
    claims = [
        Claim(
            words=f"Unlabelled extra images help on {_name(key, embedded=not root)}{how}",
            arm=f"{key}: richsem",
            other=f"{key}: {baseline}",
            metric="AP",
        )
        for baseline, how in zip(BASELINES, ("", " at equal compute"), strict=True)
        for key in KEYS
    ]
    return Study(arms=arms, pairs=pairs, claims=claims, paper=paper, metrics=COCO_METRICS)


def on_all(findings: Sequence[Mapping[str, str]]) -> str:
    """Whether what Table 3 should show holds on all its sets, in words.

    Args:
        findings: Of the claims of `table3`, in their order.
    """
    words = []
    for place, how in enumerate(("equal detection steps", "equal compute")):
        part = findings[place * len(KEYS) : (place + 1) * len(KEYS)]
        shown = all(finding["verdict"] == "holds" for finding in part)
        words.append(f"on all sets at {how}: **{'yes' if shown else 'not shown'}**")
    return "; ".join(words)


def kinds(profile: Profile, *, root: str = "") -> Study:
    """The study of kinds of extra data: what each does for rare classes, and does not to all."""
    known = {"profile": profile, "root": root}
    base = arm(supplement.table4, "dino", "baseline", **known)
    arms = {"baseline": base, "long baseline": supplement.longer_arm(base, profile)}
    arms |= {kind: arm(supplement.extra_kind, kind, **known) for kind in supplement.KINDS}
    pairs = [(kind, baseline) for baseline in BASELINES for kind in supplement.KINDS]
    pairs += [("long baseline", "baseline"), ("inet_lvis", "inet_unl")]
    claims = []
    for kind in supplement.KINDS:
        name = f"{_name(kind, embedded=not root)} ({dataset_spec(kind).supervision})"
        gain = f"Rare classes gain from {name}"
        claims += [
            Claim(words=gain, arm=kind, other="baseline"),
            Claim(words=f"{gain} at equal compute", arm=kind, other="long baseline"),
            Claim(words=f"{name} costs no AP overall", arm=kind, other="baseline", metric="AP"),
        ]
    labels = "Labels of extra images are worth more than none to rare classes"
    claims.append(Claim(words=labels, arm="inet_lvis", other="inet_unl"))
    return Study(arms=arms, pairs=pairs, claims=claims)


def kind_rows(study: Study, frame: pd.DataFrame, profile: str, *, common: int) -> pd.DataFrame:
    """Rows of the table of extra data: every arm, and each kind's differences to the baselines.

    Of Objects365 with its labels, boxes of other classes teach what boxes without labels teach. If
    no class is shared that is all of them, and the row is that of the boxes; else it was not run.

    Args:
        study: Of `kinds`.
        frame: As `Study.frame` gives it.
        profile: Where the numbers were measured.
        common: Classes that Objects365 shares with the detection set.
    """
    if not common:
        same = frame[frame["arm"] == "o365_box"].assign(arm="o365")
        return study.rows(pd.concat([frame, same], ignore_index=True), profile)
    not_run = {"row": "o365", "metric": "AP", "num_seeds": 0, "status": "not run"}
    return pd.concat([study.rows(frame, profile), pd.DataFrame([not_run])], ignore_index=True)


def kind_words(*, embedded: bool, common: int) -> dict[str, dict[str, str]]:
    """What each row of that table is trained on besides the detection set.

    Args:
        embedded: Whether the stand-ins play the sets.
        common: Classes that Objects365 shares with the detection set.
    """
    words = {name: {"extra data": "none", "annotation": "none"} for name in BASELINES}
    for kind in supplement.KINDS:
        spec = dataset_spec(kind)
        words[kind] = {"extra data": _name(kind, embedded=embedded), "annotation": spec.supervision}
    same = "so the run of o365_box" if not common else "not run"
    labels = f"boxes and labels; {common} classes in common, {same}"
    return words | {"o365": {"extra data": _name("o365", embedded=embedded), "annotation": labels}}


def classes_in_common(config: RunConfig, categories: Sequence[Category]) -> tuple[list[str], int]:
    """Classes of Objects365 that a detector has too, and how many classes Objects365 has.

    Args:
        config: A run; its data root holds the set.
        categories: The detector's classes.
    """
    own = open_boxes("o365", "train", root=data_root(config.data)).categories
    matches = match_classes(own, categories)
    return [c.name for c, match in zip(own, matches, strict=True) if match >= 0], len(own)


def _name(key: str, *, embedded: bool) -> str:
    spec = dataset_spec(key)
    return spec.stand_in if embedded else spec.name
