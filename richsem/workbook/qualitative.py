"""Examples in the manner of supplement Figure 4, chosen by a rule that can be stated."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from richsem.data.box_sets import BoxDataset
from richsem.evaluation import Detections
from richsem.workbook.comparison import BEST, FOUND, MISNAMED, UNSEEN, Panel, box_outcomes, panels

MOST_IMAGES = 20  # of one figure


def shown(detections: Mapping[str, Detections], threshold: float) -> dict[str, Detections]:
    """What a user would see of each run: the `BEST` boxes of an image that reach a score."""
    kept = {}
    for run, found in detections.items():
        rows = found.score >= threshold
        kept[run] = Detections(**{name: values[rows] for name, values in vars(found).items()})
    return {run: found.best_per_image(BEST) for run, found in kept.items()}


def outcome_frame(dataset: BoxDataset, seen: Mapping[str, Detections]) -> pd.DataFrame:
    """What becomes of every rare object: columns image, box (row of the set), and one per run."""
    rows = np.flatnonzero((dataset.frequency_groups() == "r")[dataset.labels])
    columns = {run: box_outcomes(dataset, found)[0][rows] for run, found in seen.items()}
    return pd.DataFrame({"image": dataset.box_image[rows], "box": rows, **columns})


def ranking(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Images with rare objects by what the last run finds more of them than the first.

    Args:
        outcomes: As `outcome_frame` gives it.

    Returns:
        Index image; columns objects (rare ones), a share found per run, and gain (last less first).
        Largest gain first, ties in the order of the images.
    """
    runs = [name for name in outcomes if name not in ("image", "box")]
    found = outcomes[runs].eq(FOUND).groupby(outcomes["image"])
    table = found.mean()
    table.insert(0, "objects", found.size())
    table["gain"] = table[runs[-1]] - table[runs[0]]
    return table.sort_values("gain", ascending=False, kind="stable")


def ends(ranking: pd.DataFrame, count: int) -> tuple[list[int], list[int]]:
    """The images of the largest gain and those of the largest loss, ties in their own order.

    Args:
        ranking: As `ranking` gives it.
        count: Images on either side, 1 to `MOST_IMAGES`; fewer if there are fewer.

    Raises:
        ValueError: No image has a rare object, or `count` is out of range.
    """
    if not 1 <= count <= MOST_IMAGES:
        raise ValueError(f"IMAGES is {count}; a figure shows 1 to {MOST_IMAGES}")
    if ranking.empty:
        raise ValueError("no image of this split has an object of a rare class: nothing to compare")
    losses = ranking.sort_index().sort_values("gain", kind="stable")
    return ranking.index[:count].tolist(), losses.index[:count].tolist()


def outcome_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Rare objects by what becomes of them, percent: one line per run."""
    runs = [name for name in outcomes if name not in ("image", "box")]
    shares = {run: outcomes[run].value_counts(normalize=True) for run in runs}
    return 100 * pd.DataFrame(shares).T.reindex(columns=[FOUND, MISNAMED, UNSEEN]).fillna(0)


def clutter_table(dataset: BoxDataset, seen: Mapping[str, Detections]) -> pd.DataFrame:
    """What each run shows: boxes per image, rare ones per image, and how many boxes are right.

    Right means: an object of the class is annotated there. A run could find more rare objects by
    showing more boxes; this tells whether it does.
    """
    groups = dataset.frequency_groups()
    rare = [c.id for c, group in zip(dataset.categories, groups, strict=True) if group == "r"]
    rows = {}
    for run, found in seen.items():
        is_rare = np.isin(found.category_id, rare)
        right = pd.Series(100.0 * box_outcomes(dataset, found)[1])
        rows[run] = {
            "boxes per image": len(found) / len(dataset),
            "right, percent": right.mean(),
            "rare boxes per image": is_rare.sum() / len(dataset),
            "right of the rare, percent": right[is_rare].mean(),
        }
    return pd.DataFrame(rows).T


def examples(
    dataset: BoxDataset,
    seen: Mapping[str, Detections],
    outcomes: pd.DataFrame,
    images: Sequence[int],
) -> list[list[Panel]]:
    """For each image the annotated boxes and what every run shows.

    An arrow in a run's panel points at a rare object that no other run finds.
    """
    rows = panels(dataset, seen, images, threshold=0.0)
    for image, row in zip(images, rows, strict=True):
        own = outcomes[outcomes["image"] == image]
        hits = own[list(seen)].eq(FOUND)
        for i, run in enumerate(seen, start=1):
            alone = own["box"][hits[run] & (hits.sum(axis=1) == 1)]
            title = f"{run}: {hits[run].sum()} of {len(own)} rare"
            row[i] = replace(row[i], title=title, arrows_xyxy=dataset.boxes_xyxy[alone])
    return rows


def arrows(rows: Sequence[Sequence[Panel]]) -> list[int]:
    """How many arrows the panels of each column carry."""
    return [sum(len(panel.arrows_xyxy) for panel in column) for column in zip(*rows, strict=True)]


def box_frame(
    dataset: BoxDataset, rows: Sequence[Sequence[Panel]], images: Sequence[int]
) -> pd.DataFrame:
    """The boxes of panels in tidy form.

    Returns:
        Columns image_id, panel (annotated or the run), category, rare, left, top, right, bottom.
    """
    parts = []
    for image, row in zip(images, rows, strict=True):
        for panel in row:
            part = pd.DataFrame(panel.boxes_xyxy, columns=["left", "top", "right", "bottom"])
            part.insert(0, "image_id", dataset.image_ids[image])
            part.insert(1, "panel", panel.title.split(":")[0])
            part.insert(2, "category", panel.names)
            part.insert(3, "rare", panel.rare)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)
