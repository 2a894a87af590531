"""A run from its configuration to weights on disk, and from there to numbers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from richsem.config import convert as to_config
from richsem.config import read_kept, to_dict
from richsem.data import reading
from richsem.data.box_sets import BoxDataset, read_annotations
from richsem.data.catalog import dataset_spec
from richsem.data.categories import Category, read_categories
from richsem.data.pictures import open_rgb, to_rgb
from richsem.data.reading import DataError
from richsem.data.samples import UNKNOWN, DetectionTrainingSet, TrainingSet, match_classes
from richsem.data.transforms import TransformConfig
from richsem.evaluation import Detections, EvaluationResult, GroundTruth, Protocol
from richsem.models import weight_files
from richsem.models.clip import RN50, ClipConfig, FrozenClip
from richsem.models.published.centernet2_weights import is_two_stage, load_two_stage
from richsem.models.published.dino_weights import held_clip, load_official, official_text
from richsem.paths import check_own, write_own
from richsem.provenance import code_version
from richsem.training import build
from richsem.training import checkpoint as checkpoints
from richsem.training.checkpoint import DESCRIPTION, WEIGHTS, load_detector, save_detector
from richsem.training.loop import Row, train
from richsem.training.parallel import this_process
from richsem.training.predict import NOT_IN_FILE, PictureDetections, detect_image, predict
from richsem.training.run_config import Detector, RunConfig, TrainingDataConfig, make_detector

_SMALL = Path(__file__).parents[1] / "models" / "minidino.safetensors"
# Width of a published detector's text features -> the CLIP they are from: RichSem's, Detic's.
PUBLISHED = {1024: RN50, 512: ClipConfig(model="ViT-B-32-quickgelu", weights="openai")}


def run(
    config: RunConfig, folder: Path | str, *, on_progress: Callable[[Row], None] | None = None
) -> tuple[Detector, list[Row]]:
    """Trains what a configuration describes, or goes on with it; the detector and the history.

    The folder holds state, history and, in the end, the detector (`load_detector`).
    """
    process, code = this_process(), code_version()  # files may change while it trains
    setup = build.build(config)
    history = train(
        setup.detector,
        setup.criterion,
        setup.main,
        setup.extra,
        config.train,
        config.optim,
        folder,
        teacher=setup.teacher,
        pad_multiple=config.detector.pad_multiple,
        identity=setup.identity,
        judge=_judge(setup) if config.train.judge_every else None,
        on_progress=on_progress,
    )
    if process.is_main_process:
        groups = setup.dataset.frequency_groups().tolist()
        classes = [
            {"id": category.id, "name": category.name, "frequency": group}
            for category, group in zip(setup.dataset.categories, groups, strict=True)
        ]
        meta = {
            "classes": classes,
            "recipe": to_dict(setup.config),
            "data": setup.fingerprints,
            "not_taken": setup.not_taken,
            "code": code,
        }
        checkpoints.save_start(Path(folder) / checkpoints.START, setup.detector)
        save_detector(folder, setup.detector, meta)  # last: with it, the run counts as finished
    process.wait_for_everyone()
    return setup.detector, history


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A detector from disk, with what detection and evaluation have to know about it."""

    detector: Detector  # in evaluation mode
    classes: tuple[Category, ...]  # one per class index
    recipe: RunConfig | None  # the run it comes from; None for a converted checkpoint
    data: Mapping[str, str] = field(default_factory=dict)  # fingerprints of what it learnt from
    converted: str = ""  # file name of the published checkpoint that it was

    @property
    def transform(self) -> TransformConfig:
        """How its images are resized."""
        return (self.recipe.data.transform if self.recipe else TransformConfig()).evaluation()

    def detect(
        self,
        # A file, an image, or an array [height, width] or [height, width, RGB] of uint8.
        picture: Image.Image | np.ndarray | Path | str,
        threshold: float = 0.3,  # lowest score, 0 to 1
    ) -> PictureDetections:
        """Objects of one picture, best first."""
        if not 0 <= threshold <= 1:  # also what is no number
            raise ValueError(f"threshold is a score, 0 to 1, got {threshold}")
        is_file = isinstance(picture, (Path, str))
        image = open_rgb(Path(picture), "the picture") if is_file else to_rgb(picture)
        scores, labels, boxes = detect_image(self.detector, image, self.transform, threshold)
        found = [self.classes[label] for label in labels.tolist()]
        return PictureDetections(
            names=tuple(category.name for category in found),
            frequencies=tuple(category.frequency for category in found),
            labels=labels.numpy(),
            scores=scores.numpy(),
            boxes_xyxy=boxes.numpy(),
        )


