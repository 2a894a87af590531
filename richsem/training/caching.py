"""Features of a frozen backbone and the teacher's soft labels, computed once per set.

Where the teacher's trunk is the detector's backbone (the embedded benchmark: both are the same
frozen EfficientNet-Lite0), one pass over an image gives both.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from richsem.config import to_json
from richsem.data.features import FeatureConfig, Maps, cached_features
from richsem.data.samples import TrainingSet
from richsem.models.backbones import Backbone
from richsem.models.clip import FrozenClip, digest
from richsem.structures import Batch
from richsem.training.predict import evaluating
from richsem.training.run_config import Detector
from richsem.training.teacher import Teacher


def with_cached_features(
    samples: TrainingSet, detector: Detector, config: FeatureConfig, teacher: Teacher | None = None
) -> TrainingSet:
    """The same samples as features of the detector's backbone, with soft labels by the teacher."""
    backbone = detector.backbone
    device = next(backbone.parameters()).device
    stages = shared_stages(backbone, teacher.clip) if teacher else []

    def look(batch: Batch) -> tuple[Batch, Maps]:
        batch = batch.to(device)
        if stages and teacher.sees_as_it_is(batch):
            with recorded(stages) as calls:
                return teacher(batch), tuple(calls[stage][1] for stage in stages)
        labelled = teacher(batch) if teacher else batch
        return labelled, backbone.look(batch.images, batch.padding)

    # The weights speak for themselves; where they came from does not matter. A pyramid that is made
    # from kept maps is trained.
    state = {n: t for n, t in backbone.state_dict().items() if not n.startswith("pyramid.")}
    key = to_json(replace(backbone.config, weights="")) + digest(state) + "\n"
    if teacher:
        text = digest({"text": teacher.text})
        key += f"{teacher.clip.fingerprint} {text} {teacher.mode} {teacher.zoom}"
    with evaluating(backbone):
        return cached_features(samples, look, key, config)


def shared_stages(backbone: Backbone, clip: FrozenClip) -> list[nn.Module]:
    """The modules of CLIP's trunk whose outputs are the backbone's maps; none if they differ.

    They are the same if every weight is, and what they do to pixels before.
    """
    body = getattr(getattr(clip.model.visual, "trunk", None), "body", None)
    if body is None or backbone.config.trainable or backbone.config.output_norm:
        return []
    own, other = backbone.body.state_dict(), body.state_dict()
    same = own.keys() == other.keys() and all(torch.equal(own[n], other[n]) for n in own)
    statistics = torch.equal(backbone.mean, clip.mean) and torch.equal(backbone.std, clip.std)
    if not same or not statistics:
        return []
    return [body.get_submodule(name) for name in backbone.body.feature_info.module_name()]


@contextlib.contextmanager
def recorded(modules: list[nn.Module]) -> Iterator[dict[nn.Module, tuple]]:
    """Arguments and result of the last call of each of these modules meanwhile."""
    calls: dict[nn.Module, tuple] = {}
    with contextlib.ExitStack() as hooks:
        for module in modules:
            note = module.register_forward_hook(lambda own, *call: calls.update({own: call}))
            hooks.enter_context(note)
        yield calls
