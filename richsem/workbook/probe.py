"""Is scarcity what limits the rare classes? A linear probe on frozen features of true boxes.

The features are ImageNet's, so no class of the benchmark had a head start, and the probe is
trained to convergence, so training time cannot be the reason. If rare classes lose on the
long-tailed set and gain when extra images are added, the benchmark measures data, not schedules.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align
from tqdm import tqdm

from richsem.data.box_sets import BoxDataset
from richsem.data.image_sets import ImageSet
from richsem.models.miniclip import create_miniclip

_SIDE = 64  # pixels of a region for the backbone
_OBJECT = 36  # pixels of an object in an average scene: extra images are seen at that sharpness


@torch.inference_mode()
def box_features(dataset: BoxDataset) -> tuple[Tensor, Tensor]:
    """Frozen ImageNet features of every box, [A, 2304], and its label, [A]."""
    trunk = create_miniclip().visual.trunk
    features = []
    for index in tqdm(range(len(dataset)), desc=f"features of {dataset.name}", mininterval=2):
        boxes, _ = dataset.boxes_of(index)
        if len(boxes):
            pixels = _pixels(dataset.image(index), trunk)
            cuts = roi_align(pixels, [torch.from_numpy(boxes)], _SIDE, aligned=True)
            features.append(_pooled(trunk, cuts))
    return torch.cat(features), torch.from_numpy(dataset.labels)


@torch.inference_mode()
def image_features(images: ImageSet) -> tuple[Tensor, Tensor]:
    """The same features of object-centric images, one label each."""
    trunk = create_miniclip().visual.trunk
    features = []
    for start in tqdm(range(0, len(images), 64), desc="features of extra images", mininterval=2):
        batch = [images.image(i) for i in range(start, min(start + 64, len(images)))]
        small = [image.resize((_OBJECT, _OBJECT), Image.Resampling.BILINEAR) for image in batch]
        pixels = torch.cat([_pixels(image, trunk) for image in small])
        features.append(_pooled(trunk, F.interpolate(pixels, _SIDE, mode="bilinear")))
    return torch.cat(features), torch.tensor([labels[0] for labels in images.labels])


def _pixels(image: Image.Image, trunk: nn.Module) -> Tensor:
    mean, std = (torch.tensor(trunk.default_cfg[key])[:, None, None] for key in ("mean", "std"))
    return ((torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std)[None]


def _pooled(trunk: nn.Module, pixels: Tensor) -> Tensor:
    column = trunk.hypercolumn(pixels.contiguous(memory_format=torch.channels_last))
    return F.adaptive_avg_pool2d(column, 2).flatten(1)


def linear_probe(
    parts: Iterable[tuple[Tensor, Tensor]],
    test: tuple[Tensor, Tensor],
    groups: np.ndarray,
    *,
    seed: int = 0,
    steps: int = 1000,
) -> dict[str, float]:
    """Trains a linear classifier on `parts` and returns class-averaged test accuracy per group.

    The loss adds the log class frequencies to the logits (balanced softmax), so that a rare class
    is not lost to the prior alone; what remains is what its few examples cannot teach.

    Returns:
        Percent for "all", "r", "c", "f", and "train", the accuracy on the training set.
    """
    parts = list(parts)
    features, labels = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    mean, std = features.mean(0), features.std(0) + 1e-3
    train_x, test_x = (features - mean) / std, (test[0] - mean) / std
    counts = torch.bincount(labels, minlength=len(groups)).clamp_min(1)
    classifier = _fit(train_x, labels, torch.log(counts / counts.sum()), steps, seed)
    with torch.no_grad():
        right = (classifier(test_x).argmax(1) == test[1]).numpy()
        train = (classifier(train_x).argmax(1) == labels).float().mean().item()
    per_class = pd.Series(100.0 * right).groupby(test[1].numpy()).mean()
    of = {g: per_class[groups[per_class.index] == g].mean() for g in "rcf"}
    return {"all": per_class.mean(), **of, "train": 100 * train}


def _fit(x: Tensor, labels: Tensor, log_prior: Tensor, steps: int, seed: int) -> nn.Module:
    """As many steps for a small training set as for a large one: more data is not more training."""
    generator = torch.Generator().manual_seed(seed)
    classifier = nn.Linear(x.shape[1], len(log_prior))
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    optimiser = torch.optim.AdamW(classifier.parameters(), weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps + 1)
    for _ in range(steps):
        batch = torch.randint(len(x), (256,), generator=generator)
        loss = F.cross_entropy(classifier(x[batch]) + log_prior, labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return classifier
