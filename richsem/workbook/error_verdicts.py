"""Where average precision is lost: one verdict for every detection, and the objects missed.

The kinds of errors are those of TIDE (Bolya et al., ECCV 2020). What a kind costs is the AP that
would be gained if its errors alone were put right. Matching follows the evaluators at one IoU
threshold, federated rules included, so that AP50 computed from the verdicts is the evaluators'.
Crowd regions are not known here: on a COCO file that has them, what lies in one counts as an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torchvision import ops

from richsem import evaluation
from richsem.data.box_sets import BoxDataset
from richsem.data.reading import DataError, detected_positions, index_of
from richsem.evaluation import Detections, Protocol

CORRECT, WRONG_CLASS, BAD_LOCATION, BOTH = "correct", "wrong class", "bad location", "both"
DUPLICATE, BACKGROUND, MISSED = "duplicate", "background", "missed"
NOT_VERIFIED, NOT_EXHAUSTIVE = "class not verified", "class not exhaustive"
IGNORED = (NOT_VERIFIED, NOT_EXHAUSTIVE)
FALSE = (WRONG_CLASS, BAD_LOCATION, BOTH, DUPLICATE, BACKGROUND)
VERDICTS = (CORRECT, *FALSE, *IGNORED)
ERRORS = (*FALSE, MISSED)

_FOUND, _NEAR = 0.5, 0.1  # IoU from which on an object is found, and has to do with a detection
_RECALLS = np.linspace(0, 1, 101)
_BEST_FIRST = {"ascending": False, "kind": "stable"}  # how scores are sorted
_BINS = 10  # of scores


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """Every detection within the protocol's cap, with its verdict."""

    dataset: BoxDataset  # what was annotated
    image: np.ndarray  # position of the image [D]
    label: np.ndarray  # class index [D]
    score: np.ndarray  # [D]
    boxes_xyxy: np.ndarray  # in pixels [D, 4]
    verdict: np.ndarray  # one of `VERDICTS` [D]
    # The annotation that the verdict is about: the one that is found, found again, badly located or
    # taken for another class; -1 for none [D].
    truth: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Columns image, label, score, verdict, truth; image by image from the strongest down."""
        names = ("image", "label", "score", "verdict", "truth")
        return pd.DataFrame({name: getattr(self, name) for name in names})

    @cached_property
    def counted(self) -> np.ndarray:
        """Whether the protocol judges a detection at all [D]."""
        return ~np.isin(self.verdict, IGNORED)

    @cached_property
    def missed(self) -> np.ndarray:
        """Annotations that nothing found, not even badly located or as another class [A]."""
        near = np.isin(self.verdict, (CORRECT, WRONG_CLASS, BAD_LOCATION))
        missed = np.ones(len(self.dataset.labels), dtype=bool)
        missed[self.truth[near]] = False
        return missed

    @cached_property
    def by_verdict(self) -> dict[str, np.ndarray]:
        """Rows of the detections with each verdict, from the highest score down."""
        order = np.argsort(-self.score, kind="stable")
        return {verdict: order[self.verdict[order] == verdict] for verdict in VERDICTS}

    def strongest(self, verdict: str, number: int, group: str = "all") -> np.ndarray:
        """Rows of the detections with this verdict that have the highest scores.

        `group` is the frequency group of the class that they claim, one of `group_masks`.
        """
        rows = self.by_verdict[verdict]
        return rows[group_masks(self.dataset)[group][self.label[rows]]][:number]


def judge(dataset: BoxDataset, detections: Detections, protocol: Protocol) -> Judgement:
    """Gives every detection a verdict; their ids are those of the annotation file.

    An unmatched detection is, in this order: badly located (IoU from .1 to below .5 with an object
    of its class), of the wrong class (.5 and more with another one), a duplicate (of an object that
    a stronger detection found), background (below .1 with all objects), or both badly located and
    of the wrong class. `lvis` keeps 300 detections of an image and ignores what is not verified;
    `coco` keeps 100 of an image and class and judges everything.

    Raises:
        DataError: Detections name unknown ids, or the file is not federated but `lvis` is asked.
    """
    if protocol == "lvis" and not dataset.is_federated:
        raise DataError(f"{dataset.path}: not federated, so it cannot be judged by LVIS; use coco")
    path, ids = str(dataset.path), np.array([category.id for category in dataset.categories])
    image = detected_positions(detections.image_id, dataset.image_ids, "image", path)
    label = detected_positions(detections.category_id, ids, "category", path)
    group, cap = image, evaluation.LVIS_MAX_DETS
    if protocol == "coco":
        group, cap = image * len(ids) + label, evaluation.COCO_MAX_DETS
    rows = evaluation.best_of_each(group, detections.score, cap)
    # The order of the evaluators, which decides between equal scores.
    rows = rows[np.lexsort((-detections.score[rows], dataset.image_ids[image[rows]]))]
    image, label = image[rows], label[rows]
    boxes = detections.bbox_xywh[rows].copy()
    boxes[:, 2:] += boxes[:, :2]
    verdict = np.full(len(rows), BACKGROUND, dtype=f"U{max(map(len, VERDICTS))}")
    truth = np.full(len(rows), -1)
    starts = np.flatnonzero(np.diff(image, prepend=-1))
    for start, stop in pairwise([*starts, len(image)]):
        own, place = slice(start, stop), image[start]
        objects = dataset.boxes_of(place)
        verdict[own], found = _judge_image(boxes[own], label[own], *objects)
        truth[own] = np.where(found >= 0, found + dataset.offsets[place], -1)
    if protocol == "lvis":
        ignore_unverified(dataset, image, label, verdict)
    found = {"image": image, "label": label, "score": detections.score[rows], "boxes_xyxy": boxes}
    return Judgement(dataset=dataset, **found, verdict=verdict, truth=truth)


def _judge_image(
    boxes: np.ndarray, labels: np.ndarray, true_boxes: np.ndarray, true_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts of one image's detections, best first, and the objects they are about."""
    if not len(true_boxes):
        return np.full(len(boxes), BACKGROUND), np.full(len(boxes), -1)
    overlap = box_iou(boxes, true_boxes.astype(np.float64))
    same = labels[:, None] == true_labels
    own, other = np.where(same, overlap, -1.0), np.where(same, -1.0, overlap)
    best_own, best_other = own.max(axis=1), other.max(axis=1)
    kinds = {
        BAD_LOCATION: (best_own >= _NEAR) & (best_own < _FOUND),
        WRONG_CLASS: best_other >= _FOUND,
        DUPLICATE: best_own >= _FOUND,
        BACKGROUND: np.maximum(best_own, best_other) < _NEAR,
    }
    verdict = np.select(list(kinds.values()), list(kinds), BOTH).astype(object)
    truth = np.where(verdict == WRONG_CLASS, other.argmax(axis=1), own.argmax(axis=1))
    truth[np.isin(verdict, (BACKGROUND, BOTH))] = -1
    taken = np.zeros(len(true_boxes), dtype=bool)
    for row in np.flatnonzero(best_own >= _FOUND):
        free = np.where(taken, -1.0, own[row])
        if free.max() >= _FOUND:
            place = len(free) - 1 - free[::-1].argmax()  # the evaluators take the last of equals
            verdict[row], truth[row], taken[place] = CORRECT, place, True
    return verdict, truth


