"""A lab that could refute the premise: teachers whose pre-training lacks rare classes.

The paper takes CLIP's semantics for richer than a detection set's because CLIP has seen the Web.
The embedded teacher has seen all glyphs equally often, so that it knows rare classes by
construction. Here it is trained anew, with less of everything, and without the glyphs of none, half
and all of the rare classes; tau, tokens and everything else follow from that training.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from richsem.config import Profile
from richsem.data.box_sets import BoxDataset
from richsem.data.categories import spoken_names
from richsem.data.drawn import PretrainConfig
from richsem.models.clip import FrozenClip
from richsem.training.controls import teacher_of
from richsem.workbook import labs, supplement
from richsem.workbook.study import Study, arm, claims_of, means
from richsem.workbook.zero_shot import class_accuracy, region_features

SHARES = (0.0, 0.5, 1.0)  # of the rare classes, unseen
NO_NAMES, NAMES = "linear classifier", "names alone"
HARD, SOFT = "hard labels", "soft labels"
SOFT_GAIN, ALL_GAIN = "gain by soft labels", "gain by extra images and soft labels"
ALL, NONE = "saw all", "saw none"
WORDS = dict(zip(SHARES, (ALL, "saw half", NONE), strict=True))


def recipe(share: float, profile: Profile) -> PretrainConfig:
    """A teacher that never sees a share of the rare classes, trained for a fifth of the usual."""
    if profile == "smoke":
        return PretrainConfig(scenes=24, steps=(4,), lr=(1.5e-3,), batch=32, unseen=share)
    return PretrainConfig(scenes=6000, steps=(1000,), lr=(1.5e-3,), batch=128, unseen=share)


def unseen_glyphs(profile: Profile, *, root: str = "") -> Study:
    """The baseline, hard and soft labels on tiles, each with every teacher; named "arm, saw all".

    The teacher's names are the classifiers of all arms, so that the baseline depends on it, too;
    beside them is the baseline with a linear classifier, which asks no teacher.
    Only drawn glyphs can be left out: a `root` of real sets changes nothing, and at paper these are
    the demo's runs.
    """
    del root
    profile = "smoke" if profile == "smoke" else "demo"
    known, linear = labs.short_runs(profile, ""), arm(supplement.control, NO_NAMES, profile=profile)
    arms = {NO_NAMES: labs.shortened(linear)}
    kinds = {NAMES: known["baseline"], HARD: known["hard labels"], SOFT: known["richsem"]}
    for share, saw in WORDS.items():
        training = {"teacher_training": recipe(share, profile)}
        for kind, make in kinds.items():
            arms[f"{kind}, {saw}"] = labs.changed(make, saw, data=training)
    others = (NAMES, HARD)
    pairs = [(f"{SOFT}, {saw}", f"{other}, {saw}") for saw in WORDS.values() for other in others]
    pairs += [(f"{NAMES}, {saw}", NO_NAMES) for saw in WORDS.values()]
    changing = (NAMES, HARD, SOFT, SOFT_GAIN, ALL_GAIN)
    seen, blind = ({kind: f"{kind}, {saw}" for kind in changing} for saw in (ALL, NONE))
    pairs += [(seen[kind], blind[kind]) for kind in changing]
    return Study(arms=arms, pairs=pairs, claims=claims_of("table_unseen_glyphs"))


def with_gains(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `unseen_glyphs`, and both gains with each teacher as arms of their own."""
    for gain, other in ((SOFT_GAIN, HARD), (ALL_GAIN, NAMES)):
        frame = labs.with_gains(frame, WORDS.values(), SOFT, other, gain)
    return frame


def by_teacher(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds: labels, saw, metric, mean, low, high; the linear classifier with each."""
    alone = frame["arm"] == NO_NAMES
    each = [frame[alone].assign(labels=NO_NAMES, saw=saw) for saw in WORDS.values()]
    named = frame[~alone]["arm"].str.rsplit(", ", n=1, expand=True)
    each.append(frame[~alone].assign(labels=named[0], saw=named[1]))
    return means(pd.concat(each), ["labels", "saw", "metric"])


def known_classes(dataset: BoxDataset, profile: Profile) -> pd.DataFrame:
    """How many boxes each teacher names right, in percent by class: saw, class, group, accuracy."""
    base = labs.short_runs("smoke" if profile == "smoke" else "demo", "")["richsem"](0).data
    groups, tables = dataset.frequency_groups(), []
    for share, saw in WORDS.items():
        clip = FrozenClip(teacher_of(replace(base, teacher_training=recipe(share, profile))))
        text = clip.text_features(spoken_names(dataset.categories))
        named = (region_features(clip, dataset) @ text.T.cpu()).argmax(dim=1).numpy()
        right = class_accuracy((named != dataset.labels).astype(int), dataset.labels, 1)
        table = right.rename("accuracy").reset_index()
        tables.append(table.assign(saw=saw, group=groups[table["class"].to_numpy(np.int64)]))
    return pd.concat(tables, ignore_index=True)
