"""Any recipe on data of one's own: networks, losses and rates stay, the length follows the data.

The profile keeps its meaning: `smoke` shows that everything works, `demo` teaches the small
detector on frozen, cached features (minutes on a laptop), `paper` trains all of R50 at up to 800
pixels (a GPU). At demo, pictures become squares of 384 pixels, not 256: photographs have smaller
objects than drawings (AP 4.0 against 1.9 on 35 held-out COCO photos, one seed; two differ by 2.2).
"""

from dataclasses import replace
from typing import TypeVar

from richsem.config import ConfigError
from richsem.data.categories import COMMON_MAX_IMAGES
from richsem.data.own import OwnConfig, read_folder
from richsem.paths import user_path
from richsem.structures import Supervision
from richsem.training.build import open_split
from richsem.training.run_config import ExtraConfig, RunConfig, TrainingDataConfig

Data = TypeVar("Data", TrainingDataConfig, ExtraConfig)
EPOCHS, FEWEST_STEPS = 12, 600  # on detection images
VIEWS = 1000  # images of a small set are cached in at most so many augmented views, all together


def on_own_data(run: RunConfig, own: OwnConfig, folder: str = "", labels: str = "") -> RunConfig:
    """The run on one's own detection set, with a folder of extra pictures if it takes any.

    Without a folder a RichSem run keeps its soft labels. Detection steps are 12 epochs, but at
    least 600 and at most the recipe's. Repeat factors fade out where LVIS's common classes end,
    at 100 images (METHOD 2.7), in small sets where they do at the demo profile. A set that is not
    federated has every class in its loss (METHOD 2.8). A `ConfigError` says what does not fit.
    """
    sets = {"own": own, "extra": _extra(run, folder, labels), "judge_split": "val"}
    data = replace(run.data, benchmark=None, root="", key="own", **sets)
    dataset = open_split(data, "train")
    threshold = data.repeat_threshold and min(0.02, COMMON_MAX_IMAGES / len(dataset))
    data = _as_photos(replace(data, repeat_threshold=threshold), len(dataset))
    loss = run.loss if dataset.is_federated else replace(run.loss, federated_classes=0)
    train, optim = run.train, run.optim
    own_steps = train.steps // (2 if run.data.extra else 1)  # on detection images
    steps = min(own_steps, max(FEWEST_STEPS, EPOCHS * len(dataset) // train.batch_size))
    times = (2 if data.extra else 1) * steps / train.steps
    train = replace(
        train,
        steps=round(times * train.steps),
        judge_every=round(times * train.judge_every),
        checkpoint_every=min(train.checkpoint_every, max(1, steps // 5)),
    )
    optim = replace(optim, warmup=round(optim.warmup * steps / own_steps))
    return replace(run, data=data, loss=loss, train=train, optim=optim)


def _extra(run: RunConfig, folder: str, labels: str) -> ExtraConfig | None:
    """The recipe's extra set with the pictures of a folder, labelled or not, or none."""
    extra = run.data.extra
    if folder and not extra:
        raise ConfigError(f"{run.name} learns from no extra pictures: leave out --extra {folder}")
    names = read_folder(user_path(folder)).file_names if folder else ()
    labelled = bool(labels) or any("/" in name for name in names)
    if extra and extra.supervision is Supervision.WHOLE_IMAGES and not labelled:
        raise ConfigError(
            f"{run.name} learns from labels of whole pictures: name a folder by --extra with "
            "sub-folders that are called like classes, or a csv file by --extra-labels"
        )
    if not folder:
        return None
    kind = extra.supervision if labelled else Supervision.UNLABELLED
    own = {"key": "own", "draw": 0, "folder": folder, "labels": labels}
    return _as_photos(replace(extra, **own, supervision=kind), len(names))


def _as_photos(data: Data, images: int) -> Data:
    """More views of larger pictures, where a recipe caches all views of all images."""
    if data.features is None or data.features.images:
        return data
    names = ("short_sides", "crop_short_sides", "crop_range")
    sides = {name: tuple(map(_larger, getattr(data.transform, name))) for name in names}
    known = {
        "features": replace(data.features, views=max(data.features.views, VIEWS // images)),
        "transform": replace(data.transform, **sides),
    }
    if isinstance(data, TrainingDataConfig):
        known["teacher"] = replace(data.teacher, short_side=_larger(data.teacher.short_side))
    elif data.mosaic:
        known["mosaic"] = replace(data.mosaic, side=_larger(data.mosaic.side))
    return replace(data, **known)


def _larger(side: int) -> int:
    return 3 * side // 2
