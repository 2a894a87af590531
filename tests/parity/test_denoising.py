"""Denoising queries against recorded runs of the authors' code, with their random numbers."""

import pytest
import torch
from parity.reference import describe, in_slots
from torch.nn import functional as F

from richsem.losses.classification import FederatedClasses
from richsem.models.dino import denoising
from richsem.structures import Target

pytestmark = pytest.mark.golden("F_denoising")


@pytest.fixture(scope="module")
def tensors(recorded):
    return recorded("F_denoising")[0]


@pytest.fixture(scope="module")
def meta(golden):
    return describe(golden, "F_denoising")


def cases(folder):
    return describe(folder, "F_denoising")["cases"]


def noise_scales(folder):
    names = describe(folder, "F_denoising")["observed_statistics"]
    return [float(name.removeprefix("box_noise_scale_")) for name in names]


@pytest.mark.golden(case=cases)
def test_queries(tensors, meta, case):
    setting = meta["cases"][case]
    config = denoising.DenoisingConfig(
        number=setting["dn_number"],
        label_noise=setting["label_noise_ratio"],
        box_noise=setting["box_noise_scale"],
    )
    counts = tensors[f"{case}/gt_counts"].tolist()
    gt = (tensors[f"{case}/gt_{name}"].split(counts) for name in ("labels", "boxes"))
    sizes = {"size": (1, 1), "original_size": (1, 1), "image_id": 0}
    targets = [Target(*pair, **sizes) for pair in zip(*gt, strict=True)]
    replaced = tensors[f"{case}/rng_label_p"]
    classes = torch.zeros(len(replaced), dtype=torch.int64)
    classes[replaced < config.label_noise / 2] = tensors[f"{case}/rng_new_labels"]
    sign = 2.0 * tensors[f"{case}/rng_sign01"] - 1
    drawn = (replaced, classes, sign, tensors[f"{case}/rng_part"])
    queries = denoising.build_queries(
        targets,
        config,
        setting["num_classes"],
        lambda labels: F.embedding(labels, tensors["label_table"]),
        denoising.Draws(*(in_slots(numbers, counts) for numbers in drawn)),
    )
    assert queries.num_groups == setting["num_dn_group"]
    assert queries.content.shape[1] == setting["pad_size"]
    assert torch.equal(queries.content, tensors[f"{case}/input_query_label"])
    recorded = tensors[f"{case}/input_query_bbox"]
    torch.testing.assert_close(queries.box_logits, recorded, atol=1e-4, rtol=0)
    mask = denoising.attention_mask(
        queries.num_groups, queries.num_slots, setting["num_queries"], torch.device("cpu")
    )
    assert torch.equal(mask, tensors[f"{case}/attn_mask"])


def test_number_of_groups(meta):
    for row in meta["group_count_table"]:
        slots = max(row["gt_counts"])
        groups = denoising.count_groups(row["dn_number"], slots)
        assert (groups, 2 * groups * slots) == (row["num_groups"], row["pad_size"]), row


@pytest.mark.golden(scale=noise_scales)
def test_own_draws_have_the_recorded_statistics(meta, scale):
    statistics = meta["observed_statistics"][f"box_noise_scale_{scale}"]
    torch.manual_seed(0)
    shape, num_classes = (4, 50, 40), meta["config"]["num_classes"]
    side = 0.2 / max(1, scale)  # no corner meets the border
    draws = denoising.draw(shape, num_classes, torch.device("cpu"))
    boxes = torch.tensor([0.5, 0.5, side, side]).expand(*shape, 4)
    noisy = denoising.noisy_boxes(boxes, draws, scale)
    moved = torch.cat(
        [noisy[..., :2] - noisy[..., 2:] / 2, noisy[..., :2] + noisy[..., 2:] / 2], -1
    )
    corners = torch.tensor([0.5 - side / 2] * 2 + [0.5 + side / 2] * 2)
    shift = (moved - corners) / (side / 2 * scale)
    halves = {"positive": shift[:, ::2], "negative": shift[:, 1::2]}
    for half, values in halves.items():
        low, high, mean = statistics[f"{half}_abs_corner_shift_over_half_side_and_scale"]
        size = values.abs()
        assert (size.min(), size.max()) == pytest.approx((low, high), abs=2e-3)
        assert abs(size.mean() - mean) < 0.01
        assert abs((values > 0).float().mean() - 0.5) < 0.01
    labels = torch.randint(num_classes, shape)
    noise = next(iter(meta["cases"].values()))["label_noise_ratio"]
    changed = (denoising.noisy_labels(labels, draws, noise) != labels).float().mean()
    assert abs(changed - statistics["label_changed_fraction"]) < 0.02


def test_odds_of_the_federated_classes(meta):
    """Frequencies over 500 recorded draws, and the facts stated beside them."""
    example = meta["federated_sampling"]["example"]
    torch.manual_seed(0)
    drawer = FederatedClasses(example["num_sample_cats"], torch.tensor(example["weights"]) ** 2)
    chosen = drawer(torch.tensor(example["gt_classes"]), 4000).float()
    expected = torch.tensor(example["frequency_over_500"])
    # Three standard deviations of a frequency over 500 draws.
    torch.testing.assert_close(chosen.mean(dim=0), expected, atol=0.07, rtol=0)
    assert (chosen.sum(dim=1) == example["num_sample_cats"]).all()
