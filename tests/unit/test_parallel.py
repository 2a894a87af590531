"""Two processes do what one does: they share batches, average gradients and gather detections."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import ToyCriterion, ToyDetector, ToySet, small_run, write_root

from richsem.models.dino.denoising import DenoisingConfig
from richsem.structures import Supervision
from richsem.training.loading import Source
from richsem.training.loop import LOG, TrainConfig, train
from richsem.training.optim import OptimConfig
from richsem.training.parallel import Meter, means
from richsem.training.predict import predict
from richsem.training.runs import run

CONFIG = TrainConfig(steps=4, batch_size=4, log_every=4)
OPTIM = OptimConfig(lr=0.02, backbone_lr=0.02)
EVERY_STEP = {"batch_size": 4, "log_every": 1}


def work(folder, rank):
    """What every process does."""
    detector = ToyDetector()
    with torch.no_grad():  # only the first process starts right
        detector.boxes.weight += rank
    extra = Source(dataset=ToySet(supervision=Supervision.UNLABELLED))
    history = train(
        detector, ToyCriterion(), Source(dataset=ToySet()), extra, CONFIG, OPTIM, folder / "toy"
    )
    found = predict(detector, ToySet(5), [1, 2, 3], batch_size=2)
    # Noise and sampled classes are each process's own: equality holds without them.
    config = small_run(folder.parent / "data")
    plain = replace(config.detector, denoising=DenoisingConfig(number=0))
    loss, steps = replace(config.loss, federated_classes=0), replace(config.train, **EVERY_STEP)
    _, real = run(replace(config, detector=plain, loss=loss, train=steps), folder / "real")
    result = {
        "detector": detector.state_dict(),
        "losses": history[-1]["losses"],
        "images": torch.from_numpy(found.image_id),
        "scores": torch.from_numpy(found.score),
        "real": [(row["losses"], row["gradient_norm"]) for row in real],
    }
    torch.save(result, folder / f"result{rank}.pt")


def launch(folder, world):
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tests = Path(__file__).parents[1]
    processes = []
    for rank in range(world):
        values = {"WORLD_SIZE": world, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1}
        values |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
        values |= {"PYTHONPATH": f"{tests}:{tests.parent}", "RICHSEM_CACHE": folder / "cache"}
        env = os.environ | {name: str(value) for name, value in values.items()}
        with (folder / f"errors{rank}.txt").open("w") as errors:
            command = [sys.executable, __file__, str(folder), str(rank)]
            processes.append(subprocess.Popen(command, env=env, stderr=errors))
    return processes


def finish(processes, folder):
    try:
        codes = [process.wait(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not any(codes), "".join(path.read_text() for path in folder.glob("*/errors*.txt"))


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
def test_two_processes_are_one(tmp_path):
    write_root(tmp_path / "data")
    finish([*launch(tmp_path / "one", 1), *launch(tmp_path / "two", 2)], tmp_path)
    one = torch.load(tmp_path / "one" / "result0.pt")
    two = [torch.load(tmp_path / "two" / f"result{rank}.pt") for rank in range(2)]
    for name, tensor in one["detector"].items():
        torch.testing.assert_close(two[0]["detector"][name], tensor, msg=name)
        assert torch.equal(two[0]["detector"][name], two[1]["detector"][name]), name
    for kind, losses in one["losses"].items():
        assert two[0]["losses"][kind] == pytest.approx(losses, rel=1e-5)
    for (losses, norm), (expected, expected_norm) in zip(two[0]["real"], one["real"], strict=True):
        assert norm == pytest.approx(expected_norm, rel=1e-3)
        (kind,) = expected
        assert losses[kind] == pytest.approx(expected[kind], rel=1e-3, abs=1e-5)
    for other in two:  # every image once, in order, on every process
        assert torch.equal(other["images"], one["images"])
        np.testing.assert_allclose(other["scores"], one["scores"], atol=1e-5)
    assert (tmp_path / "two" / "toy" / LOG).read_text().count("\n") == 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]), int(sys.argv[2]))
