"""The training loop: batches in, a trained detector and its history out, resumable at any step.

Order and augmentation depend on (seed, step) alone, and every other random draw on (seed, step,
share), where a share is what one process looks at at once. So a run that is interrupted and resumed
does what the uninterrupted run does, bit for bit on the CPU, and N processes do what one does with
`accumulation` N. The loop names no loss term: a criterion gives weighted terms and the loop
minimises their sum.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from richsem.config import Natural, Positive, Share, config_hash
from richsem.data.sampling import item_seed
from richsem.models import weight_files
from richsem.paths import write_atomic
from richsem.structures import Batch, Losses
from richsem.training import optim as optimisers
from richsem.training import parallel
from richsem.training.loading import LoadConfig, Source, StepLoader
from richsem.training.optim import OptimConfig
from richsem.training.stopping import Stop, Stopped
from richsem.training.teacher import Teacher

Precision = Literal["no", "bf16", "fp16"]
Row = dict[str, Any]

STATE, LOG = "state.pt", "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoadConfig):
    """Length and bookkeeping of a run, and its batches (see `LoadConfig`)."""

    steps: Positive  # of the optimiser, those on extra batches included
    precision: Precision = "no"  # of forward and backward; losses are always in float32
    checkpoint_every: Positive = 1000  # steps between states on disk
    log_every: Positive = 50  # steps that a row of the history sums up
    judge_every: Natural = 0  # steps between evaluations while training; 0 for none
    # Part of an exponential average of weights that a step keeps; the run ends with the average, 0
    # ends with the weights of the last step.
    average: Share = 0.0


class DivergenceError(ValueError):
    """A loss or gradient is not a finite number."""


class RunError(ValueError):
    """The folder holds something that this run cannot go on from."""


# What decides how often something is written down but not what is learnt.
BOOKKEEPING = {"checkpoint_every": 1, "log_every": 1, "judge_every": 0, "workers": 0}


def run_identity(config: TrainConfig, optim: OptimConfig, rest: str) -> str:
    """What a state on disk belongs to; `rest` stands for data and model."""
    return "\n".join([config_hash(replace(config, **BOOKKEEPING)), config_hash(optim), rest])


def train(
    detector: nn.Module,  # called with a batch, gives what criterion and teacher understand
    criterion: nn.Module,  # called with output, batch and the number of boxes, gives `Losses`
    main: Source,  # detection data
    extra: Source | None,  # extra data that takes turns with it
    config: TrainConfig,
    optim: OptimConfig,
    folder: Path | str,  # for the state (`state.pt`) and the history (`log.jsonl`)
    *,
    teacher: Teacher | None = None,  # adds soft labels between detector and criterion
    pad_multiple: int = 1,  # padded image sides are multiples of this
    # What else the run depends on (data, model); a state of another one is refused.
    identity: str = "",
    # Evaluates the detector every `judge_every` steps; its time does not count.
    judge: Callable[[], dict[str, float]] | None = None,
    on_progress: Callable[[Row], None] | None = None,  # called with each row as it is written
) -> list[Row]:
    """Trains a detector in place, from the state in `folder` if there is one.

    Ctrl-C ends it by a `KeyboardInterrupt` after the step under way and its state are saved, and
    SIGTERM, SIGUSR1 and the end of its time by a `Stopped` (see `stopping`). A loss or gradient
    that is not finite ends it, too: images and term are named, and the last state on disk is from
    before.

    Returns the history: step, lr, seconds, cpu_seconds (of the first process), gradient_norm, by
    kind of batch the mean losses, and what `judge` found.
    """
    identity = run_identity(config, optim, identity)
    run = Training(detector, criterion, teacher, config, optim, Path(folder), identity)
    run.restore()
    accelerator = run.accelerator
    loader = StepLoader(
        [main] if extra is None else [main, extra],
        config,
        range(run.step, config.steps),
        pad_multiple=pad_multiple,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    progress = tqdm(
        total=config.steps,
        initial=run.step,
        desc="training",
        unit="step",
        mininterval=0.5 if sys.stderr.isatty() else 10,  # a log file keeps every line
        disable=not accelerator.is_main_process,
    )
    with Stop() as stop, progress:
        for parts in loader:
            num_boxes = sum(len(t.labels) for batch in parts for t in batch.targets)
            # Every process stops at the same step, whichever of them was told to.
            num_boxes, *asked = parallel.summed([num_boxes, *stop.asked()], accelerator)
            if any(asked):
                run.save()
                run.stop(stop, *asked)
            # The mean over processes and parts of a loss with this normaliser is the loss of the
            # whole batch.
            share = max(num_boxes, 1.0) / (accelerator.num_processes * config.accumulation)
            run.advance(parts, share, loader.weight(run.step))
            if row := run.log(run.judged(judge)):
                totals = (f"{kind} {terms['total']:.3f}" for kind, terms in row["losses"].items())
                progress.set_postfix_str(", ".join(totals), refresh=False)
                if on_progress and accelerator.is_main_process:
                    on_progress(row)
            if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                run.save()
            progress.update()
        if any(asked := parallel.summed(stop.asked(), accelerator)):  # during the last step
            run.stop(stop, *asked)
    run.average.take()  # if there is one; the state on disk keeps both
    detector.eval()
    return run.history


@dataclass(eq=False)
class Training:
    """Everything that a training run changes, and how it gets to disk and back."""

    detector: nn.Module
    criterion: nn.Module
    teacher: Teacher | None
    config: TrainConfig
    optim: OptimConfig
    folder: Path
    identity: str  # what a state on disk must be of

    def __post_init__(self) -> None:
        self.accelerator = parallel.make_accelerator(self.config.precision)
        self.detector.to(self.accelerator.device).train()
        self.criterion.to(self.accelerator.device)
        parallel.same_start(self.detector)
        self.parameters = [p for p in self.detector.parameters() if p.requires_grad]
        plain = optimisers.build_optimiser(self.detector, self.optim)
        # The wrapper only skips steps for the loss scaler; its state is that of the plain one.
        self.optimiser = self.accelerator.prepare_optimizer(plain)
        self.step, self.clock, self.meter = 0, _Clock(), parallel.Meter()
        self.history: list[Row] = []
        self.average = optimisers.WeightAverage(self.parameters, self.config.average)

    def advance(self, parts: list[Batch], num_boxes: float, weight: float = 1.0) -> None:
        """One optimiser step on the batches of one step, `weight` times the schedule's rate."""
        factor = optimisers.rate_factor(self.optim, self.step, self.config.steps)
        optimisers.set_rate(self.optimiser, weight * factor)
        losses = [self._backward(part, batch, num_boxes) for part, batch in enumerate(parts)]
        parallel.average_gradients(self.parameters, self.accelerator)
        # With an infinite limit nothing is clipped, but the norm is still measured.
        limit = self.optim.clip_norm or math.inf
        norm = self.accelerator.clip_grad_norm_(self.parameters, limit)
        optimisers.clip_values(self.parameters, self.optim)
        # Looked at on the device: one transfer per step tells whether all is finite.
        totals = torch.stack([part.total.detach() for part in losses])
        self._check(parts, losses, totals, norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update()
        for batch, part, total in zip(parts, losses, totals, strict=True):
            self.meter.add(batch.supervision.value, {"total": total, **part.terms})
        self.meter.add("", {"norm": norm})
        self.step += 1

    def _backward(self, part: int, batch: Batch, num_boxes: float) -> Losses:
        # Denoising, dropout and federated draws: the same after a restart, and wherever this share
        # of the step is looked at.
        share = self.accelerator.process_index + self.accelerator.num_processes * part
        torch.manual_seed(item_seed(self.config.seed, self.step, share))
        batch = batch.to(self.accelerator.device)
        with self.accelerator.autocast():
            output = self.detector(batch)
        output = output.in_float32()  # outside of autocast: losses need the precision
        if self.teacher:  # soft labels for annotated boxes, or for the boxes of this output
            batch, output = self.teacher.label(batch, output)
        losses = self.criterion(output, batch, num_boxes)
        # Gradients of the parts add up to the mean over parts.
        self.accelerator.backward(losses.total / self.config.accumulation)
        return replace(losses, terms={name: t.detach() for name, t in losses.terms.items()})

    def _check(
        self, parts: list[Batch], losses: list[Losses], totals: Tensor, norm: Tensor
    ) -> None:
        finite = torch.isfinite(totals).all()
        if self.config.precision != "fp16":  # there, the loss scaler skips such a step by itself
            finite &= torch.isfinite(norm)
        if finite:
            return
        good = torch.isfinite(totals)
        part = losses[int(good.int().argmin())]  # the first bad one
        images = [target.image_id for batch in parts for target in batch.targets]
        weighted = {name: w * float(part.terms[name]) for name, w in part.weights.items()}
        # The term that explains most; one that is no number counts as infinite.
        size = {name: math.inf if math.isnan(v) else abs(v) for name, v in weighted.items()}
        name = max(size, key=size.__getitem__)
        what = "gradient" if good.all() else "loss"
        raise DivergenceError(
            f"the {what} of step {self.step} is not finite; largest term {name} = "
            f"{weighted[name]:g}, image ids {images}. The state of the last checkpoint is kept in "
            f"{self.folder}; look at these images, lower the learning rate or use precision 'no'"
        )

    # --- history and state -----------------------------------------------------------------------

    def judged(self, judge: Callable[[], dict[str, float]] | None) -> dict[str, float]:
        """What `judge` says about the detector at this step, if it is its turn."""
        every = self.config.judge_every
        if judge is None or not every or self.step % every:
            return {}
        before = self.clock.read()
        self.detector.eval()
        found = judge()
        self.detector.train()
        self.clock = _Clock(**before)  # goes on counting from there
        return found

    def log(self, metrics: dict[str, float]) -> Row | None:
        """The row that ends at this step, written to the log; None between rows."""
        if self.step % self.config.log_every and self.step != self.config.steps and not metrics:
            return None
        # The sums of all processes, so that the row does not depend on how many there are.
        mean = parallel.means(parallel.gathered(self.meter.sums()))
        factor = optimisers.rate_factor(self.optim, self.step - 1, self.config.steps)
        row = {
            "step": self.step,
            "lr": self.optim.lr * factor,
            **self.clock.read(),
            "gradient_norm": mean.pop("")["norm"],
            "losses": mean,
        }
        if metrics:
            row["metrics"] = metrics
        self.meter = parallel.Meter()
        self.history.append(row)
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return row

    def save(self) -> None:
        """Writes the state of this step; all processes call it, the first one writes."""
        sums = parallel.joined(parallel.gathered(self.meter.sums()))
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "identity": self.identity,
            "step": self.step,
            "clock": self.clock.read(),
            "sums": sums,
            "detector": self.detector.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
            "average": self.average.means,
        }
        write_atomic(self.folder / STATE, lambda file: torch.save(state, file))

    def restore(self) -> None:
        """Goes on from the state on disk, if there is one."""
        path = self.folder / STATE
        rows = read_history(self.folder)
        if path.is_file():
            try:
                self._take(weight_files.load(path), path)
            except RunError:
                raise
            except Exception as error:  # a cut or altered archive fails in many ways
                cause = error.__cause__
                reason = type(cause).__name__ if cause else " ".join(str(error).split())
                raise RunError(f"{path} is damaged ({reason}); delete it to start anew") from error
        # After a crash the log may be ahead of the state: those steps are done once more.
        self.history = [row for row in rows if row["step"] <= self.step]
        if self.accelerator.is_main_process and (self.folder / LOG).is_file():
            lines = [json.dumps(row) + "\n" for row in self.history]
            write_atomic(self.folder / LOG, "".join(lines))
        if len(steps := {*parallel.gathered(self.step)}) > 1:
            raise RunError(
                f"{self.folder} holds the state of step {max(steps)} for some processes and none "
                "for others: name a folder on a disk that all machines share (--out)"
            )

    def stop(self, stop: Stop, interrupted: float, told: float) -> None:
        """Ends the training, whose state is kept, with words for whoever asked."""
        # A launcher ends the others as soon as one process is gone.
        self.accelerator.wait_for_everyone()
        kind = KeyboardInterrupt if interrupted else Stopped
        raise kind(
            f"stopped after step {self.step} of {self.config.steps} "
            f"({stop.reason or 'another process was told to'}); the state is in "
            f"{self.folder / STATE}, and the same command goes on from there"
        )

    def _take(self, state: dict[str, Any], path: Path) -> None:
        if state["identity"] != self.identity:
            raise RunError(
                f"{path} is of a run with another configuration or data; delete the folder to "
                "start anew, or choose another one"
            )
        self.step, self.clock = state["step"], _Clock(**state["clock"])
        self.detector.load_state_dict(state["detector"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.restore(state.get("average", ()))
        if self.accelerator.is_main_process:  # the sums are those of all processes
            self.meter = parallel.Meter(state["sums"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])


class _Clock:
    """Wall and CPU seconds of training alone, over all sessions of a run."""

    def __init__(self, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self.wall, self.cpu = seconds - time.perf_counter(), cpu_seconds - time.process_time()

    def read(self) -> dict[str, float]:
        """The seconds so far."""
        wall, cpu = self.wall + time.perf_counter(), self.cpu + time.process_time()
        return {"seconds": round(wall, 3), "cpu_seconds": round(cpu, 3)}


def read_history(folder: Path) -> list[Row]:
    """Complete rows of a run's log; the run may have been stopped within the last one."""
    path = folder / LOG
    if not path.is_file():
        return []
    rows: list[Row] = []
    try:
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            row = json.loads(line)
            int(row["step"]), float(row["cpu_seconds"])  # both are needed everywhere
            rows.append(row)
    except (ValueError, TypeError, LookupError) as error:
        raise RunError(
            f"{path} is damaged (line {len(rows) + 1}: {error}): mend the line, or delete the "
            "folder to train anew"
        ) from error
    return rows
