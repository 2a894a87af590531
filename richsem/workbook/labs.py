"""Studies at a quarter of the steps (and one at all of them): labs, and experiments that ask why.

A run takes half a CPU-minute at demo. That the order of the methods stays what it is at full length
is itself measured (notebook 16).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from richsem.config import Profile, config_hash
from richsem.operations import store
from richsem.paths import only_one
from richsem.structures import Supervision
from richsem.training import build
from richsem.training.run_config import RUN, RunConfig
from richsem.workbook import study, supplement
from richsem.workbook.study import Make, Study, arm, claims_of, of_all_seeds

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
_REMEDIED, _DETIC = "RichSem, three remedies", "Detic, two remedies"
_ADJUSTED = "as many steps, adjusted"  # the control of RichSem with remedies

_LESS = {"extra_until": 0.75, "extra_rest": 0.25}  # not tuned
AVERAGE = 0.98  # of weights: over about 50 steps, a sixth of a short run; not tuned
# What costs no further image (`peers`); what an image without labels is taken to show.
LOSSES = ("nothing", "repeat factors", "federated loss", "logit adjustment", "equalised loss",
          "seesaw loss")  # fmt: skip
SURE = 0.2  # probability of a pseudo-label, chosen on dev with another draw (LOG.md)
_NO_LABELS = "tiles without labels"
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
    known, adjusted = short_runs(profile, root), {"prior_strength": ADJUSTMENT}
    base, full, hard = (known[name] for name in ("baseline", "richsem", "hard labels"))
    nothing = changed(base, "even", data={"repeat_threshold": 0.0})
    arms = {
        "nothing": nothing,
        "repeat factors": base,
        "federated loss": changed(nothing, "federated", loss={"federated_classes": FEDERATED}),
        "logit adjustment": changed(nothing, "adjusted", loss=adjusted),
        "equalised loss": changed(nothing, "equalised", loss={"relief": "equalised"}),
        "seesaw loss": changed(nothing, "seesaw", loss={"relief": "seesaw"}),
        "coarse boxes": hard,
        "pseudo-boxes": changed(hard, "pseudo", extra={"pseudo_boxes": True}),
        "Detic's loss": known["detic"],
        "RichSem": full,
        "RichSem, adjusted": changed(full, "adjusted", loss=adjusted),
    }
    pairs = [(arm, "nothing") for arm in arms if arm != "nothing"]
    pairs += [("RichSem", arm) for arm in ("logit adjustment", "repeat factors", "pseudo-boxes")]
    pairs += [("pseudo-boxes", "coarse boxes"), ("RichSem, adjusted", "RichSem")]
    return Study(arms=arms, pairs=pairs, claims=claims_of("table_peers"))


def equal_compute(profile: Profile, *, root: str = "") -> Study:
    """The same remedies with as many steps as runs with extra images take, two kinds of these, and
    what a first half of the steps finds in unlabelled images as labels for the second half."""
    alone, longer = peers(profile, root=root).arms, ", as many steps"
    base, unlabelled = alone["repeat factors"], image_labels(profile, root=root).arms[_NO_LABELS]
    found = {"detector": {"semantic": False}, "extra": {"pseudo_score": SURE}}
    arms = {name + longer: _twice(alone[name]) for name in LOSSES}
    arms |= {name: alone[name] for name in ("RichSem", "Detic's loss", "pseudo-boxes")}
    # A run of its own, although the same: others start from its weights, which records lack.
    arms["first half"] = first = changed(base, "first half")
    arms["two halves"] = _after(base, first)
    arms["pseudo-labels"] = _after(changed(unlabelled, "pseudo-labels", **found), first)
    pairs = [(arm, f"nothing{longer}") for arm in arms if not arm.startswith("nothing")]
    pairs += [("RichSem", name + longer) for name in LOSSES if name != "nothing"]
    pairs += [("pseudo-labels", "two halves"), ("RichSem", "pseudo-labels")]
    return Study(arms=arms, pairs=pairs, claims=claims_of("table_equal_compute"))


def named_right(profile: Profile, seed: int, *, root: str = "") -> pd.DataFrame:
    """What pseudo-labels say of tiles whose label is known, in percent of these.

    Columns group (of the label), tiles, found (a pseudo-box has its middle in the tile) and named
    (one of these has the tile's label), over 300 mosaics; the runs have to be finished.
    """
    arms, seen = equal_compute(profile, root=root).arms, []
    first, run = arms["first half"](seed), arms["pseudo-labels"](seed)
    hard = short_runs(profile, root)["hard labels"](seed)  # on labelled tiles
    with only_one(store.run_folder(first)):
        store.trained(first)  # a record has no weights
    extra = replace(hard.data.extra, pseudo_score=SURE)
    setup = build.build(store.started(replace(run, data=replace(run.data, extra=extra))))
    groups = setup.dataset.frequency_groups()
    finds = setup.extra.dataset
    for index in range(min(300, len(finds))):
        tiles, found = finds.samples[index, 0].target, finds[index, 0].target
        away = (found.boxes[:, :2] - tiles.boxes[:, None, :2]).abs()
        inside = (away <= tiles.boxes[:, None, 2:] / 2).all(dim=2)
        right = inside & (found.labels == tiles.labels[:, None])
        answers = {"found": inside.any(dim=1), "named": right.any(dim=1)}
        seen.append(pd.DataFrame({"group": groups[tiles.labels], **answers}))
    table = pd.concat(seen).groupby("group", sort=False)
    return (100 * table.mean()).assign(tiles=table.size()).reset_index()


def who_pays(profile: Profile, *, root: str = "", trunk: bool = False) -> Study:
    """What takes AP from frequent classes when images are added: a control for each cause.

    With `trunk` there are also arms whose backbone is trained (`unfrozen`).
    """
    known, federated = short_runs(profile, root), {"federated_classes": FEDERATED}
    base, full, chosen = (known[name] for name in ("baseline", "richsem", "detic"))
    by_tiles = "RichSem, federated by tiles"  # on these, by their own labels' counts
    trained = {"baseline, trunk trained": base, "RichSem, trunk trained": full}
    paper_weights = {"class_weight": 1.0, "soft_weight": 0.5}
    arms = {
        "baseline": base,
        "RichSem": full,
        "as many steps, all on scenes": _twice(base),
        "no boxes of tiles": changed(full, "no boxes", loss={"coarse_boxes": False}),
        "own class only": changed(full, "own class", loss={"own_class_only": True}),
        "classes as frequent": changed(full, "as frequent", extra={"as_frequent": True}),
        "no tiles at the end": changed(full, "until", train={"extra_until": 0.75}),
        "tiles count less at the end": changed(full, "less", train=_LESS),
        "baseline, federated": changed(base, "fed", loss=federated),
        "RichSem, federated": changed(full, "fed", loss=federated),
        by_tiles: changed(full, "fed tiles", loss=federated, extra={"own_counts": True}),
        "baseline, paper's weights": changed(base, "weights", loss=paper_weights),
        "RichSem, paper's weights": changed(full, "weights", loss=paper_weights),
        **{name: unfrozen(make) for name, make in trained.items() if trunk},
        _REMEDIED: changed(full, "remedies", **REMEDIES),
        _ADJUSTED: changed(_twice(base), "adjusted", loss=REMEDIES["loss"]),
        _DETIC: changed(chosen, "remedies", **_DETIC_REMEDIES),
        "baseline, averaged": changed(base, "averaged", train={"average": AVERAGE}),
        "RichSem, averaged": changed(full, "averaged", train={"average": AVERAGE}),
    }
    pairs = [(arm, "baseline") for arm in arms if arm != "baseline"]
    pairs += [(arm, "RichSem") for arm in list(arms)[2:]]
    changes = ("federated", "paper's weights", "averaged", *["trunk trained"] * trunk)
    pairs += [(f"RichSem, {change}", f"baseline, {change}") for change in changes]
    pairs += [(by_tiles, "RichSem, federated")]
    return Study(arms=arms, pairs=pairs, claims=claims_of("table_who_pays"))


def full_length(profile: Profile, *, root: str = "") -> Study:
    """Whether what short runs found holds for full ones: the remedies and their control."""
    known, boxes = _full(profile, root), {"pseudo_boxes": True}
    base, full, hard = (known[name] for name in ("baseline", "richsem", "hard labels"))
    pseudo = "pseudo-boxes"
    both, soft = f"{pseudo}, two remedies", f"{pseudo}, soft labels"
    arms = {
        "baseline": base,
        "RichSem": full,
        pseudo: changed(hard, "pseudo", extra=boxes),
        _REMEDIED: changed(full, "remedies", **REMEDIES),
        _ADJUSTED: changed(_twice(base), "adjusted", loss=REMEDIES["loss"]),
        _DETIC: changed(known["detic"], "remedies", **_DETIC_REMEDIES),
        both: changed(hard, "pseudo remedies", **_DETIC_REMEDIES, extra=boxes),
        soft: changed(full, "pseudo", extra=boxes),
    }
    pairs = [(arm, "baseline") for arm in arms if arm != "baseline"]
    pairs += [(_REMEDIED, arm) for arm in list(arms)[1:] if arm != _REMEDIED]
    pairs += [(both, pseudo), (soft, pseudo), (pseudo, "RichSem")]
    # Stated when short runs were known and full ones were not; the last four before their runs,
    # when those of pseudo-boxes alone were known.
    return Study(arms=arms, pairs=pairs, claims=claims_of("table_full_length"))


@of_all_seeds
def unfrozen(config: RunConfig) -> RunConfig:
    """The run with a backbone that is trained, too, so that no maps can be kept."""
    backbone = replace(config.detector.backbone, trainable=True)
    extra = config.data.extra and replace(config.data.extra, features=None)
    data = replace(config.data, features=None, extra=extra)
    detector = replace(config.detector, backbone=backbone)
    return replace(config, name=f"{config.name}-trunk", data=data, detector=detector)


@of_all_seeds
def _twice(config: RunConfig) -> RunConfig:
    """As many steps as a run with extra images takes, all on scenes."""
    train = replace(config.train, steps=2 * config.train.steps, judge_every=0)
    return replace(config, name=f"{config.name}-twice", train=train)


def _after(make: Make, first: Make) -> Make:
    """The run from the weights of another one, with as many steps as that one had."""

    def made(seed: int) -> RunConfig:
        run, start = make(seed), first(seed)
        init = f"{RUN}{start.name}-{config_hash(start)}"
        train = replace(run.train, steps=start.train.steps)
        return replace(run, name=f"{run.name}-after", train=train, init=init, fresh=())

    return made


def image_labels(profile: Profile, *, root: str = "") -> Study:
    """What an image's label is worth: to a tile, to Detic's choice, in scenes, where it is wrong.

    A scene's caption names one to three things, so that one box cannot answer for all of them:
    there the largest box is wrong more often than in the portraits of one thing.
    """
    known = short_runs(profile, root)
    unlabelled = arm(supplement.extra_kind, "inet_unl", profile=profile, root=root)
    scenes = {"key": "cc3m", "supervision": Supervision.CAPTIONS}
    tiles, hard, choice = "tiles", "tiles without CLIP", "Detic's choice"
    ways = {tiles: known["richsem"], hard: known["hard labels"], choice: known["detic"]}
    arms = {
        "baseline": known["baseline"],
        _NO_LABELS: shortened(supplement.same_extra(unlabelled)),
        **ways,
    }
    for words, make in ways.items():
        own = {"key": "cc3m"} if words == choice else scenes
        arms[f"{words}, scenes"] = changed(make, "scenes", extra=own)
    wrong = {f", {share:.0%} wrong": share for share in WRONG}
    for kind, share in wrong.items():
        for words, make in ways.items():
            arms[words + kind] = changed(make, f"wrong {share:.0%}", extra={"wrong_labels": share})
    pairs = [(arm, "baseline") for arm in arms if arm != "baseline"]
    for kind in ("", ", scenes", *wrong):
        pairs += [(tiles + kind, hard + kind), (tiles + kind, choice + kind)]
    return Study(arms=arms, pairs=pairs, claims=claims_of("table_image_labels"))


def soft_label_parts(profile: Profile, *, root: str = "") -> Study:
    """Teachers that keep the own class's share and divide the rest in other ways."""
    known = short_runs(profile, root)
    full, hard, clip = known["richsem"], "hard labels", "as CLIP sees it"
    like, unlike = "permuted among like classes", "permuted among unlike classes"
    names, even = "by names alone", "the same to all"
    arms = {hard: known[hard], clip: full}
    rests = {like: "like", unlike: "unlike", names: "names", even: "even"}
    for words, rest in rests.items():
        arms[words] = changed(full, rest, data={"teacher_rest": rest})
    for words, exponent in (("sharper", 2.0), ("flatter", 0.5)):
        arms[words] = changed(full, words, data={"teacher_sharpness": exponent})
    arms["corrected halfway"] = changed(full, "corrected", data={"teacher_corrected": 0.5})
    arms["another image's"] = known["shuffled teacher"]
    blind = {share: f"{share:.0%} of rare unseen" for share in UNSEEN}
    for share, words in blind.items():
        arms[words] = changed(full, f"unseen {share:.0%}", data={"teacher_unseen": share})
    arms["baseline"] = known["baseline"]
    pairs = [(arm, hard) for arm in arms if arm != hard]
    pairs += [(clip, arm) for arm in list(arms)[2:]]
    pairs += [(like, unlike), (names, even), *((words, "baseline") for words in blind.values())]
    deciding = () if profile == "smoke" else tuple(arms)
    claims = claims_of("table_soft_label_parts")
    return Study(arms=arms, pairs=pairs, claims=claims, deciding=deciding)


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
