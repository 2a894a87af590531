"""When a training has to end before its last step: signals, and the time that it was given."""

import math
import os
import signal
import threading
import time

import psutil

# When this process must be gone, in seconds since 1970: as it was told, and as Slurm says it.
_END, _SLURM_END = "RICHSEM_END", "SLURM_JOB_END_TIME"
_MOMENT = 1.0  # second
_RESERVE = 60.0  # seconds kept for the state and the end of the process
# SIGUSR1 is what `sbatch --signal` and cluster managers send before time is up.
SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n)]


def end_after(seconds: int) -> None:
    """Makes trainings of this process end before it is so old."""
    os.environ[_END] = str(int(psutil.Process().create_time()) + seconds)


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C, or the clock, ended a training whose state is kept."""

    code = 75  # of a command that ends so: try again (EX_TEMPFAIL)


class Stop:
    """Notes signals and watches the clock, so that a step is finished and its state is kept.

    A second Ctrl-C ends a training at once. What a launcher passes on comes within a moment, and
    queues send one kind of signal after another: neither must stop the state from being written.
    """

    def __enter__(self) -> "Stop":
        self.reason, self._interrupted = "", False
        told = (os.environ.get(name, "") for name in (_END, _SLURM_END))
        self._end = min((float(when) for when in told if when.isdecimal()), default=math.inf)
        self._last, self._longest = time.time(), 0.0
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # no other one gets any
            for number in SIGNALS:
                # What is ignored (in a job in the background) stays so.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        interrupted, now = number == signal.SIGINT, time.monotonic()
        if interrupted and self._interrupted and now > self._noted + _MOMENT:
            raise KeyboardInterrupt
        if not self.reason:
            self.reason, self._interrupted = signal.Signals(number).name, interrupted
            self._noted = now

    def asked(self) -> tuple[bool, bool]:
        """Whether Ctrl-C, and whether anything else asks for an end; called once a step.

        The clock does as soon as two steps as long as the longest one might be too many.
        """
        now = time.time()
        self._longest, self._last = max(self._longest, now - self._last), now
        if not self.reason and now + 2 * self._longest + _RESERVE > self._end:
            self.reason = "time is nearly up"
        return self._interrupted, bool(self.reason) and not self._interrupted


def leave_to_parent(worker: int) -> None:
    """Makes a process that loads for a training deaf to signals, which reach a whole job."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
