"""From training sets to the batches of step k, k + 1, ..., wherever a run starts."""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import islice

from torch.utils.data import DataLoader, Dataset

from richsem.config import ConfigError, Natural, Positive, Share
from richsem.data.samples import TrainingSet, collate
from richsem.data.sampling import BatchPlan, Epoch, alternate, item_seed, shuffled
from richsem.structures import Batch
from richsem.training.stopping import leave_to_parent


@dataclass(frozen=True, kw_only=True)
class Source:
    """A training set and how often its images are shown."""

    dataset: TrainingSet
    epoch: Epoch | None = None  # draws the image indices of an epoch; None shows each image once


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """Batches as all processes together see them."""

    batch_size: Positive = 16  # images per detection step
    extra_batch_size: Natural = 0  # images per extra step; 0 takes `batch_size`
    extra_until: Share = 1.0  # part of all steps after which extra steps count less, or not at all
    extra_rest: Share = 0.0  # learning rate of these, as part of the schedule's; 0 leaves them out
    accumulation: Positive = 1  # parts in which a process works off its share of a step
    seed: Natural = 0  # of order and augmentation
    workers: Natural = 0  # loader processes of each process; 0 loads in place


_Key = tuple[int, int, int]  # which source, image index, item seed


@dataclass(eq=False)
class StepLoader:
    """Iterates over steps; each is a list of batches, one per accumulation part.

    What a step holds depends on its number alone (`richsem.data.sampling`), and the items of all
    processes together do not depend on how many there are.
    """

    sources: Sequence[Source]  # the detection source and, if there is one, the extra source
    config: LoadConfig
    steps: range
    _: KW_ONLY
    pad_multiple: int = 1  # padded image sides are multiples of this
    rank: int = 0  # this process
    world: int = 1  # number of processes

    def __post_init__(self) -> None:
        config, share = self.config, self.world * self.config.accumulation
        sizes = (config.batch_size, config.extra_batch_size or config.batch_size)
        self.plans, self._early = [], round(config.extra_until * self.steps.stop)
        for number, (source, size) in enumerate(zip(self.sources, sizes, strict=False)):
            if size < 1 or size % share:
                raise ConfigError(
                    f"batch size {size} is for all processes together and must be a multiple of "
                    f"{self.world} processes x {config.accumulation} accumulation parts"
                )
            plan = BatchPlan(
                epoch=source.epoch or shuffled(len(source.dataset)),
                batch_size=size,
                seed=item_seed(config.seed, number),
                rank=self.rank,
                world=self.world,
            )
            self.plans.append(plan)

    def __iter__(self) -> Iterator[list[Batch]]:
        dataset = _Batches([source.dataset for source in self.sources], self.pad_multiple)
        loading = {"num_workers": self.config.workers, "worker_init_fn": leave_to_parent}
        # Each key is a whole batch: there is nothing left to put together.
        batches = iter(DataLoader(dataset, None, sampler=self.keys(), **loading))
        while parts := list(islice(batches, self.config.accumulation)):
            yield parts

    def weight(self, step: int) -> float:
        """Part of the schedule's learning rate that a step has."""
        # Gradients are clipped to a norm far below their own: a factor on the loss would be lost.
        late = len(self.sources) > 1 and step >= self._early
        return (self.config.extra_rest if late and alternate(step)[0] else 0) or 1.0

    def keys(self) -> Iterator[list[_Key]]:
        """The keys of every batch, part by part and step by step."""
        last = self.steps.stop if self.config.extra_rest else self._early
        for step in self.steps:
            # Batches are of one kind: detection and extra steps take turns (METHOD 1.4).
            extra, own_step = alternate(step) if len(self.sources) > 1 else (False, step)
            if len(self.sources) > 1 and step >= last:  # half of those before it were extra ones
                extra, own_step = False, step - last // 2
            items = self.plans[extra].items(own_step)
            for part in range(self.config.accumulation):
                # Every n-th item: parts of one size, whatever order the plan has.
                yield [(int(extra), *item) for item in items[part :: self.config.accumulation]]


@dataclass
class _Batches(Dataset):
    sets: Sequence[TrainingSet]  # of the sources; what draws epochs need not reach loaders
    pad_multiple: int

    def __getitem__(self, keys: list[_Key]) -> Batch:
        # A key decides every draw.
        samples = [self.sets[source][index, seed] for source, index, seed in keys]
        return collate(samples, self.sets[keys[0][0]].supervision, self.pad_multiple)
