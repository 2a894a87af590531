"""Table 4 (notebook 09): the baseline, Detic's loss, RichSem and a sceptic's controls."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from richsem.config import Profile
from richsem.data.box_sets import BoxDataset
from richsem.data.categories import spoken_names
from richsem.models.clip import ClipConfig, FrozenClip
from richsem.operations.store import Judged
from richsem.training.run_config import RunConfig
from richsem.workbook import comparison, intervals, reference, supplement
from richsem.workbook.region_readings import ReadConfig, read_regions
from richsem.workbook.study import METRICS, Claim, Study, arm
from richsem.workbook.zero_shot import class_accuracy

# Differences that the table states beside RichSem's: what images, soft labels and texts are worth.
FURTHER_PAIRS = (
    ("detic", "baseline"),
    ("soft labels alone", "baseline"),
    ("soft labels alone", "text classifier"),
    ("text classifier", "baseline"),
    ("shuffled teacher", "hard labels"),
    ("linear classifier", "baseline"),
)
# Of RichSem against another arm: words, the arm, the metric.
_CLAIMS = (
    ("RichSem finds rare classes better", "baseline", "AP_r"),
    ("RichSem loses no AP overall", "baseline", "AP"),
    ("RichSem loses nothing on frequent classes", "baseline", "AP_f"),
    ("RichSem finds rare classes better than Detic's loss", "detic", "AP_r"),
    ("RichSem finds rare classes better at equal compute", "long baseline", "AP_r"),
    ("RichSem loses no AP at equal compute", "long baseline", "AP"),
)


def table4(
    profile: Profile,
    *,
    root: str = "",
    detectors: Sequence[str] = supplement.DETECTORS,
    controls: Sequence[supplement.Control] = (),
) -> Study:
    """The study of Table 4, its arms named "detector: arm".

    Raises:
        ValueError: A detector or a control is unknown.
    """
    arms, pairs, claims, paper = {}, [], [], {}
    for name in detectors:
        own = detector_arms(name, profile, root=root, controls=controls)
        prefix = f"{name}: "
        arms |= {prefix + arm: make for arm, make in own.items()}
        gains = [("richsem", other) for other in own if other != "richsem"]
        pairs += [(prefix + a, prefix + b) for a, b in (*gains, *FURTHER_PAIRS)]
        claims += [
            Claim(words=prefix + words, arm=f"{prefix}richsem", other=prefix + other, metric=metric)
            for words, other, metric in _CLAIMS
        ]
        paper |= {prefix + arm: values for arm, values in reference.TABLE4[name].items()}
    # Ours is box AP, the paper's of CenterNet2 mask AP.
    return Study(arms=arms, pairs=pairs, claims=claims, paper=paper, other_quantity="centernet2")


def detector_arms(
    detector: str,
    profile: Profile,
    *,
    root: str = "",
    controls: Sequence[supplement.Control] = (),
) -> dict[str, Callable[[int], RunConfig]]:
    """The methods of one detector and its controls by name, each a function of the seed.

    Of the controls, CenterNet2 has the long baseline; at paper the shuffled teacher, which needs
    cached soft labels, is left out.

    Raises:
        ValueError: The detector or a control is unknown.
    """
    if detector not in supplement.DETECTORS:
        known = ", ".join(supplement.DETECTORS)
        raise ValueError(f"unknown detector {detector!r}; there are {known}")
    unknown = [name for name in controls if name not in supplement.CONTROLS]
    if unknown:
        raise ValueError(f"unknown controls {unknown}; there are {', '.join(supplement.CONTROLS)}")
    if detector == "centernet2":
        controls = [name for name in controls if name == "long baseline"]
    elif profile == "paper":
        controls = [name for name in controls if name != "shuffled teacher"]
    known = {"profile": profile, "root": root}
    arms = {m: arm(supplement.table4, detector, m, **known) for m in supplement.METHODS}
    for name in controls:
        arms[name] = arm(supplement.control, name, **known)
    if "long baseline" in arms:
        arms["long baseline"] = supplement.longer_arm(arms["baseline"], profile)
    return arms


def methods_alone(frame: pd.DataFrame, column: str = "arm") -> pd.DataFrame:
    """Lines of the methods and the long baseline, with `column` split into detector and arm."""
    split = frame[column].str.split(": ", n=1, expand=True)
    frame = frame.assign(**{column: split[1]})
    frame.insert(0, "detector", split[0])
    return frame[frame[column].isin((*supplement.METHODS, "long baseline"))]


def curve_frame(judged: Mapping[tuple[str, int], Judged]) -> pd.DataFrame:
    """Learning curves: columns detector, run (the arm), step, cpu_seconds, metric, value, seed."""
    parts = [
        comparison.curve_frame({arm: run.history}).assign(seed=seed)
        for (arm, seed), run in judged.items()
    ]
    return methods_alone(pd.concat(parts, ignore_index=True), "run").replace({"metric": METRICS})


def teacher_accuracy(teacher: ClipConfig, dataset: BoxDataset) -> pd.Series:
    """Percent of the true boxes of each class that CLIP names right, by class index."""
    names = spoken_names(dataset.categories)
    reading = read_regions(FrozenClip(teacher), dataset, names, ReadConfig(mode="roi"))
    return class_accuracy(reading.ranks[0, 0], dataset.labels, 1)


def gain_by_class(
    judged: Mapping[tuple[str, int], Judged],
    first: str,
    second: str,
    dataset: BoxDataset,
    teacher: pd.Series,
) -> pd.DataFrame:
    """AP that each class gains by the first arm over the second, and how the teacher knows it.

    Args:
        judged: What the runs achieve on `dataset`.
        first: Arm whose gain it is.
        second: Arm that it is compared with.
        dataset: What they were judged on.
        teacher: As `teacher_accuracy` gives it.

    Returns:
        Columns category, group, teacher, gain (points, mean over seeds).
    """
    ap = {
        arm: pd.DataFrame(
            {seed: run.result.per_category for (name, seed), run in judged.items() if name == arm}
        ).mean(axis=1)
        for arm in (first, second)
    }
    gain = 100 * (ap[first] - ap[second])
    groups = dataset.frequency_groups()
    rows = [
        (c.name, groups[i], teacher[i], gain[c.id])
        for i, c in enumerate(dataset.categories)
        if i in teacher.index and c.id in gain.index
    ]
    return pd.DataFrame(rows, columns=["category", "group", "teacher", "gain"])


def gain_correlation(classes: pd.DataFrame) -> pd.DataFrame:
    """Does gain follow the teacher? Over all classes ("all") and within each group.

    Args:
        classes: As `gain_by_class` gives it.

    Returns:
        By group: number of classes, mean teacher and gain, and Spearman's rank correlation with
        its 95 % interval; none below five classes.
    """
    rows = {}
    for group, part in [("all", classes), *classes.groupby("group", sort=False)]:
        found = intervals.of_rank_correlation(part["teacher"], part["gain"])
        averages = part[["teacher", "gain"]].mean()
        rows[group] = np.array([len(part), *averages, *found])
    columns = ["classes", "teacher", "gain", "rank_correlation", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