def ignore_unverified(
    dataset: BoxDataset, image: np.ndarray, label: np.ndarray, verdict: np.ndarray
) -> None:
    """The federated rules, written into the verdicts of detections (all [D])."""
    verified = _listed(dataset, dataset.neg_category_ids)  # [N, C], true: known to be absent
    verified[dataset.box_image, dataset.labels] = True  # or annotated
    open_ended = _listed(dataset, dataset.not_exhaustive_category_ids)
    unmatched = verdict != CORRECT
    verdict[unmatched & open_ended[image, label]] = NOT_EXHAUSTIVE
    verdict[~verified[image, label]] = NOT_VERIFIED


def _listed(dataset: BoxDataset, lists: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Whether an image's list names a class [N, C]."""
    ids = np.array([category.id for category in dataset.categories])
    named = np.zeros((len(dataset), len(ids)), dtype=bool)
    rows = np.repeat(np.arange(len(dataset)), list(map(len, lists)))
    named[rows, index_of(ids, np.array([i for own in lists for i in own], dtype=int))] = True
    return named


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes xyxy [n, 4] and [m, 4]: [n, m]."""
    overlap = ops.box_iou(torch.from_numpy(boxes), torch.from_numpy(others))
    return overlap.nan_to_num(0).numpy()  # two boxes without area do not overlap


def class_ap(judgement: Judgement, without: str = "") -> np.ndarray:
    """101-point AP of every class [C] at the IoU of the verdicts; NaN for one without objects.

    One of `ERRORS` can be put right. The strongest detection that has the wrong class or place for
    an object that nobody found becomes correct; all other errors of the kind disappear. Missed
    objects disappear, too; a class that has no others is perfect.
    """
    if without not in ("", *ERRORS):
        raise ValueError(f"unknown error {without!r}; there are {', '.join(ERRORS)}")
    labels, correct = judgement.dataset.labels, judgement.verdict == CORRECT
    table = judgement.table[["label", "score", "truth"]].assign(correct=correct)
    wrong = judgement.verdict == without
    found = table[judgement.counted & ~wrong]
    if without in (WRONG_CLASS, BAD_LOCATION):
        lost = wrong & ~np.isin(judgement.truth, judgement.truth[correct])
        righted = table[lost].sort_values("score", **_BEST_FIRST).drop_duplicates("truth")
        righted = righted.assign(label=labels[righted["truth"]], correct=True)
        found = pd.concat([found, righted]).sort_index()
    objects = labels[~judgement.missed] if without == MISSED else labels
    numbers = np.bincount(objects, minlength=len(judgement.dataset.categories))
    values = np.where(numbers > 0, 0.0, np.nan)
    found = found[numbers[found["label"]] > 0].sort_values("score", **_BEST_FIRST)
    for label, right in found.groupby("label")["correct"]:
        recall, precision = _curve(right.to_numpy(), numbers[label])
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(recall, _RECALLS, side="left")
        values[label] = envelope[reached[reached < len(recall)]].sum() / len(_RECALLS)
    return values


def lost_ap(judgement: Judgement) -> pd.DataFrame:
    """What each kind of error costs: columns error, group ("r", "c", "f", "all") and lost.

    In AP points, which do not add up to 100 - AP: an error of one kind can hide one of another.
    """
    now, gained = class_ap(judgement), {}
    for error in ERRORS:
        then = class_ap(judgement, error)
        then[np.isnan(then) & ~np.isnan(now)] = 1.0  # of a class that has lost its last object
        gained[error] = 100 * (then - now)
    return group_means(judgement.dataset, gained, "error", "lost")


def top_verdicts(judgement: Judgement) -> pd.DataFrame:
    """What the best detections of a class are: as many of them as it has objects.

    Columns verdict, group and share: an average over classes. A class that has fewer counted
    detections than objects counts the rest as missed.
    """
    numbers = judgement.dataset.instance_counts()
    found = judgement.table[judgement.counted].sort_values("score", **_BEST_FIRST)
    best = found[found.groupby("label").cumcount() < numbers[found["label"]]]
    counts = pd.crosstab(best["label"], best["verdict"])
    kinds = [CORRECT, *FALSE]
    counts = counts.reindex(index=range(len(numbers)), columns=kinds, fill_value=0)
    shares = counts.div(np.where(numbers > 0, numbers, np.nan), axis=0)
    shares[MISSED] = 1 - shares.sum(axis=1, skipna=False)
    return group_means(judgement.dataset, shares, "verdict", "share")


def verdict_shares(judgement: Judgement, best: int = 0) -> pd.Series:
    """Share of each verdict, over all detections or the `best` strongest of each image."""
    found = judgement.table.groupby("image").head(best or len(judgement))
    return found["verdict"].value_counts(normalize=True).reindex(VERDICTS, fill_value=0.0)


def precision_recall(judgement: Judgement, label: int) -> pd.DataFrame:
    """The curve of one class: recall, precision and score after each counted detection."""
    found = judgement.table[judgement.counted & (judgement.label == label)]
    found = found.sort_values("score", **_BEST_FIRST)
    number = int((judgement.dataset.labels == label).sum())
    recall, precision = _curve(found["verdict"].to_numpy() == CORRECT, max(number, 1))
    return pd.DataFrame({"recall": recall, "precision": precision, "score": [*found["score"]]})


def calibration(judgement: Judgement) -> pd.DataFrame:
    """How often detections of a score are correct, by frequency group of the class they claim.

    Columns group, score (mean of the bin), correct (share) and number, for bins with any counted.
    """
    place = np.minimum((judgement.score * _BINS).astype(int), _BINS - 1)
    frame = judgement.table.assign(place=place, correct=judgement.verdict == CORRECT)
    frame = frame[judgement.counted]
    parts = []
    for group, mask in group_masks(judgement.dataset).items():
        by_bin = frame[mask[frame["label"]]].groupby("place")
        part = by_bin.agg(score=("score", "mean"), correct=("correct", "mean"))
        parts.append(part.assign(group=group, number=by_bin.size()))
    return pd.concat(parts, ignore_index=True)[["group", "score", "correct", "number"]]


def group_masks(dataset: BoxDataset) -> dict[str, np.ndarray]:
    """Which classes [C] belong to each frequency group that occurs, and to "all"."""
    groups = dataset.frequency_groups()
    masks = {group: groups == group for group in "rcf" if (groups == group).any()}
    return masks | {"all": np.ones(len(groups), dtype=bool)}


def group_means(
    dataset: BoxDataset,
    values: Mapping[Any, np.ndarray] | pd.DataFrame,  # by key, of every class [C]
    key: str,
    value: str,
) -> pd.DataFrame:
    """Means in each frequency group and in all: columns key, group, value; NaN does not count."""
    frame, masks = pd.DataFrame(values), group_masks(dataset)
    means = pd.DataFrame({group: frame[mask].mean() for group, mask in masks.items()}).T
    means = means.rename_axis(index="group", columns=key)
    return means.unstack().dropna().rename(value).reset_index()


def _curve(correct: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each detection, best first."""
    hits = np.cumsum(correct)
    return hits / number, hits / np.arange(1, len(hits) + 1)
