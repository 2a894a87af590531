"""Which images are in which batch: a pure function of seed and step.

Nothing is remembered between steps, so a run resumed at step k sees exactly what the uninterrupted
run sees, with any number of processes and loader workers.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from richsem.data.box_sets import BoxDataset

Epoch = Callable[[np.random.Generator], np.ndarray]


def repeat_factors(dataset: BoxDataset, threshold: float = 0.001) -> np.ndarray:
    """How often each image is shown per epoch, [N] (METHOD 2.7).

    A class seen in a fraction f of the images asks for max(1, sqrt(threshold / f)); an image is
    repeated as often as its most demanding class asks for. Images without boxes count once.
    """
    if threshold < 0:
        raise ValueError(f"repeat threshold is {threshold!r}, expected >= 0 (0 repeats nothing)")
    fractions = np.maximum(dataset.image_counts(), 1) / len(dataset)
    per_class = np.maximum(1.0, np.sqrt(threshold / fractions))
    factors = np.ones(len(dataset))
    np.maximum.at(factors, dataset.box_image, per_class[dataset.labels])
    return factors


def class_aware_weights(dataset: BoxDataset) -> np.ndarray:
    """Weight of each image: the sum over its classes of 1 / (images with this class), [N]."""
    image, label = shown_classes(dataset)
    return np.bincount(image, 1 / dataset.image_counts()[label], minlength=len(dataset))


def class_shows(dataset: BoxDataset, image_shows: np.ndarray) -> np.ndarray:
    """How many images with each class are shown if each image is shown so often, [N] -> [C]."""
    image, label = shown_classes(dataset)
    return np.bincount(label, image_shows[image], minlength=len(dataset.categories))


def shown_classes(dataset: BoxDataset) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of an image and a class in it: two arrays [P]."""
    num_classes = len(dataset.categories)
    return np.divmod(np.unique(dataset.box_image * num_classes + dataset.labels), num_classes)


def stratified(dataset: BoxDataset, number: int) -> np.ndarray:
    """Positions of so many images with boxes, ascending, with as many classes as can be.

    Classes take turns, the rarest first: each names the next image that shows it, in an order that
    is drawn once and for all.
    """
    image, label = shown_classes(dataset)
    drawn = np.random.default_rng(0).permutation(len(dataset))[image]
    order = np.lexsort((drawn, label))
    turn = np.empty(len(order), dtype=np.int64)
    turn[order] = np.arange(len(order)) - np.searchsorted(label[order], label[order])
    named = image[np.lexsort((label, dataset.image_counts()[label], turn))]
    _, first = np.unique(named, return_index=True)
    return np.sort(named[np.sort(first)[:number]])


@dataclass(frozen=True)
class RepeatedEpoch:
    """All images in random order, each as often as its factor says on average.

    The fraction of a factor is the probability of one more repeat, drawn anew in each epoch.
    """

    factors: np.ndarray

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the image indices of an epoch."""
        whole = np.floor(self.factors)
        extra = rng.random(len(self.factors)) < self.factors - whole
        counts = whole.astype(np.int64) + extra
        return rng.permutation(np.repeat(np.arange(len(counts)), counts))


def shuffled(num_images: int) -> RepeatedEpoch:
    """Every image once per epoch."""
    return RepeatedEpoch(np.ones(num_images))


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchPlan:
    """The batches of one set.

    Epochs follow one another without a gap: a batch may hold the end of one and the start of the
    next. Of the total batch, process r of w gets the items r, r + w, r + 2w, ...
    """

    epoch: Epoch  # draws the image indices of an epoch
    batch_size: int  # images per step of all processes together
    seed: int  # of order and of item seeds; sets that alternate want different ones
    rank: int = 0  # this process
    world: int = 1  # number of processes
    # Where each epoch starts in the endless sequence, as far as it was walked, and the last orders.
    _starts: list[int] = field(default_factory=lambda: [0], init=False, repr=False)
    _last: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world <= self.batch_size:
            raise ValueError(
                f"rank {self.rank} of {self.world} processes with batch_size {self.batch_size}: "
                "expected 0 <= rank < world <= batch_size; the batch size is that of all "
                "processes together"
            )

    def items(self, step: int) -> list[tuple[int, int]]:
        """This process's (image index, item seed) pairs of a step, counted from 0."""
        first = step * self.batch_size
        positions = range(first + self.rank, first + self.batch_size, self.world)
        return [(self._index(p), item_seed(self.seed, p)) for p in positions]

    def _index(self, position: int) -> int:
        """Image at a position of the endless sequence of epochs."""
        while position >= self._starts[-1]:
            order = self._order(len(self._starts) - 1)
            if not len(order):
                raise ValueError("an epoch has no images; check the set and the sampling weights")
            self._starts.append(self._starts[-1] + len(order))
        number = bisect_right(self._starts, position) - 1
        return int(self._order(number)[position - self._starts[number]])

    def _order(self, number: int) -> np.ndarray:
        if number not in self._last:
            while len(self._last) > 1:  # a batch touches two epochs at most, most of the time
                del self._last[min(self._last)]
            self._last[number] = self.epoch(np.random.default_rng((self.seed, number)))
        return self._last[number]


def item_seed(*numbers: int) -> int:
    """A 63-bit seed that is a function of the numbers, unrelated for neighbouring ones."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def alternate(step: int, ratio: tuple[int, int] = (1, 1)) -> tuple[bool, int]:
    """Which set serves a step when a : b batches alternate (METHOD 1.4).

    Says whether it is the extra set, and how many of that set's own steps came before this one.
    """
    main, extra = ratio
    if min(ratio) < 0 or not main + extra:
        raise ValueError(f"ratio is {ratio!r}, expected (main, extra) batches such as (1, 1)")
    cycle, place = divmod(step, main + extra)
    if place < main:
        return False, cycle * main + place
    return True, cycle * extra + place - main
