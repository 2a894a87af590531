"""From a run's configuration to the objects it speaks of."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from richsem import kept
from richsem.config import ConfigError, config_hash, from_params, to_dict
from richsem.data import catalog
from richsem.data import samples as training_sets
from richsem.data.altered import shift_annotations
from richsem.data.box_sets import BoxDataset
from richsem.data.categories import Category, spoken_names
from richsem.data.corrupt import drop_annotations
from richsem.data.drawn import LONG_TAILED, MiniLvisConfig, drawn_folder, extra_images
from richsem.data.features import FeatureConfig
from richsem.data.image_sets import ImageSet
from richsem.data.own import open_own, read_folder, without
from richsem.data.reading import DataError
from richsem.data.samples import DetectionTrainingSet, TrainingSet
from richsem.data.sampling import RepeatedEpoch, repeat_factors, stratified
from richsem.models import weight_files
from richsem.models.clip import FrozenClip, say_what_it_knows
from richsem.models.clip_weights import text_length
from richsem.models.clip_words import class_names, lines_of, prompts_of
from richsem.paths import ROOT, in_keys, user_path
from richsem.training import checkpoint, run_config
from richsem.training.caching import with_cached_features
from richsem.training.controls import check_controls, extra_controls, teacher_of, with_controls
from richsem.training.loading import Source
from richsem.training.parallel import this_process
from richsem.training.run_config import RUN, Detector, ExtraConfig, RunConfig, TrainingDataConfig
from richsem.training.teacher import Teacher

NO_ROOT = (
    "this recipe needs real data: set data.root (in notebooks DATA_ROOT) to the folder of the data "
    "sets (layout: data/README.md)"
)
HELD_OUT = "held out"  # the part of a set of one's own that is judged by, among fingerprints


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that a run needs."""

    config: RunConfig  # with the number of classes filled in
    dataset: BoxDataset  # the detection set's training annotations, as far as they are used
    detector: Detector  # with its initial weights
    criterion: run_config.Criterion
    main: Source  # detection data
    extra: Source | None
    teacher: Teacher | None  # if soft labels are made during training
    fingerprints: dict[str, str]  # of the data, by role
    # What `config.init` holds but the detector does not take, one line per tensor.
    not_taken: list[str]

    @property
    def identity(self) -> str:
        """Everything but the training loop's own settings that the result depends on."""
        config = self.config
        start = in_keys(Path(config.init))  # the cache may have been moved since
        parts = [config_hash(config.detector), config_hash(config.loss), start, *config.fresh]
        parts += map(str, sorted(self.fingerprints.items()))
        return "\n".join([*parts, *files_state(config)])