def open_trained(folder: Path | str, *, device: torch.device | str | None = None) -> Trained:
    """Opens a folder of `run`, by default on the accelerator if there is one."""
    device = this_process().device if device is None else device
    detector, meta = load_detector(folder, device=device)
    recipe = None
    if "recipe" in meta:
        recipe = read_kept(RunConfig, meta["recipe"], Path(folder) / DESCRIPTION)
    where = f"{Path(folder) / DESCRIPTION}: classes"
    classes = reading.convert(meta["classes"], tuple[Category, ...], where, entry="a class")
    reading.unique_ids(classes, where)
    known = {name: meta[name] for name in ("data", "converted") if name in meta}
    return Trained(detector=detector, classes=classes, recipe=recipe, **known)


def with_names(
    trained: Trained, names: Sequence[str], teacher: ClipConfig | None = None
) -> Trained:
    """The same detector for other classes, described by their names (open vocabulary).

    `teacher` is the CLIP whose text features it learnt to compare with; by default that of its
    recipe, or the published one of a converted checkpoint. A `ValueError` says why a detector
    knows no other classes than its own.
    """
    config, recipe = trained.detector.config, trained.recipe
    if teacher is None:
        teacher = recipe.data.teacher if recipe else PUBLISHED.get(config.text_dim, RN50)
    backbone = replace(config.backbone, weights="")
    config = replace(config, num_classes=len(names), semantic=False, backbone=backbone)
    state = trained.detector.inference_state()
    state.pop("text", None)
    detector = make_detector(config).to(next(trained.detector.parameters()).device)
    own = {name: detector.state_dict()[name] for name in state}
    if config.classifier != "text" or checkpoints.mismatches(own, state):
        raise ValueError(
            "this detector has an output for each of its own classes, so it knows no other names; "
            "those with a text classifier do (--set detector.classifier=text in training; the "
            "published checkpoints of RichSem and Detic)"
        )
    detector.load_state_dict(state, strict=False)
    text = FrozenClip(teacher).text_features(names)
    detector.set_vocabulary(text.to(detector.text.device))
    classes = tuple(Category(id=i, name=name) for i, name in enumerate(names, start=1))
    return Trained(detector=detector.eval(), classes=classes, recipe=recipe)


def open_small(names: Sequence[str], *, device: torch.device | str | None = None) -> Trained:
    """The small detector of the package, which finds drawn objects by any names.

    It has learnt 70 classes of drawn pictures (see `models/minidino.json`), and compares what it
    sees with the embedded CLIP's text features.
    """
    record = json.loads(_SMALL.with_suffix(".json").read_text(encoding="utf-8"))
    recipe = to_config(record["provenance"]["recipe"], RunConfig, _SMALL.name, dropped=[])
    detector = make_detector(replace(recipe.detector, num_classes=1))
    checkpoints.initialise(detector, _SMALL)
    detector.to(this_process().device if device is None else device)
    return with_names(Trained(detector=detector, classes=(), recipe=recipe), names)


def convert(checkpoint: Path | str, annotations: Path | str, folder: Path | str) -> Detector:
    """Translates a published checkpoint into a folder that `open_trained` opens.

    `annotations` is a file of the data it was trained on. DINO's and RichSem's class indices are
    category ids, CenterNet2's and Detic's are places in the order of ids.
    """
    names = {category.id: category.name for category in read_categories(annotations)}
    state = weight_files.read(Path(checkpoint))
    compares = [t for name, t in state.items() if name.endswith("dino_visual_proj.weight")]
    with weight_files.explained(checkpoint, "holds no published detector that is known"):
        two_stages = is_two_stage(state)
        text = torch.zeros(max(names) + 1, len(compares[0])) if compares else None
        detector = load_two_stage(state) if two_stages else load_official(state, text)
    number = detector.config.num_classes
    ids = sorted(names) if two_stages else range(number)
    if len(ids) != number or max(names) not in ids:
        raise ValueError(
            f"{annotations}: {len(names)} categories for {number} classes, with ids up to "
            f"{max(names)}; name the annotations that the detector was trained on"
        )
    for name in (WEIGHTS, DESCRIPTION):
        check_own(Path(folder) / name)
    if compares:  # minutes on a CPU: only when all else fits
        detector.set_vocabulary(official_text(held_clip(state), names))
    # Ids that no category has are outputs, too, of a class that is in no file.
    rows = [{"id": i, "name": names.get(i, f"(unused {i})")} for i in ids]
    meta = {"classes": rows, "converted": Path(checkpoint).name}
    save_detector(folder, detector, meta, write_own)
    return detector


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """A detector before the images of a set: what is wrong with either was said before."""

    trained: Trained
    dataset: BoxDataset
    samples: TrainingSet  # its images
    category_ids: Sequence[int]  # of each class of the detector in the file, or `NOT_IN_FILE`
    truth: GroundTruth | None  # None where the file has no annotations

    def detect(self, batch_size: int = 16, images: range | None = None) -> Detections:
        """Up to 300 detections of each image, or of some, with the ids of the file."""
        what = self.trained.detector, self.samples, self.category_ids
        return predict(*what, batch_size=batch_size, images=images)

    def run(self, batch_size: int = 16) -> tuple[EvaluationResult, Detections]:
        """Detects and judges."""
        if self.truth is None:
            raise DataError(f"{self.dataset.path}: no annotations to evaluate against")
        found = self.detect(batch_size)
        return self.truth.judge(found), found


