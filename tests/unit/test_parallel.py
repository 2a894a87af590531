"""Several processes do what one does, end together, and go on together."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from jobs import command, free_port, job, share, tell_the_group, unheard
from toys import exactly

from richsem.paths import ROOT
from richsem.training.checkpoint import WEIGHTS
from richsem.training.loop import LOG, STATE
from richsem.training.parallel import Meter, means

# Every kind of draw: noise, replaced labels, classes that count.
SETTINGS = ["data.judge_split=val", "loss.federated_classes=2", "train.judge_every=0"]
STEPS = ["train.steps=8", "train.checkpoint_every=2", "train.log_every=2", "optim.lr=1e-4"]
ALONE = {"world": 1}


def scalars(**values):
    return {name: torch.tensor(value) for name, value in values.items()}


def test_means_are_of_the_observations_of_each_kind_in_all_processes():
    meters = Meter(), Meter()
    meters[0].add("detection", scalars(total=1.0, box=4.0))
    meters[1].add("detection", scalars(total=3.0))
    meters[1].add("captions", scalars(total=10.0))
    expected = {"detection": {"total": 2.0, "box": 4.0}, "captions": {"total": 10.0}}
    assert means([meter.sums() for meter in meters]) == expected


@pytest.mark.slow
def test_two_processes_are_one_that_works_in_two_parts(tmp_path, root):
    found = {}
    for name, world in (("one", 1), ("two", 2)):
        folder = tmp_path / name / "out"
        codes, said = job(folder, share, folder, root, world=world)
        assert codes == [0] * world, said
        found[name] = [torch.load(folder / f"{rank}.pt") for rank in range(world)]
    (one,), two = found["one"], found["two"]
    exactly(two[0], two[1])
    # Without noise, and with every draw where the parts are those of the processes.
    for name, expected in one.items():
        torch.testing.assert_close(two[0][name], expected, msg=lambda m, n=name: f"{n}: {m}")
    assert (tmp_path / "two" / "out" / "toy 0.0" / LOG).read_text().count("\n") == 1


@pytest.fixture(scope="module")
def words(root, tmp_path_factory):
    """The command that trains, with a place for `--out`."""
    words = ["train", "baseline", "--profile", "smoke", "--set", f"data.root={root}"]
    return [*words, *SETTINGS, *STEPS, "--out"]


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """Weights of a run that one process trained in two parts, uninterrupted."""
    folder = tmp_path_factory.mktemp("whole")
    alone = [*words[:-1], "train.accumulation=2", "--out", folder]
    codes, said = job(folder / "said", command, alone, **ALONE)
    assert codes == [0], said
    return (folder / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_a_job_ends_together_and_goes_on_as_two_nodes(tmp_path, words, whole):
    out = tmp_path / "run"
    words = [*words, out]
    codes, said = job(tmp_path / "killed", command, words, [(3, 1, signal.SIGKILL)])
    assert codes == [1, -signal.SIGKILL]
    assert said[0].count("another process of this job has ended") == 1
    assert "Traceback" not in said[0] and torch.load(out / STATE)["step"] == 2

    codes, said = job(tmp_path / "told", command, words, [(5, 1, signal.SIGUSR1)])
    assert codes == [75, 75]
    words_of_stop = "stopped after step 6 of 8 (another process was told to)"
    assert f"{words_of_stop}; the state is in {out}" in said[0] and said[1] == ""

    nodes, port = [], free_port()
    env = os.environ | {"OMP_NUM_THREADS": "1", "RICHSEM_CACHE": str(tmp_path / "cache")}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "-m", "richsem"]
    for _ in range(2):
        own = {"env": env, "cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
        nodes.append(subprocess.Popen([*torchrun, *map(str, words)], **own))
    printed = [node.communicate(timeout=120)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0]
    assert "".join(printed) == f"{out}\n"  # one process speaks
    assert (out / WEIGHTS).read_bytes() == whole


@pytest.mark.slow
def test_signals_that_reach_the_loaders_cost_no_state(tmp_path, words, whole):
    out = tmp_path / "run"
    words = [*words[:-1], "train.accumulation=2", "train.workers=2", "--out", out]
    codes, said = job(tmp_path / "told", command, words, [(5, 0, tell_the_group)], **ALONE)
    assert codes == [75] and "stopped after step 6 of 8 (SIGUSR1)" in said[0]
    codes, said = job(tmp_path / "again", command, words, **ALONE)
    assert codes == [0] and (out / WEIGHTS).read_bytes() == whole


def test_a_process_that_no_longer_answers_ends_the_job(tmp_path):
    codes, said = job(tmp_path / "job", unheard, tmp_path)
    assert codes == [9, 9] and "was not heard for" in said[0]
