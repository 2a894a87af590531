"""The second detector in the place of the first: the same data, teacher, loop and evaluation."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_centernet2 import RANGES, SIZES
from toys import MINI_DIM, small_run, write_root

from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.models.centernet2.centernet2 import CenterNet2Config
from richsem.structures import Supervision
from richsem.training import runs
from richsem.training.build import build


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("richsem.paths.CACHE", folder)


def two_stages(root, key="inet_lvis", supervision=Supervision.IMAGE_LABELS):
    """The small run with the other detector and its loss; nothing else changes."""
    config = small_run(root)
    mosaic = None if supervision is Supervision.WHOLE_IMAGES else config.data.extra.mosaic
    extra = replace(config.data.extra, key=key, supervision=supervision, mosaic=mosaic)
    sizes = SIZES | {"num_classes": 0, "text_dim": MINI_DIM, "min_score": 0.0}
    return replace(
        config,
        detector=CenterNet2Config(**sizes),
        loss=CenterNet2CriterionConfig(ranges=RANGES, federated_classes=2),
        data=replace(config.data, extra=extra),
    )


@pytest.mark.parametrize(
    ("key", "supervision", "terms"),
    [
        ("inet_lvis", Supervision.IMAGE_LABELS, {"heatmap", "distance", "class", "box", "soft"}),
        ("inet_unl", Supervision.UNLABELLED, {"heatmap", "distance", "box", "soft"}),
        ("inet_lvis", Supervision.WHOLE_IMAGES, {"image_level"}),
    ],
)
def test_it_learns_from_every_kind_of_extra_data(root, tmp_path, key, supervision, terms):
    _, history = runs.run(two_stages(root, key, supervision), tmp_path)
    losses = history[-1]["losses"]
    assert set(losses[supervision.value]) == terms | {"total"}
    assert {"class", "soft"} < set(losses["detection"])
    assert all(np.isfinite(value) for kind in losses.values() for value in kind.values())


def test_the_teacher_is_the_same(root):
    setup = build(two_stages(root))
    assert type(setup.criterion) is CenterNet2Criterion
    assert setup.config.detector.scale == pytest.approx(setup.teacher.clip.scale)
    assert torch.equal(setup.teacher.text, setup.detector.text.cpu())


def test_a_stopped_run_goes_on_bit_for_bit(root, tmp_path, monkeypatch):
    whole, _ = runs.run(two_stages(root), tmp_path / "whole")
    plain = CenterNet2Criterion.forward
    calls = []

    def stopping(self, *args):
        calls.append(len(calls))
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, *args)

    monkeypatch.setattr(CenterNet2Criterion, "forward", stopping)
    with pytest.raises(KeyboardInterrupt):
        runs.run(two_stages(root), tmp_path / "parts")
    resumed, history = runs.run(two_stages(root), tmp_path / "parts")
    assert history[-1]["step"] == 4 and len(calls) == 4
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name


def test_a_run_is_opened_judged_and_used(root, tmp_path):
    detector, _ = runs.run(two_stages(root), tmp_path)
    trained = runs.open_trained(tmp_path)
    assert type(trained.detector) is type(detector)
    assert not any(".semantic." in name for name in trained.detector.state_dict())
    result, found = runs.evaluate_split(trained, batch_size=4)
    assert len(found) and "AP" in result.metrics
    _, alone = runs.evaluate_split(trained, batch_size=1)
    np.testing.assert_allclose(found.score, alone.score, atol=1e-5)
    np.testing.assert_allclose(found.bbox_xywh, alone.bbox_xywh, atol=1e-3)