def build(config: RunConfig) -> Setup:
    """Opens the data and makes detector, criterion and teacher.

    What is cached (text features, feature maps) is made first if need be; the embedded benchmark
    has to be drawn before (`richsem.minilvis.render.prepare`).
    """
    check(config)
    data = config.data
    annotated = training_dataset(replace(data, drop=0.0))  # features are cached of all of them
    dataset = drop_annotations(annotated, data.drop, data.drop_seed)
    config = complete(config, dataset)
    clip, teacher, uses_text = None, None, config.detector.uses_text
    if uses_text or data.features:
        names = class_names(data.teacher.names, spoken_names(dataset.categories))
        if data.root or data.own:
            say_what_it_knows(data.teacher, dataset.name)
        with this_process().main_process_first():  # the others find what it fetched
            clip = FrozenClip(teacher_of(data))
        clip.check(data.teacher_mode)
        # tau and D are CLIP's: soft labels of teacher and student must mean the same.
        detector = replace(config.detector, scale=clip.scale, text_dim=clip.dim)
        config = replace(config, detector=detector)
    torch.manual_seed(config.train.seed)  # the detector is the first to draw from it
    with this_process().main_process_first():
        detector = run_config.make_detector(config.detector)
    words, not_taken = started(detector, config)
    if words and this_process().is_main_process:
        print(f"start: {words}", file=sys.stderr)
    detector.to(this_process().device)
    if clip:  # minutes for many classes: after all that may be refused
        text = clip.to(this_process().device).text_features(names)
        # An image of the detector's largest size meets CLIP at the size CLIP is used with.
        zoom = clip.config.short_side / max(data.transform.short_sides)
        boxes, mode = config.loss.teacher_boxes, data.teacher_mode
        teacher = Teacher(clip, text, boxes, mode=mode, zoom=zoom)
    if uses_text:
        detector.set_vocabulary(text)
    masks = config.detector.masks is not None
    detected = DetectionTrainingSet(annotated, data.transform, masks=masks)
    plain = {"train": (detected, data.features)}
    if data.extra:
        plain["extra"] = extra_set(data.extra, data, dataset.categories), data.extra.features
    sets = {}
    for role, (samples, views) in plain.items():
        if views and data.own:  # more views than a training looks at would never be used
            looks = config.train.steps * max(config.train.batch_size, config.train.extra_batch_size)
            views = replace(views, views=min(views.views, max(1, looks // len(samples))))
        asked = teacher if views and views.soft_labels else None
        sets[role] = with_cached_features(samples, detector, views, asked) if views else samples
    # The order matters: first what is cached for everybody, then what this run alone changes.
    sets = with_controls(sets, data, dataset.frequency_groups(), detector, teacher)
    if data.drop:
        sets["train"] = training_sets.ReducedTrainingSet(sets["train"], annotated, dataset)
    # Labels come from the cache where there is one; a linear detector learns none.
    learns_soft = config.detector.semantic and config.loss.soft_weight > 0
    counts = dataset.image_counts()
    shown, own_counts = extra_controls(sets.get("extra"), data.extra, counts)
    factors = repeat_factors(dataset, data.repeat_threshold)[: len(sets["train"])]
    fingerprints = {role: samples.fingerprint for role, samples in sets.items()}
    if data.own and not data.own.val_annotations:
        fingerprints[HELD_OUT] = open_split(data, "val").content
    return Setup(
        config=config,
        dataset=dataset,
        detector=detector,
        criterion=run_config.make_criterion(config.loss, len(counts), counts, own_counts),
        main=Source(dataset=sets["train"], epoch=RepeatedEpoch(factors)),
        extra=Source(dataset=sets["extra"], epoch=shown) if data.extra else None,
        teacher=teacher if learns_soft else None,
        fingerprints=fingerprints,
        not_taken=not_taken,
    )


def started(detector: Detector, config: RunConfig) -> tuple[str, list[str]]:
    """Gives a detector the weights that its run starts from; see `checkpoint.initialise`."""
    if not config.init:
        return "", []
    # Vocabulary and tau are those of the run, also where the names of other classes would fit.
    own = ("text", "log_scale") if config.detector.uses_text else ()
    fresh, bare = (*config.fresh, *own), not config.detector.backbone.weights
    return checkpoint.initialise(detector, user_path(config.init), fresh=fresh, bare=bare)


def files_state(config: RunConfig) -> list[str]:
    """Hashes of the files of one's own, such as weights, that a run starts from or asks."""
    words = [config.init, *config.data.teacher.files, config.detector.backbone.weights]
    files = [user_path(word) for word in words if word]
    files = [file / checkpoint.WEIGHTS if file.is_dir() else file for file in files]
    own = (one for one in files if one.is_file() and not one.is_relative_to(ROOT / "richsem"))
    return [kept.digest(file) for file in own]  # all else is a word like "hub"


def in_shapes(config: RunConfig, num_classes: int) -> Detector:
    """The run's detector without weights, for as many classes and for its teacher's texts."""
    detector = replace(config.detector, num_classes=num_classes)
    if length := text_length(config.data.teacher.model):
        detector = replace(detector, text_dim=length)
    return run_config.on_meta(detector)


def check(config: RunConfig) -> None:
    """Refuses a configuration that no data could make sense of, or weights of another detector."""
    from_params(RunConfig, to_dict(config))  # Python takes any value for a field
    run_config.check_pair(config.detector, config.loss)
    if not config.init.startswith(RUN):
        # Classes are counted in the data; few tensors depend on their number.
        started(in_shapes(config, config.detector.num_classes or 1), config)
    for weights in (config.detector.backbone.weights, config.data.teacher.weights):
        file = Path(weights)
        if user_path(file).is_file() or file.suffix or file.name != weights:  # no word like "hub"
            weight_files.kind(user_path(weights))
    if config.data.teacher.prompts:
        prompts_of(config.data.teacher.prompts)
    if config.data.teacher.names:
        lines_of(config.data.teacher.names, "names")
    if not re.fullmatch(r"(?!\.)[^/\\\x00-\x1f]{1,100}", config.name):
        raise ConfigError(f"name is {config.name!r}, expected what a folder can be called")
    extra = config.data.extra
    caches = config.data.features or (extra and extra.features)
    if caches and config.detector.backbone.trainable:
        raise ConfigError(
            "features can be cached only of a backbone that does not change: set "
            "detector.backbone.trainable=false, or features to null"
        )
    if caches and config.loss.teacher_boxes != "gt":
        raise ConfigError(
            f"the teacher cannot look at the student's boxes (teacher_boxes "
            f"{config.loss.teacher_boxes!r}) in cached features; use 'gt' or no cache"
        )
    check_controls(config.data, config.detector)


def complete(config: RunConfig, dataset: BoxDataset) -> RunConfig:
    """The configuration with the data's number of classes, which it must not contradict."""
    stated, actual = config.detector.num_classes, len(dataset.categories)
    if stated not in (0, actual):
        raise ConfigError(
            f"detector.num_classes is {stated} but {dataset.name} has {actual}; 0 takes them all"
        )
    return replace(config, detector=replace(config.detector, num_classes=actual))


def data_root(data: TrainingDataConfig) -> Path:
    """Folder of all sets: the real ones, or the embedded benchmark, which has to be drawn."""
    if data.root:
        return user_path(data.root)
    if data.benchmark is None:
        raise ConfigError(NO_ROOT)
    return _drawn(replace(data.benchmark, draw=0))


def _drawn(benchmark: MiniLvisConfig) -> Path:
    folder = drawn_folder(benchmark)
    if not catalog.is_rendered(folder):
        raise DataError(
            f"the embedded benchmark is not drawn in {folder}: `python -m richsem data render` "
            "draws the common sizes, `richsem.minilvis.render.prepare(config.data)` any"
        )
    return folder


def open_split(data: TrainingDataConfig, split: str) -> BoxDataset:
    """A split of the detection set as far as it is on disk, with all its annotations."""
    if data.own:
        return open_own(data.own, split).subset_with_images()
    root = data_root(data)
    if split == "train" and not data.root and data.key in LONG_TAILED:
        root = _drawn(data.benchmark)
    dataset = catalog.open_boxes(data.key, split, root=root).subset_with_images()
    few = data.judged if split != "train" else 0
    return dataset.select(stratified(dataset, few)) if few else dataset


def open_extra(
    extra: ExtraConfig, data: TrainingDataConfig, categories: Sequence[Category]
) -> BoxDataset | ImageSet:
    """The extra set as far as it is on disk; a folder without the pictures that are judged by."""
    if extra.staged:
        return read_folder(drawn_folder(extra.staged), None, categories)
    if not extra.folder:
        root = data_root(data)
        if extra.key in catalog.BOX_KEYS:
            return catalog.open_boxes(extra.key, "train", root=root).subset_with_images()
        if extra.draw and not data.root:
            root = _drawn(extra_images(data.benchmark, extra.draw))
        return catalog.open_images(extra.key, root=root, categories=categories).subset_with_images()
    table = user_path(extra.labels) if extra.labels else None
    named = categories if extra.supervision in training_sets.LABELLED else ()
    images = read_folder(user_path(extra.folder), table, named)
    return without(images, open_split(data, data.judge_split), open_split(data, "train"))


def training_dataset(data: TrainingDataConfig) -> BoxDataset:
    """The training split, boxes as they are learnt from, less the annotations that are dropped."""
    shifted = shift_annotations(open_split(data, "train"), data.box_noise, data.drop_seed)
    return drop_annotations(shifted, data.drop, data.drop_seed)


def extra_set(
    extra: ExtraConfig, data: TrainingDataConfig, categories: Sequence[Category]
) -> TrainingSet:
    """Augmented samples of the extra set, labels as class indices of the detector."""
    images = open_extra(extra, data, categories)
    how = {"classes": categories, "mosaic": extra.mosaic}
    return training_sets.training_set(images, extra.supervision, extra.transform, **how)


def evaluation_samples(
    dataset: BoxDataset, data: TrainingDataConfig, detector: Detector | None
) -> TrainingSet:
    """Images without augmentation.

    They are features where those of the detector's frozen backbone are cached for training, too.
    """
    samples = DetectionTrainingSet(dataset, data.transform.evaluation())
    if detector is not None and data.features is not None:
        return with_cached_features(samples, detector, FeatureConfig(views=1))
    return samples
