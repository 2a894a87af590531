"""The second detector in the place of the first: the same data, teacher, loop and evaluation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_centernet2 import RANGES, SIZES
from toys import MINI_DIM, assert_same, interrupt, small_run

from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.models.centernet2.centernet2 import CenterNet2Config
from richsem.structures import Supervision
from richsem.training import runs
from richsem.training.build import build
from richsem.training.checkpoint import DESCRIPTION

pytestmark = pytest.mark.usefixtures("cache")


def two_stages(root, **options):
    """The small run with the other detector and its loss; nothing else changes."""
    sizes = SIZES | {"num_classes": 0, "text_dim": MINI_DIM, "min_score": 0.0}
    loss = CenterNet2CriterionConfig(ranges=RANGES, federated_classes=2)
    return replace(small_run(root, **options), detector=CenterNet2Config(**sizes), loss=loss)


@pytest.mark.parametrize(
    ("key", "supervision", "terms"),
    [
        ("inet_lvis", Supervision.IMAGE_LABELS, {"heatmap", "distance", "class", "box", "soft"}),
        ("inet_unl", Supervision.UNLABELLED, {"heatmap", "distance", "box", "soft"}),
        ("inet_lvis", Supervision.WHOLE_IMAGES, {"image_level"}),
    ],
)
def test_it_learns_from_every_kind_of_extra_data(root, tmp_path, key, supervision, terms):
    mosaic = supervision is not Supervision.WHOLE_IMAGES
    config = two_stages(root, key=key, supervision=supervision, mosaic=mosaic)
    _, history = runs.run(config, tmp_path)
    losses = history[-1]["losses"]
    assert set(losses[supervision.value]) == terms | {"total"}
    assert {"class", "soft"} < set(losses["detection"])
    assert all(np.isfinite(value) for kind in losses.values() for value in kind.values())


def test_the_teacher_is_the_same(root):
    setup = build(two_stages(root))
    assert type(setup.criterion) is CenterNet2Criterion
    assert setup.config.detector.scale == pytest.approx(setup.teacher.clip.scale)
    assert torch.equal(setup.teacher.text, setup.detector.text.cpu())


def test_a_stopped_run_goes_on_bit_for_bit(root, tmp_path):
    whole, _ = runs.run(two_stages(root), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        runs.run(two_stages(root), tmp_path / "parts", on_progress=interrupt)
    assert not (tmp_path / "parts" / DESCRIPTION).exists()
    resumed, history = runs.run(two_stages(root), tmp_path / "parts")
    assert history[-1]["step"] == 4
    assert_same(resumed, whole)


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
