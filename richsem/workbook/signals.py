"""What the losses tell each class: the arithmetic of notebook 05.

Soft labels are compared with hard ones, steps in which a class is taught yes with those in which
it is taught no, and the query that an image's label reaches with the object it means. No network
runs here.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import dataset_spec
from richsem.data.categories import read_categories
from richsem.data.reading import DataError
from richsem.losses.classification import FederatedClasses
from richsem.losses.semantic import soft_label_loss
from richsem.models.clip import MINI, ClipConfig
from richsem.paths import user_path
from richsem.workbook import zero_shot
from richsem.workbook.notebook_data import REAL_COUNTS, DataConfig


@dataclass(frozen=True, kw_only=True)
class SignalsConfig:
    """What soft labels and losses tell each class."""

    data: DataConfig  # the detection set, of which the training split is looked at
    clip: ClipConfig = MINI  # the teacher
    seed: int = 0  # of all examples and draws
    images_per_class: int = 4  # images of each class that the teacher reads
    batch_size: int = 2  # images of a step on one device; the paper's recipe has 2 on each of 8
    federated_classes: int = 50  # classes in a step of the federated loss
    steps: int = 2000  # drawn to check the calculated shares


def configure(
    data: DataConfig, *, seed: int = 0, clip_model: str = "", clip_weights: str = ""
) -> SignalsConfig:
    """The configuration of notebook 05 for a profile; the teacher is that of Table 2."""
    table2 = zero_shot.configure(data, clip_model=clip_model, clip_weights=clip_weights)
    config = SignalsConfig(data=data, clip=table2.clip, seed=seed)
    if data.profile == "smoke":
        config = replace(config, images_per_class=2, federated_classes=6, steps=500)
    return config


def few_per_class(dataset: BoxDataset, number: int) -> BoxDataset:
    """The images that hold `number` images of each class, evenly spaced over the file.

    A `DataError` says that there is one class alone, of which nothing here is true.
    """
    if len(dataset.categories) < 2:
        raise DataError(f"{dataset.path}: one class alone has no look-alike, name a file of two")
    chosen = set()
    for label in range(len(dataset.categories)):
        images = np.unique(dataset.box_image[dataset.labels == label])
        places = np.linspace(0, len(images) - 1, min(number, len(images)))
        chosen.update(images[places.round().astype(int)].tolist())
    return dataset.select(sorted(chosen))


def effective_classes(probabilities: Tensor) -> Tensor:
    """How many equally likely classes would be as uncertain: exp(entropy), [N, C] -> [N]."""
    return torch.exp(-torch.xlogy(probabilities, probabilities).sum(dim=-1))


def mean_soft_labels(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The average soft label of each class's objects.

    From soft labels [N, C] of objects and their annotated classes [N] to [C, C]: row c is what the
    teacher says about objects of class c; NaN without an object.
    """
    num_classes = probabilities.shape[1]
    sums = probabilities.new_zeros(num_classes, num_classes).index_add(0, labels, probabilities)
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]


def look_alikes(mean_labels: Tensor, classes: Tensor) -> Tensor:
    """Puts classes first that the teacher names right and confuses with one other class.

    Of some classes [K] those that have objects, named right first, then by the probability of the
    strongest other class in `mean_soft_labels` [C, C].
    """
    seen = classes[~mean_labels[classes, classes].isnan()]
    own = mean_labels[seen, seen]
    others = mean_labels[seen].scatter(1, seen[:, None], 0).amax(dim=1)
    order = torch.argsort(others + (own > others), descending=True, stable=True)
    return seen[order]


def soft_counts(mean_labels: Tensor, instance_counts: np.ndarray) -> pd.DataFrame:
    """How many objects speak for each class, if every object shares its vote as the teacher does.

    `mean_soft_labels` [C, C] stand for all objects of a class, of which there are so many [C]. Per
    class the columns hard (its objects), own (soft votes of these) and others (soft votes of
    objects of other classes).
    """
    votes = mean_labels.double().nan_to_num().numpy() * instance_counts[:, None]
    own = np.diagonal(votes)
    frame = {"hard": instance_counts, "own": own, "others": votes.sum(axis=0) - own}
    return pd.DataFrame(frame)


def step_response(
    classifier: nn.Module,  # a head of `models.heads`; it is not changed
    hidden: Tensor,  # the object vector, the same before and after the step [dim]
    text: Tensor,  # text features [C, D]
    scale: float,  # tau
    label: int,
) -> Tensor:
    """What a step that raises the logit of one class does to all, relative to that one's [C]."""
    classifier = copy.deepcopy(classifier)
    given = hidden, text, torch.tensor(scale)
    before = classifier(*given)
    parameters = list(classifier.parameters())
    slopes = torch.autograd.grad(before[label], parameters)
    length = torch.cat([slope.flatten() for slope in slopes]).norm()
    with torch.no_grad():
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter += 0.01 * slope / length
        change = classifier(*given) - before
    return (change / change[label]).detach()


def pull(target: Tensor, start: Tensor, *, steps: int, rate: float) -> Tensor:
    """A student's class probabilities while its logits descend on KL(target || student).

    From its first logits [C] towards a soft or one-hot label [C]: probabilities before the first
    and after each gradient step of size `rate` [steps + 1, C].
    """
    logits, seen = start.clone(), []
    for _ in range(steps + 1):
        logits.requires_grad_()
        seen.append(logits.detach().softmax(dim=-1))
        (slope,) = torch.autograd.grad(soft_label_loss(target[None], logits[None]), logits)
        logits = logits.detach() - rate * slope
    return torch.stack(seen)


