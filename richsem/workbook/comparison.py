"""The baseline and RichSem side by side (notebooks 07 and 13): curves, classes, and examples.

Examples are in the manner of supplement Figure 4, chosen by a rule: the images with the largest
gain, or loss, in rare objects found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import torch
from torchvision.ops import box_convert, box_iou

from richsem.config import Profile, differences
from richsem.data.box_sets import BoxDataset
from richsem.data.reading import index_of
from richsem.evaluation import Detections
from richsem.minilvis.render import drawn_larger
from richsem.recipes import dino_recipes
from richsem.training.loop import Row
from richsem.training.run_config import RunConfig
from richsem.workbook.panels import Panel, annotated, enlarged, of_classes

CURVE_METRICS = ("AP", "AP50", "AP75", "APr", "APc", "APf")
BEST = 20  # detections of an image that a user would look at
FOUND_IOU = 0.5
FOUND, MISNAMED, UNSEEN = "found", "box with another name", "no box"
# Fields whose differences between a profile and the published setting a reader should know.
_SCALE = msgspec.toml.decode(Path(__file__).with_suffix(".toml").read_bytes())
_OF_A_PART = ("key", "supervision", "mosaic.side")  # what is told of a part that others lack


def pair(
    profile: Profile, *, seed: int = 0, root: str = "", steps: int = 0
) -> dict[str, RunConfig]:
    """The baseline and RichSem, with so many detection steps; 0 keeps their own."""
    recipes = {"baseline": dino_recipes.baseline, "RichSem": dino_recipes.richsem}
    runs = {name: recipe(profile, seed=seed, root=root) for name, recipe in recipes.items()}
    return {name: at_length(run, steps) for name, run in runs.items()}


def at_length(config: RunConfig, steps: int) -> RunConfig:
    """A run of so many detection steps (0: its own), judged at least at its end, for a curve."""
    steps = steps * (2 if config.data.extra else 1) or config.train.steps
    judge_every = min(config.train.judge_every, steps)
    return replace(config, train=replace(config.train, steps=steps, judge_every=judge_every))


def difference_table(configs: Mapping[str, RunConfig]) -> pd.DataFrame:
    """The fields (rows) in which configurations differ; "-" where one lacks the whole part."""
    rows = {}
    for field, values in differences(configs).items():
        told = [value for value in values.values() if value is not None]
        agree = all(value == told[0] for value in told)
        if len(told) == len(values) or not agree or field.endswith(_OF_A_PART):
            rows[field] = {name: _plain(value) for name, value in values.items()}
    return pd.DataFrame(rows, index=list(configs)).T


def against_paper(profile: Profile) -> pd.DataFrame:
    """What a profile changes in RichSem's published recipe, in words; nothing at paper."""
    runs = {"paper": dino_recipes.richsem("paper"), profile: dino_recipes.richsem(profile)}
    found = differences(runs)
    rows = {
        words: {name: _plain(value) for name, value in found[field].items()}
        for field, words in _SCALE.items()
        if field in found
    }
    return pd.DataFrame(rows, index=list(runs)).T


def _plain(value: Any) -> str:
    """A field's value for a reader."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) if len(value) < 4 else f"{value[0]} to {value[-1]}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else f"{value}"


def history_frame(histories: Mapping[str, Sequence[Row]]) -> pd.DataFrame:
    """Losses: columns run, step, cpu_seconds, kind (of batch), term, value."""
    rows = [
        (run, row["step"], row["cpu_seconds"], kind, term, value)
        for run, rows in histories.items()
        for row in rows
        for kind, terms in row["losses"].items()
        for term, value in terms.items()
    ]
    return pd.DataFrame(rows, columns=["run", "step", "cpu_seconds", "kind", "term", "value"])


def curve_frame(histories: Mapping[str, Sequence[Row]]) -> pd.DataFrame:
    """Learning curves in percent: columns run, step, cpu_seconds, metric, value."""
    rows = [
        (run, row["step"], row["cpu_seconds"], metric, 100 * row["metrics"][metric])
        for run, rows in histories.items()
        for row in rows
        for metric in CURVE_METRICS
        if metric in row.get("metrics", {})
    ]
    frame = pd.DataFrame(rows, columns=["run", "step", "cpu_seconds", "metric", "value"])
    return frame.astype({"cpu_seconds": float, "value": float})  # also where no curve was judged


def ranking(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Images with rare objects by what the last run finds more of them than the first.

    From `SideBySide.outcomes`: columns objects (rare ones), a share found per run, and gain
    (last less first). Largest gain first, ties in the order of the images.
    """
    found = outcomes.drop(columns=["image", "box"]).eq(FOUND).groupby(outcomes["image"])
    table = found.mean()
    gain = table.iloc[:, -1] - table.iloc[:, 0]
    table.insert(0, "objects", found.size())
    return table.assign(gain=gain).sort_values("gain", ascending=False, kind="stable")


