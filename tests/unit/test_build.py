"""From a configuration to data, detector, criterion and teacher."""

from dataclasses import replace

import pytest
import torch
from tiny_dino import LINEAR
from toys import small_run, two_stage_run

from richsem.config import ConfigError
from richsem.data.drawn import extra_images
from richsem.data.features import FeatureConfig, FeatureSet
from richsem.data.reading import DataError
from richsem.minilvis import render
from richsem.recipes import dino_recipes
from richsem.structures import Supervision
from richsem.training.build import build, data_root, evaluation_samples, open_extra, open_split

pytestmark = pytest.mark.usefixtures("cache")


def without_text(root, *, drop=0.0, **options):
    config = small_run(root, **options)
    data = replace(config.data, extra=None, drop=drop)
    return replace(config, detector=replace(config.detector, **LINEAR), data=data)


@pytest.mark.parametrize("make", [small_run, two_stage_run])
def test_everything_of_richsem(root, make):
    setup = build(make(root))
    assert setup.config.detector.num_classes == setup.detector.config.num_classes == 3
    assert len(setup.main.dataset) == 6
    assert setup.main.dataset.supervision is Supervision.DETECTION
    assert setup.extra.dataset.supervision is Supervision.IMAGE_LABELS
    assert len(setup.extra.dataset) == 2  # the detector knows cats but no zebras
    assert set(setup.extra.dataset[0, 1].target.labels.tolist()) == {1}
    assert setup.fingerprints.keys() == {"train", "extra"}
    assert setup.teacher.zoom == 256 / 64
    assert setup.detector.text.isfinite().all()
    assert torch.equal(setup.teacher.text, setup.detector.text.cpu())
    assert setup.config.detector.scale == pytest.approx(setup.teacher.clip.scale)
    boxes = build(make(root, key="o365", supervision=Supervision.DETECTION)).extra.dataset
    assert boxes.supervision is Supervision.DETECTION
    labels = {label for i in range(6) for label in boxes[i, 1].target.labels.tolist()}
    assert labels == {0, 1, 2}  # found by their names


@pytest.mark.parametrize("recipe", ["baseline", "richsem", "detic", "pretraining", "focal_huge"])
def test_a_profile_that_does_not_exist_is_refused(recipe):
    with pytest.raises(ConfigError, match="no profile 'Demo'; there are smoke, demo, rehearsal"):
        getattr(dino_recipes, recipe)("Demo")


def test_a_baseline_needs_no_clip_and_follows_its_seed_and_its_annotations(root, monkeypatch):
    monkeypatch.setattr("richsem.training.build.FrozenClip", None)
    setup = build(without_text(root))
    assert setup.extra is None and setup.teacher is None
    configs = [without_text(root, seed=seed) for seed in (0, 0, 1)]
    one, same, other = (build(config).detector.decoder.content.weight for config in configs)
    assert torch.equal(one, same) and not torch.equal(one, other)
    whole, part = build(without_text(root)), build(without_text(root, drop=0.5))
    assert len(part.dataset.labels) < len(whole.dataset.labels)
    assert part.fingerprints != whole.fingerprints and part.identity != whole.identity
    names, identities = root / "names.txt", set()
    teacher = replace(whole.config.data.teacher, names=str(names))
    asked = replace(whole.config, data=replace(whole.config.data, teacher=teacher))
    for text in ("dog", "wolf", "wolf"):
        names.write_text(text)
        identities.add(replace(whole, config=asked).identity)
    assert len(identities) == 2


def test_features_and_soft_labels_are_cached(root, cache):
    config, views = small_run(root), FeatureConfig(views=2, batch_size=4)
    changing = config.detector.backbone
    detector = replace(config.detector, backbone=replace(changing, trainable=False))
    extra = replace(config.data.extra, features=views)
    data = replace(config.data, features=views, extra=extra)
    config = replace(config, detector=detector, data=data)
    setup = build(config)
    for source in (setup.main, setup.extra):
        assert isinstance(source.dataset, FeatureSet)
        sample = source.dataset[0, 0]
        assert sample.target.soft_labels.shape == (len(sample.target.labels), 3)
    folders = set(cache.glob("features-*"))
    build(config)
    val = open_split(config.data, "val")
    samples = evaluation_samples(val, config.data, setup.detector)
    assert isinstance(samples, FeatureSet)
    assert len(set(cache.glob("features-*")) - folders) == 1  # those of val
    pixels = evaluation_samples(val, config.data, None)[0, 0].image[None]
    expected = setup.detector.eval().backbone(pixels)[0][0]
    torch.testing.assert_close(samples[0, 0].features[0].float(), expected, atol=0.02, rtol=0.01)
    with pytest.raises(ConfigError, match=r"backbone\.trainable=false"):
        build(replace(config, detector=replace(detector, backbone=changing)))
    moving = replace(config, loss=replace(config.loss, teacher_boxes="pred"))
    with pytest.raises(ConfigError, match="cached features"):
        build(moving)


def test_the_embedded_benchmark_has_to_be_drawn(cache, monkeypatch):
    data = dino_recipes.baseline("smoke", seed=3).data
    with pytest.raises(DataError, match=r"not drawn .* data render.*render\.prepare"):
        data_root(data)
    drawn = []
    monkeypatch.setattr(render, "build_minilvis", drawn.append)
    render.prepare(data)
    assert drawn == [replace(data.benchmark, draw=0), data.benchmark]
    render.prepare(replace(data, key="o365"))  # is the same in every draw
    render.prepare(replace(data, root="data/real"))
    assert len(drawn) == 3
    render.prepare(dino_recipes.richsem("smoke", seed=3).data)
    assert drawn[-1] == extra_images(data.benchmark, 3)
    assert extra_images(data.benchmark, 0) == drawn[0]  # the first draw is one render


def test_a_draw_of_extra_images_shows_the_same_classes_in_other_pictures():
    config = dino_recipes.richsem("smoke", seed=1)
    render.prepare(config.data)
    categories = open_split(config.data, "train").categories
    for key in ("inet_lvis", "inet_unl", "cc_unl"):
        first, other = (
            open_extra(replace(config.data.extra, key=key, draw=draw), config.data, categories)
            for draw in (0, 1)
        )
        assert len(first) == len(other) and first.fingerprint != other.fingerprint
        names = [[(one.id, one.name) for one in own.categories] for own in (first, other)]
        assert names[0] == names[1] and first.labels == other.labels


def test_contradictions_are_named(root):
    config = small_run(root)
    wrong = replace(config, detector=replace(config.detector, num_classes=5))
    nowhere = replace(config, data=replace(config.data, root=""))
    # What Python lets one write.
    word = replace(config, data=replace(config.data, teacher_mode="rio"))
    told = {wrong: "is 5 but LVIS v1 train has 3", nowhere: r"set data\.root", word: "got 'rio'"}
    for bad, words in told.items():
        with pytest.raises(ConfigError, match=words):
            build(bad)
