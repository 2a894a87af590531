"""What the losses tell each class: the arithmetic of notebook 05.

Soft labels are compared with hard ones, steps in which a class is taught yes with those in which
it is taught no, and the query that an image's label reaches with the object it means. No network
runs here.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from richsem.data.box_sets import BoxDataset
from richsem.losses.classification import FederatedClasses
from richsem.losses.semantic import soft_label_loss

# --- soft labels -------------------------------------------------------------------------------


def effective_classes(probabilities: Tensor) -> Tensor:
    """How many equally likely classes would be as uncertain: exp(entropy), [N, C] -> [N]."""
    return torch.exp(-torch.xlogy(probabilities, probabilities).sum(dim=-1))


def mean_soft_labels(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The average soft label of each class's objects.

    Args:
        probabilities: Soft labels of objects [N, C].
        labels: Their annotated classes [N].

    Returns:
        Row c is what the teacher says about objects of class c [C, C]; NaN without an object.
    """
    num_classes = probabilities.shape[1]
    sums = probabilities.new_zeros(num_classes, num_classes).index_add(0, labels, probabilities)
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]


def look_alikes(mean_labels: Tensor, classes: Tensor) -> Tensor:
    """Puts classes first that the teacher names right and confuses with one other class.

    Args:
        mean_labels: See `mean_soft_labels` [C, C].
        classes: Class indices to choose from [K].

    Returns:
        The classes that have objects, those named right first, then by the probability of the
        strongest other class.
    """
    seen = classes[~mean_labels[classes, classes].isnan()]
    own = mean_labels[seen, seen]
    others = mean_labels[seen].scatter(1, seen[:, None], 0).amax(dim=1)
    order = torch.argsort(others + (own > others), descending=True, stable=True)
    return seen[order]


def soft_counts(mean_labels: Tensor, instance_counts: np.ndarray) -> pd.DataFrame:
    """How many objects speak for each class, if every object shares its vote as the teacher does.

    Args:
        mean_labels: See `mean_soft_labels` [C, C]; it stands for all objects of a class.
        instance_counts: Objects of each class [C].

    Returns:
        Per class the columns hard (its objects), own (soft votes of these) and others (soft votes
        of objects of other classes).
    """
    votes = mean_labels.double().nan_to_num().numpy() * instance_counts[:, None]
    own = np.diagonal(votes)
    frame = {"hard": instance_counts, "own": own, "others": votes.sum(axis=0) - own}
    return pd.DataFrame(frame)


# --- students ----------------------------------------------------------------------------------


def step_response(
    classifier: nn.Module, hidden: Tensor, text: Tensor, scale: float, label: int
) -> Tensor:
    """What happens to the other classes' logits when a step raises the logit of one class.

    Args:
        classifier: A head of `models.dino.heads`; it is not changed.
        hidden: The object vector, the same before and after the step [dim].
        text: Text features [C, D].
        scale: tau.
        label: The class that is raised.

    Returns:
        Change of each logit relative to that of the class itself [C].
    """
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

    Args:
        target: Soft label or one-hot label [C].
        start: The student's first logits [C].
        steps: Number of gradient steps.
        rate: Step size.

    Returns:
        Probabilities before the first and after each step [steps + 1, C].
    """
    logits, seen = start.clone(), []
    for _ in range(steps + 1):
        logits.requires_grad_()
        seen.append(logits.detach().softmax(dim=-1))
        (slope,) = torch.autograd.grad(soft_label_loss(target[None], logits[None]), logits)
        logits = logits.detach() - rate * slope
    return torch.stack(seen)


# --- federated classes -------------------------------------------------------------------------


def class_steps(
    image_counts: np.ndarray, num_images: int, *, batch_size: int, number: int
) -> pd.DataFrame:
    """In which share of training steps a class is taught yes, and no: by calculation.

    Args:
        image_counts: Training images with each class [C].
        num_images: Training images.
        batch_size: Images in a step, drawn alike.
        number: Classes in a step of the federated loss; 0 for all.

    Returns:
        Per class the columns images, present (share of steps with an object of the class), absent
        (steps without; a loss over all classes teaches "no" in each of them) and drawn (steps
        without in which the federated loss teaches "no").
    """
    counts = torch.as_tensor(image_counts, dtype=torch.float64)
    present = 1 - (1 - counts / num_images).clamp(0, 1) ** batch_size
    odds = federated_odds(counts, number, present)
    columns = {"images": counts, "present": present, "absent": 1 - present}
    columns["drawn"] = (1 - present) * odds
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
    image_counts: np.ndarray,
    num_images: int,
    batch_size: int,
    steps: int,
    rng: np.random.Generator,
) -> Iterator[Tensor]:
    """The same where only counts are known: each class appears independently of the others."""
    present = 1 - (1 - image_counts / num_images) ** batch_size
    for _ in range(steps):
        yield torch.from_numpy(np.flatnonzero(rng.random(len(present)) < present))


# --- image labels ------------------------------------------------------------------------------


def largest_boxes(dataset: BoxDataset) -> pd.DataFrame:
    """Whether the largest object of an image is of the class that its label names.

    Returns:
        One row per image and class that is present: columns image, label, num_classes (classes in
        the image) and right.
    """
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
    """Chance that `FederatedClasses` draws a class that is not present.

    In the race of the draw, class c arrives before time t with probability 1 - exp(-t w_c), and t
    is such that the places are filled on average. For many classes that is all but exact.

    Args:
        image_counts: Training images with each class [C].
        number: Wanted number of classes; 0 for all.
        present: Probability that each class is present [C], or of all classes alike.

    Returns:
        Chances, float64 [C].
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