def ends(ranking: pd.DataFrame, count: int) -> tuple[list[int], list[int]]:
    """The `count` images of the largest gain and of the largest loss, ties in their own order."""
    if ranking.empty:
        raise ValueError("no image of this split has an object of a rare class: nothing to compare")
    losses = ranking.sort_index().sort_values("gain", kind="stable")
    return ranking.index[:count].tolist(), losses.index[:count].tolist()


def examples(
    dataset: BoxDataset,
    seen: Mapping[str, Detections],
    outcomes: pd.DataFrame,
    images: Sequence[int],
) -> list[list[Panel]]:
    """The annotated boxes and what runs show; arrows point at rare objects that no other finds."""
    ids, rows = np.array([category.id for category in dataset.categories]), []
    for image in images:
        rare = outcomes[outcomes["image"] == image]
        hits = rare[list(seen)].eq(FOUND)
        row = [annotated(dataset, image, "annotated")]
        for run, found in seen.items():
            own = found.select(found.image_id == dataset.image_ids[image])
            labels = index_of(ids, own.category_id)
            panel = of_classes(dataset, image, _xyxy(own).numpy(), labels, run)
            alone = rare["box"][hits[run] & (hits.sum(axis=1) == 1)]
            note = f"{hits[run].sum()} of {len(rare)} rare"
            row.append(replace(panel, arrows_xyxy=dataset.boxes_xyxy[alone], note=note))
        rows.append(row)
    return rows


def box_frame(
    dataset: BoxDataset, rows: Sequence[Sequence[Panel]], images: Sequence[int]
) -> pd.DataFrame:
    """Boxes of panels: image_id, panel, category, rare, and left, top, right, bottom in pixels."""
    parts = []
    for image, row in zip(images, rows, strict=True):
        for panel in row:
            part = {"image_id": dataset.image_ids[image], "panel": panel.title}
            part |= {"category": panel.names, "rare": [kind == "rare" for kind in panel.kinds]}
            part |= dict(zip(("left", "top", "right", "bottom"), panel.boxes_xyxy.T, strict=True))
            parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """What runs show at any score, matched once so that another score costs nothing.

    A box is found, and a detection right, if a pair of one class overlaps by `FOUND_IOU`; several
    detections may find one box.
    """

    dataset: BoxDataset
    detections: Mapping[str, Detections]  # by run, the `BEST` of each image
    right: Mapping[str, np.ndarray]  # whether each of these is [D]
    found: pd.DataFrame  # rare objects: image, box, and by run the score of its best right box
    touched: pd.DataFrame  # by run the score of the best box over each of them, of any class

    @classmethod
    def of(cls, dataset: BoxDataset, detections: Mapping[str, Detections]) -> "SideBySide":
        """Matches all detections of a split, by run."""
        best = {run: own.best_per_image(BEST) for run, own in detections.items()}
        rare = (dataset.frequency_groups() == "r")[dataset.labels]
        found = pd.DataFrame({"image": dataset.box_image, "box": np.arange(len(rare))})[rare]
        touched, right = found[[]].copy(), {}
        for run, own in best.items():
            scores, right[run] = _matched(dataset, own)
            found[run], touched[run] = scores[:, rare]
        return cls(dataset=dataset, detections=best, right=right, found=found, touched=touched)

    @cached_property
    def wrong(self) -> dict[str, np.ndarray]:
        """By run the scores of the boxes that are not right, highest first."""
        scores = {run: own.score[~self.right[run]] for run, own in self.detections.items()}
        return {run: np.sort(own)[::-1] for run, own in scores.items()}

    def thresholds(self, score: float, *, alike: bool = True) -> dict[str, float]:
        """The first run's score, and for the others the one that shows as many wrong boxes.

        Scores of two detectors need not mean the same; wrong boxes cost a reader the same. With
        `alike` false all have the same score.
        """
        number = int((next(iter(self.wrong.values())) >= score).sum())
        thresholds = dict.fromkeys(self.wrong, score)
        for run, wrong in list(self.wrong.items())[1:] if alike else ():
            # Just above the first wrong box too many; a run with fewer in all shows every box.
            thresholds[run] = float(np.nextafter(wrong[number], 1)) if number < len(wrong) else 0.0
        return thresholds

    def shown(self, thresholds: Mapping[str, float]) -> dict[str, Detections]:
        """The boxes that reach each run's threshold."""
        return {
            run: own.select(own.score >= thresholds[run]) for run, own in self.detections.items()
        }

    def outcomes(self, thresholds: Mapping[str, float]) -> pd.DataFrame:
        """What becomes of every rare object: columns image, box (row of the set), and one per run.

        `FOUND`, `MISNAMED` (only boxes of other classes overlap) or `UNSEEN`.
        """
        frame = self.found.reset_index(drop=True)
        for run, least in thresholds.items():
            kinds = [self.found[run] >= least, self.touched[run] >= least]
            frame[run] = np.select(kinds, [FOUND, MISNAMED], UNSEEN)
        return frame

    def clutter(self, thresholds: Mapping[str, float]) -> pd.DataFrame:
        """What each run shows: boxes per image, rare ones per image, and how many are right.

        Right means: an object of the class is annotated there. A run could find more rare objects
        by showing more boxes; this tells whether it does.
        """
        groups = zip(self.dataset.categories, self.dataset.frequency_groups(), strict=True)
        rare, rows = [category.id for category, group in groups if group == "r"], {}
        for run, own in self.detections.items():
            shown = own.score >= thresholds[run]
            is_rare = np.isin(own.category_id, rare)[shown]
            right = pd.Series(100.0 * self.right[run][shown])
            rows[run] = {
                "boxes per image": shown.sum() / len(self.dataset),
                "right, percent": right.mean(),
                "rare boxes per image": is_rare.sum() / len(self.dataset),
                "right of the rare, percent": right[is_rare].mean(),
            }
        return pd.DataFrame(rows).T

    def by_class(self, thresholds: Mapping[str, float]) -> pd.DataFrame:
        """Share of the objects of each rare class that runs find, as in `ranking`; and images."""
        frame = self.outcomes(thresholds)
        labels = self.dataset.labels[frame["box"]]
        names = np.array([category.name for category in self.dataset.categories])[labels]
        images = frame["image"].groupby(names).nunique()
        return ranking(frame.assign(image=names)).join(images.rename("images"))


