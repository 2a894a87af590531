"""CLIP as a zero-shot classifier of boxes: the numbers of supplement Table 2 and Figure 1.

Everything here is arithmetic on ranks and scores; the teacher has already spoken. "Accuracy" is
the mean over classes of the share of a class's boxes whose true class is among the best k, over
the classes present: METHOD 5 shows that the published table is such a class average. It may
equally be LVIS AP of the boxes with k classes each, so that reading is computed as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from richsem.data.box_sets import BoxDataset
from richsem.evaluation import Detections, EvaluationResult, evaluate_coco, evaluate_lvis

TOP = 10  # classes kept per box
TOP_K = (1, 5, 10)
_BOOTSTRAPS = 1000


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the teacher said about A boxes.

    Attributes:
        ranks: Classes put before the true one, [S, R, A] (scales, seeds, boxes).
        top_classes: The `TOP` best class indices of the first scale and seed, [A, TOP].
        top_scores: Their probabilities, [A, TOP].
        own_scores: Probability of the true class, likewise, [A].
    """

    ranks: np.ndarray
    top_classes: np.ndarray
    top_scores: np.ndarray
    own_scores: np.ndarray


def class_accuracy(ranks: np.ndarray, labels: np.ndarray, k: int) -> pd.Series:
    """Top-k accuracy of each class present, in percent, indexed by class index.

    Args:
        ranks: Classes put before the true one, [A].
        labels: True class indices, [A].
        k: Number of guesses.
    """
    hits = pd.Series(100.0 * (ranks < k)).groupby(labels).mean()
    return hits.rename_axis("class")


def accuracy_table(
    ranks: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, seed: int = 0
) -> pd.DataFrame:
    """Class-averaged top-k accuracy over all classes and per frequency group, with intervals.

    Args:
        ranks: [A].
        labels: [A].
        groups: "r", "c" or "f" of every class, [C].
        seed: Seed of the bootstrap.

    Returns:
        Columns k, group (all, r, c, f), accuracy, ci_low, ci_high (95 %, boxes resampled within
        each class), num_classes, num_boxes.
    """
    rows = []
    for k in TOP_K:
        accuracy = class_accuracy(ranks, labels, k)
        draws = _bootstrap(ranks < k, labels, np.random.default_rng(seed))
        for group in ("all", "r", "c", "f"):
            member = (groups[accuracy.index] == group) | (group == "all")
            if not member.any():
                continue
            low, high = np.percentile(draws[:, member].mean(axis=1), [2.5, 97.5])
            rows.append(
                {
                    "k": k,
                    "group": group,
                    "accuracy": accuracy[member].mean(),
                    "ci_low": low,
                    "ci_high": high,
                    "num_classes": int(member.sum()),
                    "num_boxes": int(np.isin(labels, accuracy.index[member]).sum()),
                }
            )
    return pd.DataFrame(rows)


def _bootstrap(hits: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Resampled class accuracies in percent, [draws, classes present].

    A class with n boxes of which a share p is right gives binomial(n, p) / n: the same as
    resampling its boxes with replacement.
    """
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    right = np.bincount(inverse, weights=hits)
    return 100.0 * rng.binomial(counts, right / counts, size=(_BOOTSTRAPS, len(counts))) / counts


def noise_curve(
    ranks: np.ndarray, labels: np.ndarray, scales: Sequence[float], ks: Sequence[int] = (5, 10)
) -> pd.DataFrame:
    """Class-averaged accuracy against the noise scale, with a band over the noise seeds.

    Args:
        ranks: [S, R, A] for S scales and R seeds.
        labels: [A].
        scales: [S].
        ks: Numbers of guesses.

    Returns:
        Columns k, scale, accuracy (mean over seeds), ci_low, ci_high (95 % of the mean over
        seeds, Student's t; equal to the mean for one seed), relative (to the first scale).
    """
    rows = []
    for k in ks:
        for scale, repeats in zip(scales, ranks, strict=True):
            values = np.array([class_accuracy(r, labels, k).mean() for r in repeats])
            mean, half = values.mean(), _half_interval(values)
            row = {"k": k, "scale": scale, "accuracy": mean}
            rows.append(row | {"ci_low": mean - half, "ci_high": mean + half})
    frame = pd.DataFrame(rows)
    start = frame.groupby("k")["accuracy"].transform("first")
    return frame.assign(relative=frame["accuracy"] / start)


def _half_interval(values: np.ndarray) -> float:
    if len(values) < 2:
        return 0.0
    from scipy import stats

    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def box_ap(
    dataset: BoxDataset, reading: Reading, k: int, *, protocol: str = "lvis"
) -> EvaluationResult:
    """The other reading of Table 2: AP of the true boxes, each carrying its k best classes.

    The softmax probability is the score; a sigmoid of tau times the cosine would tie them all.

    Args:
        dataset: The boxes; evaluated against its own file.
        reading: The teacher's answers for exactly these boxes.
        k: Classes kept per box.
        protocol: `lvis` or `coco`.
    """
    k = min(k, reading.top_classes.shape[1])
    ids = np.array([category.id for category in dataset.categories])
    xyxy = np.repeat(dataset.boxes_xyxy, k, axis=0)
    detections = Detections(
        image_id=np.repeat(dataset.image_ids[dataset.box_image], k),
        category_id=ids[reading.top_classes[:, :k].ravel()],
        bbox_xywh=np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1),
        score=reading.top_scores[:, :k].ravel(),
    )
    evaluate = {"lvis": evaluate_lvis, "coco": evaluate_coco}[protocol]
    return evaluate(dataset.path, detections, image_ids=dataset.image_ids)
