"""Two processes do what one does: they share batches, average gradients and gather detections."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import ToyCriterion, ToyDetector, ToySet

from richsem.engine.loading import Source
from richsem.engine.optim import OptimConfig
from richsem.engine.predict import predict
from richsem.engine.train import TrainConfig, train
from richsem.structures import Supervision

CONFIG = TrainConfig(steps=4, batch_size=4, log_every=4)
OPTIM = OptimConfig(lr=0.02, backbone_lr=0.02)


def work(folder):
    """What every process does; the first one writes what came out."""
    detector = ToyDetector()
    with torch.no_grad():  # only the first process starts right
        detector.boxes.weight += int(os.environ.get("RANK", 0))
    extra = Source(dataset=ToySet(supervision=Supervision.UNLABELLED))
    history = train(
        detector, ToyCriterion(), Source(dataset=ToySet()), extra, CONFIG, OPTIM, folder
    )
    found = predict(detector, ToySet(5), [1, 2, 3], batch_size=2)
    result = {
        "detector": detector.state_dict(),
        "losses": history[-1]["losses"],
        "images": torch.from_numpy(found.image_id),
        "scores": torch.from_numpy(found.score),
    }
    torch.save(result, folder / f"result{os.environ.get('RANK', 0)}.pt")


def launch(folder, world=2):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    command = [sys.executable, __file__, str(folder)]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    return [
        subprocess.Popen(command, env={**os.environ, **common, **rank}, stderr=subprocess.PIPE)
        for rank in ranks
    ]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    processes = launch(tmp_path / "two")
    (tmp_path / "one").mkdir()
    work(tmp_path / "one")
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    one = torch.load(tmp_path / "one" / "result0.pt")
    two = [torch.load(tmp_path / "two" / f"result{rank}.pt") for rank in range(2)]
    for name, tensor in one["detector"].items():
        torch.testing.assert_close(two[0]["detector"][name], tensor, msg=name)
        assert torch.equal(two[0]["detector"][name], two[1]["detector"][name]), name
    for kind, losses in one["losses"].items():
        assert two[0]["losses"][kind] == pytest.approx(losses, rel=1e-5)
    for other in two:  # every image once, in order, on every process
        assert torch.equal(other["images"], one["images"])
        np.testing.assert_allclose(other["scores"], one["scores"], atol=1e-5)
    assert (tmp_path / "two" / "log.jsonl").read_text().count("\n") == 1


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    work(folder)