def _matched(dataset: BoxDataset, detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Highest scores of what finds each box, and of what overlaps it [2, n]; what is right [D].

    The score of a box that nothing finds or overlaps is -inf.
    """
    ids = np.array([category.id for category in dataset.categories])
    corners = _xyxy(detections)
    highest = np.full((2, len(dataset.labels)), -np.inf)
    right = np.zeros(len(detections), dtype=bool)
    of_image = pd.Series(detections.score).groupby(detections.image_id).indices
    for image, image_id in enumerate(dataset.image_ids.tolist()):
        rows = slice(dataset.offsets[image], dataset.offsets[image + 1])
        own = of_image.get(image_id, np.zeros(0, dtype=int))
        boxes = torch.from_numpy(dataset.boxes_xyxy[rows]).double()
        over = box_iou(boxes, corners[own]).numpy() >= FOUND_IOU
        agree = over & (ids[dataset.labels[rows]][:, None] == detections.category_id[own])
        scores = np.where([agree, over], detections.score[own], -np.inf)
        highest[:, rows] = scores.max(axis=-1, initial=-np.inf)
        right[own] = agree.any(axis=0)
    return highest, right


def sharper(
    rows: Sequence[Sequence[Panel]], images: Sequence[int], dataset: BoxDataset, config: RunConfig
) -> list[list[Panel]]:
    """Panels with pictures of twice the size, where the embedded benchmark can draw them."""
    benchmark, larger = config.data.benchmark, []
    if config.data.root or benchmark is None:
        return [list(row) for row in rows]
    for image, row in zip(images, rows, strict=True):
        file = dataset.image_root / dataset.file_names[image]
        place = int(file.stem) - 1  # files count from 1
        picture = drawn_larger(benchmark, file.parent.name, place, dataset.image(image))
        larger.append([enlarged(panel, picture) for panel in row])
    return larger


def _xyxy(detections: Detections) -> torch.Tensor:
    return box_convert(torch.from_numpy(detections.bbox_xywh), "xywh", "xyxy")