def on_split(trained: Trained, split: str = "val", protocol: Protocol | None = None) -> Evaluation:
    """A split of the recipe's detection set, by default with the set's protocol."""
    if trained.recipe is None:
        raise ValueError(
            "this detector has no recipe: name the annotations and their images (--annotations, "
            "--images)"
        )
    data = trained.recipe.data
    dataset = build.open_split(data, split)
    if split == "val" and trained.data.get(build.HELD_OUT, dataset.content) != dataset.content:
        raise DataError(
            f"{dataset.path} or its pictures are not what they were in training, so pictures that "
            "were learnt from may be held out now. Judge by a file of others (--annotations), or "
            "train anew."
        )
    samples = partial(build.evaluation_samples, dataset, data, trained.detector)
    return _evaluation(trained, dataset, protocol or _protocol(dataset, data), samples)


def on_file(
    trained: Trained,
    annotations: Path | str,
    images: Path | str,
    protocol: Protocol | None = None,
    # Positions of the images that are judged, of all that are on disk by default.
    choose: Callable[[BoxDataset], np.ndarray] | None = None,
) -> Evaluation:
    """The images of any LVIS or COCO file, also of one without annotations."""
    file = read_annotations(annotations, bare=True)
    dataset = BoxDataset.of(file, Path(images)).subset_with_images()
    dataset = dataset.select(choose(dataset)) if choose else dataset
    samples = DetectionTrainingSet(dataset, trained.transform)
    kind = protocol or _protocol(dataset)
    return _evaluation(trained, dataset, kind if len(file.ids) else None, lambda: samples)


def ids_of_classes(classes: Sequence[Category], categories: Sequence[Category]) -> list[int]:
    """For each class its id in a file with these categories, matched by name; -1 where absent."""
    places = match_classes(classes, categories)
    if all(place == UNKNOWN for place in places):
        raise ValueError(
            f"none of the {len(classes)} classes ({classes[0].name}, ...) is among the "
            f"{len(categories)} categories of the file ({categories[0].name}, ...)"
        )
    return [NOT_IN_FILE if place == UNKNOWN else categories[place].id for place in places]


def _protocol(dataset: BoxDataset, data: TrainingDataConfig | None = None) -> Protocol:
    """How a set is judged: as the catalogue says, and one's own file by its kind."""
    if data and not data.own:
        return dataset_spec(data.key).protocol
    return "lvis" if dataset.is_federated else "coco"


def _judge(setup: build.Setup) -> Callable[[], dict[str, float]]:
    """For learning curves: the metrics of the detector in training on the recipe's judge split."""
    classes, config = setup.dataset.categories, setup.config
    trained = Trained(detector=setup.detector, classes=classes, recipe=config)
    evaluation = on_split(trained, config.data.judge_split)
    return lambda: dict(evaluation.run()[0].metrics)


def _evaluation(
    trained: Trained,
    dataset: BoxDataset,
    protocol: Protocol | None,  # None where there is nothing to judge by
    samples: Callable[[], TrainingSet],  # they may be features, which take a while
) -> Evaluation:
    ids = ids_of_classes(trained.classes, dataset.categories)
    masks, truth = trained.detector.config.masks is not None, None
    if protocol:
        truth = GroundTruth.read(dataset.path, protocol, dataset.image_ids, masks=masks)
    return Evaluation(
        trained=trained, dataset=dataset, samples=samples(), category_ids=ids, truth=truth
    )
