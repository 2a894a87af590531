"""Studies at a quarter of the steps (and one at all of them): labs, and experiments that ask why.

A run takes half a CPU-minute at demo. That the order of the methods stays what it is at full length
is itself measured (notebook 16).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from richsem.config import Profile
from richsem.structures import Supervision
from richsem.training.run_config import RunConfig
from richsem.workbook import study, supplement
from richsem.workbook.study import Claim, Make, Study, arm, of_all_seeds

PART = 0.25  # of the steps
FEDERATED = 50  # classes in a federated loss, the paper's number
ADJUSTMENT = 0.5  # strength of logit adjustment, chosen on dev with another draw (LOG.md)
# RichSem with the three changes that helped frequent classes and took nothing from rare ones. The
# three together were compared there, too; that flatter labels might help had been seen on val
# before (seeds 0 and 1 of short runs).
REMEDIES: dict[str, dict[str, Any]] = {
    "train": {"extra_until": 0.75},
    "loss": {"prior_strength": ADJUSTMENT},
    "data": {"teacher_sharpness": 0.5},
}
_DETIC_REMEDIES = {part: REMEDIES[part] for part in ("train", "loss")}  # it has no soft labels

AVERAGE = 0.98  # of weights: over about 50 steps, a sixth of a short run; not tuned
UNSEEN = (0.5, 1.0)  # shares of the rare classes
WRONG = (0.2, 0.4)  # shares of labels of extra images


@of_all_seeds
def shortened(config: RunConfig) -> RunConfig:
    """The run with a part of its steps, and without a learning curve."""
    steps = max(1, round(PART * config.train.steps))
    train = replace(config.train, steps=steps, judge_every=0)
    return replace(config, name=f"short-{config.name}", train=train)


@of_all_seeds
def changed(config: RunConfig, words: str, **changes: Mapping[str, Any]) -> RunConfig:
    """A run in which fields of its parts (`loss`, `data`, `extra`, `train`) have other values."""
    parts = {}
    for part, values in changes.items():
        if part == "extra":
            extra = replace(config.data.extra, **values)
            parts["data"] = replace(parts.get("data", config.data), extra=extra)
        else:
            parts[part] = replace(parts.get(part, getattr(config, part)), **values)
    return replace(config, name=f"{config.name}-{words.replace(' ', '-')}", **parts)


def short_runs(profile: Profile, root: str) -> dict[str, Make]:
    """The arms of Table 4 and its controls, shortened."""
    return {name: shortened(make) for name, make in _full(profile, root).items()}


def _full(profile: Profile, root: str) -> dict[str, Make]:
    """The same at full length; extra images are those of all seeds, so that arms differ in less."""
    where = {"profile": profile, "root": root}
    full = {m: arm(supplement.table4_run, "dino", m, **where) for m in supplement.METHODS}
    controls = ("long baseline", "soft labels alone", "hard labels", "shuffled teacher")
    full |= {name: arm(supplement.control, name, **where) for name in controls}
    return {name: supplement.same_extra(make) for name, make in full.items()}


def order(profile: Profile, *, root: str = "") -> Study:
    """Does a quarter of the steps keep the order of the methods?"""
    return Study(arms=short_runs(profile, root))


def peers(profile: Profile, *, root: str = "") -> Study:
    """Simpler remedies for the long tail beside RichSem, each alone."""
    known = short_runs(profile, root)
    base, full = known["baseline"], known["richsem"]
    nothing = changed(base, "even", data={"repeat_threshold": 0.0})
    arms = {
        "nothing": nothing,
        "repeat factors": base,
        "federated loss": changed(nothing, "federated", loss={"federated_classes": FEDERATED}),
        "logit adjustment": changed(nothing, "adjusted", loss={"prior_strength": ADJUSTMENT}),
        "equalised loss": changed(nothing, "equalised", loss={"relief": "equalised"}),
        "seesaw loss": changed(nothing, "seesaw", loss={"relief": "seesaw"}),
        "coarse boxes": known["hard labels"],
        "pseudo-boxes": changed(known["hard labels"], "pseudo", extra={"pseudo_boxes": True}),
        "Detic's loss": known["detic"],
        "RichSem": full,
        "RichSem, adjusted": changed(full, "adjusted", loss={"prior_strength": ADJUSTMENT}),
    }
    pairs = [(arm, "nothing") for arm in arms if arm != "nothing"]
    pairs += [("RichSem", arm) for arm in ("logit adjustment", "repeat factors", "pseudo-boxes")]
    pairs.append(("pseudo-boxes", "coarse boxes"))
    pairs.append(("RichSem, adjusted", "RichSem"))
    claims = [
        Claim(words=f"{words} alone helps rare classes", arm=arm, other="nothing")
        for words, arm in (
            ("Showing their images more often", "repeat factors"),
            ("A federated loss", "federated loss"),
            ("Logit adjustment", "logit adjustment"),
            ("The equalised loss", "equalised loss"),
            ("The seesaw loss", "seesaw loss"),
        )
    ]
    gain = "RichSem helps rare classes more than logit adjustment"
    claims += [
        Claim(words=gain, arm="RichSem", other="logit adjustment"),
        Claim(words=f"{gain}, all classes", arm="RichSem", other="logit adjustment", metric="AP"),
        Claim(words="RichSem gains by the adjustment", arm="RichSem, adjusted", other="RichSem"),
        Claim(
            words="Boxes that the detector finds for a label are worth more than its tile",
            arm="pseudo-boxes",
            other="coarse boxes",
        ),
    ]
    return Study(arms=arms, pairs=pairs, claims=claims)


def who_pays(profile: Profile, *, root: str = "") -> Study:
    """What takes AP from frequent classes when images are added: a control for each cause."""
    known = short_runs(profile, root)
    base, full, chosen = (known[name] for name in ("baseline", "richsem", "detic"))
    paper_weights = {"class_weight": 1.0, "soft_weight": 0.5}
    arms = {
        "baseline": base,
        "RichSem": full,
        "as many steps, all on scenes": _twice(base),
        "no boxes of tiles": changed(full, "no boxes", loss={"coarse_boxes": False}),
        "own class only": changed(full, "own class", loss={"own_class_only": True}),
        "classes as frequent": changed(full, "as frequent", extra={"as_frequent": True}),
        "no tiles at the end": changed(full, "until", train={"extra_until": 0.75}),
        "baseline, federated": changed(base, "fed", loss={"federated_classes": FEDERATED}),
        "RichSem, federated": changed(full, "fed", loss={"federated_classes": FEDERATED}),
        "baseline, paper's weights": changed(base, "weights", loss=paper_weights),
        "RichSem, paper's weights": changed(full, "weights", loss=paper_weights),
        "RichSem, three remedies": changed(full, "remedies", **REMEDIES),
        "as many steps, adjusted": changed(_twice(base), "adjusted", loss=REMEDIES["loss"]),
        "Detic, two remedies": changed(chosen, "remedies", **_DETIC_REMEDIES),
        "baseline, averaged": changed(base, "averaged", train={"average": AVERAGE}),
        "RichSem, averaged": changed(full, "averaged", train={"average": AVERAGE}),
    }
    pairs = [(arm, "baseline") for arm in arms if arm != "baseline"]
    pairs += [(arm, "RichSem") for arm in list(arms)[2:]]
    pairs += [
        (f"RichSem, {change}", f"baseline, {change}")
        for change in ("federated", "paper's weights", "averaged")
    ]
    causes = {
        "as many steps, all on scenes": "steps that go to tiles",
        "no boxes of tiles": "boxes of tiles",
        "own class only": "tiles that say no to what nobody annotated",
        "classes as frequent": "classes that are frequent among extra images alone",
        "no tiles at the end": "tiles in the last steps",
    }
    claims = [
        Claim(words=f"Frequent classes pay for {cause}", arm=arm, other="RichSem", metric="AP_f")
        for arm, cause in causes.items()
    ]
    claims += [
        Claim(words=f"RichSem, {arm}: {words}", arm=arm, other="baseline", **known)
        for arm in list(causes)[1:]
        for words, known in (
            ("rare classes gain", {"metric": "AP_r"}),
            ("frequent ones lose less than half a point", {"metric": "AP_f", "margin": -0.5}),
        )
    ]
    claims += _remedy_claims("as many steps, adjusted")
    words = "An average of weights gives frequent classes points back"
    claims.append(Claim(words=words, arm="RichSem, averaged", other="RichSem", metric="AP_f"))
    claims.append(
        Claim(
            words="With three remedies RichSem is better overall than Detic with two",
            arm="RichSem, three remedies",
            other="Detic, two remedies",
            metric="AP",
        )
    )
    return Study(arms=arms, pairs=pairs, claims=claims)


def full_length(profile: Profile, *, root: str = "") -> Study:
    """Whether what short runs found holds for full ones: the remedies and their control."""
    known, boxes = _full(profile, root), {"pseudo_boxes": True}
    base, full, chosen, hard = (
        known[name] for name in ("baseline", "richsem", "detic", "hard labels")
    )
    remedied, both = "RichSem, three remedies", "pseudo-boxes, two remedies"
    rival = "Detic, two remedies"
    better = "Pseudo-boxes are better overall than"
    arms = {
        "baseline": base,
        "RichSem": full,
        "pseudo-boxes": changed(hard, "pseudo", extra=boxes),
        remedied: changed(full, "remedies", **REMEDIES),
        "as many steps, adjusted": changed(_twice(base), "adjusted", loss=REMEDIES["loss"]),
        rival: changed(chosen, "remedies", **_DETIC_REMEDIES),
        both: changed(hard, "pseudo remedies", **_DETIC_REMEDIES, extra=boxes),
        "pseudo-boxes, soft labels": changed(full, "pseudo", extra=boxes),
    }
    pairs = [(name, "baseline") for name in list(arms)[1:]]
    pairs += [(remedied, name) for name in list(arms)[1:] if "three" not in name]
    pairs += [(name, "pseudo-boxes") for name in (both, "pseudo-boxes, soft labels")]
    pairs.append(("pseudo-boxes", "RichSem"))
    claims = _remedy_claims("as many steps, adjusted")
    # Stated when short runs were known and full ones were not; the last four before their runs,
    # when those of pseudo-boxes alone were known.
    claims += [
        Claim(words=words, arm=arm, other=other, metric=metric)
        for words, arm, other, metric in (
            ("Pseudo-boxes help rare classes more than RichSem", "pseudo-boxes", "RichSem", "AP_r"),
            ("Pseudo-boxes lose nothing on frequent classes", "pseudo-boxes", "baseline", "AP_f"),
            (f"{better} RichSem with remedies", "pseudo-boxes", remedied, "AP"),
            ("With two remedies pseudo-boxes beat RichSem with three", both, remedied, "AP"),
            ("Two remedies add to pseudo-boxes overall", both, "pseudo-boxes", "AP"),
            ("Soft labels add to pseudo-boxes", "pseudo-boxes, soft labels", "pseudo-boxes", "AP"),
            ("RichSem with three remedies is better than Detic with two", remedied, rival, "AP"),
        )
    ]
    return Study(arms=arms, pairs=pairs, claims=claims)


@of_all_seeds
def _twice(config: RunConfig) -> RunConfig:
    """As many steps as a run with extra images takes, all on scenes."""
    train = replace(config.train, steps=2 * config.train.steps, judge_every=0)
    return replace(config, name=f"{config.name}-twice", train=train)


def _remedy_claims(control: str) -> list[Claim]:
    """What is claimed of RichSem with three remedies: more than RichSem, baseline and control."""
    better = "With three remedies RichSem"
    return [
        Claim(words=f"{better} {words}", arm="RichSem, three remedies", other=other, **known)
        for words, other, known in (
            ("keeps what rare classes gain", "RichSem", {}),
            ("loses nothing on frequent classes", "baseline", {"metric": "AP_f"}),
            ("helps rare classes more than as many adjusted steps on scenes", control, {}),
            ("is better overall than these", control, {"metric": "AP"}),
        )
    ]


def image_labels(profile: Profile, *, root: str = "") -> Study:
    """What an image's label is worth: to a tile, to Detic's choice, in scenes, where it is wrong.

    A scene's caption names one to three things, so that one box cannot answer for all of them:
    there the largest box is wrong more often than in the portraits of one thing.
    """
    known = short_runs(profile, root)
    tiles, hard, chosen = known["richsem"], known["hard labels"], known["detic"]
    unlabelled = arm(supplement.extra_kind, "inet_unl", profile=profile, root=root)
    unlabelled = shortened(supplement.same_extra(unlabelled))
    scenes = {"key": "cc3m", "supervision": Supervision.CAPTIONS}
    ways = {"tiles": tiles, "tiles without CLIP": hard, "Detic's choice": chosen}
    arms = {"baseline": known["baseline"], "tiles without labels": unlabelled}
    arms |= ways
    for words, make in ways.items():
        own = {"key": "cc3m"} if words == "Detic's choice" else scenes
        arms[f"{words}, scenes"] = changed(make, "scenes", extra=own)
    for share in WRONG:
        for words, make in ways.items():
            wrong = changed(make, f"wrong {share:.0%}", extra={"wrong_labels": share})
            arms[f"{words}, {share:.0%} wrong"] = wrong
    kinds = ["", ", scenes", *(f", {share:.0%} wrong" for share in WRONG)]
    pairs = [(arm, "baseline") for arm in arms if arm != "baseline"]
    for kind in kinds:
        pairs += [
            (f"tiles{kind}", f"{other}{kind}") for other in ("tiles without CLIP", "Detic's choice")
        ]
    most = f", {WRONG[-1]:.0%} wrong"
    worst = f"Where {WRONG[-1]:.0%} of the labels are wrong"
    claims = [
        Claim(
            words="In portraits of one thing, Detic's choice is worth more than tiles",
            arm="Detic's choice",
            other="tiles",
            metric="AP",
            stated="after",
        ),
        *(
            Claim(
                words=f"In scenes of several things, tiles are worth more ({metric})",
                arm="tiles, scenes",
                other="Detic's choice, scenes",
                metric=metric,
            )
            for metric in ("AP_r", "AP")
        ),
        Claim(
            words=f"{worst}, tiles are worth more than Detic's choice",
            arm=f"tiles{most}",
            other=f"Detic's choice{most}",
        ),
        Claim(
            words=f"{worst}, tiles with CLIP help rare classes",
            arm=f"tiles{most}",
            other="baseline",
        ),
        Claim(
            words=f"{worst}, CLIP's soft labels help all classes",
            arm=f"tiles{most}",
            other=f"tiles without CLIP{most}",
            metric="AP",
            stated="after",
        ),
    ]
    return Study(arms=arms, pairs=pairs, claims=claims)


def soft_label_parts(profile: Profile, *, root: str = "") -> Study:
    """Teachers that keep the own class's share and divide the rest in other ways."""
    known = short_runs(profile, root)
    full = known["richsem"]
    arms = {"hard labels": known["hard labels"], "as CLIP sees it": full}
    arms |= {
        words: changed(full, rest, data={"teacher_rest": rest})
        for words, rest in (
            ("permuted among like classes", "like"),
            ("permuted among unlike classes", "unlike"),
            ("by names alone", "names"),
            ("the same to all", "even"),
        )
    }
    arms |= {
        words: changed(full, words, data={"teacher_sharpness": exponent})
        for words, exponent in (("sharper", 2.0), ("flatter", 0.5))
    }
    arms["another image's"] = known["shuffled teacher"]
    arms |= {
        f"{share:.0%} of rare unseen": changed(
            full, f"unseen {share:.0%}", data={"teacher_unseen": share}
        )
        for share in UNSEEN
    }
    arms["baseline"] = known["baseline"]
    pairs = [(arm, "hard labels") for arm in arms if arm != "hard labels"]
    pairs += [("as CLIP sees it", arm) for arm in list(arms)[2:]]
    pairs += [("permuted among like classes", "permuted among unlike classes")]
    pairs += [("by names alone", "the same to all")]
    blind = f"{UNSEEN[-1]:.0%} of rare unseen"
    pairs += [(f"{share:.0%} of rare unseen", "baseline") for share in UNSEEN]
    claims = [
        Claim(
            words="Soft labels are worth more than hard ones",
            arm="as CLIP sees it",
            other="hard labels",
            stated="after",
        ),
        Claim(
            words="Who is like whom is part of that: unlike classes in their place are worth less",
            arm="as CLIP sees it",
            other="permuted among unlike classes",
        ),
        Claim(
            words="Who of the like classes gets what matters less than that they get it",
            arm="permuted among like classes",
            other="permuted among unlike classes",
        ),
        Claim(
            words="Names alone are worth as much as what CLIP sees, within a point",
            arm="by names alone",
            other="as CLIP sees it",
            margin=-1.0,
        ),
        Claim(
            words="Names are worth more than the same share to all (label smoothing)",
            arm="by names alone",
            other="the same to all",
        ),
        Claim(
            words="A teacher that can name no rare class leaves them a gain, that of labels",
            arm=blind,
            other="baseline",
        ),
        Claim(
            words="A teacher that can name rare classes helps them more",
            arm="as CLIP sees it",
            other=blind,
        ),
        Claim(
            words="Soft labels without rare classes are worth no less than none, within a point",
            arm=blind,
            other="hard labels",
            margin=-1.0,
        ),
    ]
    return Study(arms=arms, pairs=pairs, claims=claims)


def with_gains(
    frame: pd.DataFrame, levels: Iterable[str], arm: str, other: str, gain: str
) -> pd.DataFrame:
    """A frame with what `arm` gains over `other` at each level ("arm, level"), as arms `gain`."""
    wide = frame.pivot(index=["seed", "metric"], columns="arm", values="value")
    gains = {f"{gain}, {one}": wide[f"{arm}, {one}"] - wide[f"{other}, {one}"] for one in levels}
    added = pd.DataFrame(gains).rename_axis(columns="arm").stack().rename("value")
    return pd.concat([frame, added.reset_index()[list(frame)]], ignore_index=True)


def beside_full(frame: pd.DataFrame) -> pd.DataFrame:
    """Means of the arms of `order` beside those of full runs, as the project ships them.

    Columns arm, metric, short, full; arms and metrics that both have.
    """
    shipped = study.shipped_numbers("table4_versus_detic")
    shipped = shipped.assign(arm=shipped["arm"].str.removeprefix("dino: "))
    short = frame.groupby(["arm", "metric"], sort=False)["value"].mean().to_frame("short")
    full = study.means(shipped).set_index(["arm", "metric"])["mean"].rename("full")
    return short.join(full, how="inner").reset_index()
