"""What notebook 08 judges: detections of a trained run or of a file, by one or both protocols."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from richsem import evaluation
from richsem.data.box_sets import BoxDataset
from richsem.data.categories import spoken_names
from richsem.data.reading import DataError
from richsem.evaluation import Backend, Detections, EvaluationResult, Protocol
from richsem.operations import store
from richsem.operations.verdict import read_detections
from richsem.training import runs
from richsem.training.run_config import RunConfig
from richsem.workbook import error_verdicts as verdicts
from richsem.workbook.notebook_data import DataConfig, open_detection_set
from richsem.workbook.panels import Panel

_SAME_PLACE = 0.6  # IoU of detections that are shown as one box with several names
_OBJECTS_OF_A_CURVE = 10
_LOOKS = {  # kind of box and mark
    verdicts.CORRECT: ("right", "+"),
    **dict.fromkeys(verdicts.IGNORED, ("ignored", "?")),
}


@dataclass(frozen=True, kw_only=True)
class JudgingConfig:
    """Detections and what they are held against."""

    data: DataConfig  # the annotations
    detections: str = ""  # a result file in COCO's format; empty for those of `run`
    run: RunConfig  # the detector that is trained, or opened if it was trained before


def detections_to_judge(config: JudgingConfig) -> tuple[BoxDataset, Detections]:
    """The annotations of a split or file, and detections on its images."""
    data = config.data
    dataset = open_detection_set(data)
    if config.detections:
        found = of_images(read_detections(config.detections), dataset)
        if not len(found):
            raise DataError(f"{config.detections}: no detection is on an image of {dataset.path}")
        return dataset, found
    if not data.annotations:
        judged = store.finished({"run": config.run}, data.split)["run"]
        if config.run.data.judged:  # some of the images
            dataset = store.judged_dataset(config.run, data.split)
        return dataset, judged.detections
    store.finish([config.run])
    trained = runs.open_trained(store.run_folder(config.run))
    return dataset, runs.on_file(trained, dataset.path, dataset.image_root).detect()


def of_images(detections: Detections, dataset: BoxDataset) -> Detections:
    """The detections on the images of a set."""
    return detections.select(np.isin(detections.image_id, dataset.image_ids))


def protocols_of(dataset: BoxDataset) -> tuple[Protocol, ...]:
    """LVIS asks for federated annotation, COCO for nothing."""
    return ("lvis", "coco") if dataset.is_federated else ("coco",)


def evaluate(
    dataset: BoxDataset, detections: Detections, protocol: Protocol, backend: Backend = "auto"
) -> EvaluationResult:
    """Average precision on the images of a set."""
    images = dataset.image_ids.tolist()
    return evaluation.evaluate(
        protocol, dataset.path, detections, backend=backend, image_ids=images
    )


def setting(dataset: BoxDataset, result: EvaluationResult) -> str:
    """What belongs to every AP: protocol, set, number of images and cap."""
    per = "image" if result.protocol == "lvis" else "image and class"
    return (
        f"{result.protocol.upper()} protocol, {dataset.name}, {result.num_images:,} images, "
        f"at most {result.max_dets} detections per {per}"
    )


def class_frame(dataset: BoxDataset, result: EvaluationResult) -> pd.DataFrame:
    """Columns category, group, instances and ap (in percent), for classes with objects."""
    columns = {
        "category": spoken_names(dataset.categories),
        "group": dataset.frequency_groups(),
        "instances": dataset.instance_counts(),
        "ap": _percent(dataset, result),
    }
    return pd.DataFrame(columns).dropna(subset="ap").reset_index(drop=True)


def _percent(dataset: BoxDataset, result: EvaluationResult) -> np.ndarray:
    """AP of each class in percent [C]; NaN for one without objects."""
    return 100 * np.array([result.per_category.get(c.id, np.nan) for c in dataset.categories])


def cap_curve(
    dataset: BoxDataset, detections: Detections, protocol: Protocol, caps: Sequence[int]
) -> pd.DataFrame:
    """AP in percent when only so many detections of an image are kept: columns cap, group, ap."""
    results = {cap: evaluate(dataset, detections.best_per_image(cap), protocol) for cap in caps}
    ap = {cap: _percent(dataset, result) for cap, result in results.items()}
    return verdicts.group_means(dataset, ap, "cap", "ap")


def judged_image(judgement: verdicts.Judgement, image: int, number: int, title: str = "") -> Panel:
    """One image with its `number` strongest detections; those at one place share a box.

    Objects are thin black lines; correct detections are marked "+", wrong ones "x", and those that
    are not counted "?".
    """
    rows = np.flatnonzero(judgement.image == image)[:number]
    objects = judgement.dataset.boxes_of(image)[0]
    return _example(judgement, image, rows, objects, [""] * len(objects), title)


def error_example(
    judgement: verdicts.Judgement,
    verdict: str,
    place: int = 0,  # 0 for the strongest detection with this verdict, 1 for the next one, ...
    group: str = "all",  # frequency group of the class that it claims
    *,
    whole: bool = False,  # the whole picture, not what is around the detection
) -> Panel | None:
    """A detection with a verdict, and the objects around it; None if there is none."""
    rows, dataset = judgement.strongest(verdict, place + 1, group)[place:], judgement.dataset
    if not len(rows):
        return None
    image, truth = int(judgement.image[rows[0]]), judgement.truth[rows[0]]
    objects, labels = dataset.boxes_of(image)
    names = np.array([dataset.categories[label].name for label in labels])
    if whole:
        return _example(judgement, image, rows, objects, names, verdict)
    boxes = judgement.boxes_xyxy[rows]
    if truth >= 0:
        boxes = np.vstack([boxes, dataset.boxes_xyxy[truth]])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    height, width = dataset.image_sizes[image]
    middle, reach = (low + high) / 2, 1.1 * max((high - low).max(), 16)  # half of a square
    left, top = np.clip(middle - reach, 0, (width - 2, height - 2)).astype(int)
    right, bottom = np.clip(middle + reach, (left + 2, top + 2), (width, height)).astype(int)
    middle = (objects[:, :2] + objects[:, 2:]) / 2
    inside = ((middle > (left, top)) & (middle < (right, bottom))).all(axis=1)
    example = _example(judgement, image, rows, objects[inside], names[inside], verdict)
    part = np.asarray(example.image)[top:bottom, left:right]
    return replace(example, image=part, origin=(int(left), int(top)))


def telling_class(judgements: Sequence[verdicts.Judgement]) -> int:
    """The class whose AP differs most between two judgements of the same detections.

    With one judgement, the best class is taken; classes of few objects make no curve.
    """
    counts = judgements[0].dataset.instance_counts()
    values = [np.nan_to_num(verdicts.class_ap(judgement)) for judgement in judgements]
    gaps = np.abs(values[0] - values[1]) if len(values) > 1 else values[0]
    return int(np.where(counts >= min(_OBJECTS_OF_A_CURVE, counts.max()), gaps, -1.0).argmax())


def _example(
    judgement: verdicts.Judgement,
    image: int,
    rows: np.ndarray,  # of the detections that are shown
    objects: np.ndarray,  # annotated boxes that are shown, xyxy [n, 4]
    names: Sequence[str],  # of these
    title: str,
) -> Panel:
    dataset, boxes = judgement.dataset, judgement.boxes_xyxy[rows]
    spoken = spoken_names(dataset.categories)
    same_place = verdicts.box_iou(boxes, boxes) >= _SAME_PLACE
    looks = [_LOOKS.get(verdict, ("wrong", "x")) for verdict in judgement.verdict[rows]]
    found = zip(looks, judgement.label[rows], judgement.score[rows], strict=True)
    claims = [f"{mark} {spoken[label]} {score:.2f}" for (_, mark), label, score in found]
    return Panel(
        image=dataset.image(image),
        boxes_xyxy=np.concatenate([objects, boxes[same_place.argmax(axis=1)]]),
        names=[*names, *claims],
        kinds=["annotated"] * len(objects) + [kind for kind, _ in looks],
        title=title,
    )