def class_steps(
    image_counts: np.ndarray, num_images: int, *, batch_size: int, number: int
) -> pd.DataFrame:
    """In which share of training steps a class is taught yes, and no: by calculation.

    `image_counts` [C] of `num_images` training images show each class; a step draws `batch_size` of
    them alike, and `number` classes for the federated loss (0 for all). Per class the columns
    images, present (share of steps with an object of the class), absent (steps without; a loss over
    all classes teaches "no" in each of them) and drawn (steps without in which the federated loss
    teaches "no").
    """
    counts = torch.as_tensor(image_counts, dtype=torch.float64)
    present = 1 - (1 - counts / num_images).clamp(0, 1) ** batch_size
    drawn = (1 - present) * federated_odds(counts, number, present)
    columns = {"images": counts, "present": present, "absent": 1 - present, "drawn": drawn}
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def drawn_steps(federated: FederatedClasses, batches: Iterable[Tensor]) -> pd.DataFrame:
    """The same by experiment: columns present and drawn, counted over batches of labels."""
    rows = []
    for labels in batches:
        present = torch.zeros(len(federated.weights), dtype=torch.bool)
        present[labels] = True
        chosen = federated(labels, 1)
        drawn = ~present if chosen is None else chosen[0] & ~present
        rows.append(torch.stack([present, drawn]))
    shares = torch.stack(rows).double().mean(dim=0)
    return pd.DataFrame({"present": shares[0].numpy(), "drawn": shares[1].numpy()})


def label_batches(
    dataset: BoxDataset, batch_size: int, steps: int, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Labels of `steps` batches of random images."""
    for _ in range(steps):
        images = rng.integers(len(dataset), size=batch_size)
        yield torch.cat([torch.from_numpy(dataset.boxes_of(i)[1]).long() for i in images])


def imagined_batches(
    image_counts: np.ndarray, num_images: int, batch_size: int, steps: int, rng: np.random.Generator
) -> Iterator[Tensor]:
    """The same where only counts are known: each class appears independently of the others."""
    present = 1 - (1 - image_counts / num_images) ** batch_size
    for _ in range(steps):
        yield torch.from_numpy(np.flatnonzero(rng.random(len(present)) < present))


def federated_tables(config: SignalsConfig, dataset: BoxDataset) -> dict[str, pd.DataFrame]:
    """`class_steps` with category, group, and seen (counted share), for drawn and real counts."""
    rng = np.random.default_rng(config.seed)
    sizes = {"batch_size": config.batch_size, "steps": config.steps, "rng": rng}
    own = dataset.image_counts(), len(dataset), label_batches(dataset, **sizes)
    counted = {dataset.name: (dataset.categories, dataset.frequency_groups(), *own)}
    if config.data.categories:
        listed = read_categories(user_path(config.data.categories))
        counts = np.array([category.image_count for category in listed])
        images = dataset_spec("lvis").reference_images
        real = counts, images, imagined_batches(counts, images, **sizes)
        counted[REAL_COUNTS] = (listed, [category.frequency for category in listed], *real)
    tables, number = {}, config.federated_classes
    for name, (categories, groups, counts, images, batches) in counted.items():
        table = class_steps(counts, images, batch_size=config.batch_size, number=number)
        seen = drawn_steps(FederatedClasses(number, counts), batches)["drawn"]
        names = [category.name for category in categories]
        tables[name] = table.assign(category=names, group=groups, seen=seen)
    return tables


def largest_boxes(dataset: BoxDataset) -> pd.DataFrame:
    """Is the largest object of the class labelled? Columns image, label, num_classes, right."""
    sides = dataset.boxes_xyxy[:, 2:] - dataset.boxes_xyxy[:, :2]
    order = np.lexsort((sides.prod(axis=1), dataset.box_image))
    of_largest = np.full(len(dataset), -1)
    of_largest[dataset.box_image[order]] = dataset.labels[order]  # the last of an image stays
    pairs = np.unique(np.stack([dataset.box_image, dataset.labels], axis=1), axis=0)
    frame = pd.DataFrame(pairs, columns=["image", "label"])
    frame["num_classes"] = frame.groupby("image")["label"].transform("size")
    frame["right"] = of_largest[frame["image"]] == frame["label"]
    return frame


def federated_odds(
    image_counts: Sequence[int] | Tensor, number: int, present: Tensor | float = 0.0
) -> Tensor:
    """Chance that `FederatedClasses` draws a class that is not present, float64 [C].

    From the training images with each class [C], the wanted number of classes (0 for all), and the
    probability that each is present [C]. In the race of the draw, class c arrives before time t
    with probability 1 - exp(-t w_c), and t is such that the places are filled on average. For many
    classes that is all but exact.
    """
    weights = torch.as_tensor(image_counts, dtype=torch.float64).sqrt()
    absent = (1 - torch.as_tensor(present, dtype=torch.float64)).expand_as(weights)
    places = number - float((1 - absent).sum())
    if not number or places >= float(absent[weights > 0].sum()):
        return (weights > 0).double() if number else torch.ones_like(weights)
    if places <= 0:
        return torch.zeros_like(weights)

    def surplus(log_time: float) -> float:
        return float((absent * -torch.expm1(-math.exp(log_time) * weights)).sum()) - places

    time = math.exp(brentq(surplus, -50.0, 50.0))
    return -torch.expm1(-time * weights)
