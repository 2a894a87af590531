"""Pre-training of the small CLIP: captions, regions of scenes, a loss that falls."""

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from richsem.minilvis import clip_training
from richsem.minilvis.clip_training import Captions, PretrainConfig, extract, train
from richsem.minilvis.glyphs import glyph_names, vocabulary
from richsem.models.miniclip import load_miniclip, mini_tokenizer

POODLE, DOG, GUITAR = "1F429", "1F415", "1F3B8"


# --- captions ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def captions():
    return Captions([POODLE, DOG, GUITAR])


def test_all_have_a_partner_and_a_second_glyph_of_the_same_name_is_no_negative(captions):
    assert all("dog" in glyph_names()[stem] for stem in (POODLE, DOG))
    labels, seen = torch.tensor([0, 1, 2, 2]), 0
    dog = mini_tokenizer()(["a dog."])[0]
    for seed in range(60):
        tokens, fits = captions.draw(labels, torch.Generator().manual_seed(seed))
        assert fits.shape == (4, len(tokens.unique(dim=0)))
        assert fits.any(0).all() and fits.any(1).all()
        for column in (tokens == dog).all(1).nonzero().flatten():
            assert fits[:, column].tolist() == [True, True, False, False]
            seen += 1
    assert seen
    # Captions are names in prompts.
    tokens, _ = captions.draw(torch.tensor([2] * 6), torch.Generator().manual_seed(0))
    prompts, names = clip_training.MINI_PROMPTS, glyph_names()[GUITAR]
    known = mini_tokenizer()([p.format(name) for p in prompts for name in names]).tolist()
    assert all(caption in known for caption in tokens.tolist())
    assert set(tokens.flatten().tolist()) <= set(captions.known_tokens.tolist())


# --- regions of scenes -------------------------------------------------------------------------

SCENES = PretrainConfig(seed=5, scenes=3, size=64)


def test_extraction_resumes_and_repeats_itself(monkeypatch, own_cache):
    here = contextlib.nullcontext(SimpleNamespace(map=map))  # no processes of their own
    monkeypatch.setattr("richsem.processes.worker_pool", lambda n: here)
    monkeypatch.setattr(clip_training, "_SHARD", 2)
    files = extract(SCENES)
    assert [path.is_file() for path in files] == [True, True]
    times, before, stored = files[0].stat(), files[1].read_bytes(), load_file(files[1])
    assert 0 < len(stored["label"]) <= 6
    assert stored["crop"].shape == stored["roi"].shape == (len(stored["label"]), 576, 4, 4)
    files[1].unlink()
    # Settings of the training have no part in it.
    assert extract(replace(SCENES, steps=(7,), batch=9, lr=(1e-4,))) == files
    assert files[1].read_bytes() == before and files[0].stat() == times


def test_cuts_are_those_the_teacher_pools(untrained):
    generator = torch.Generator().manual_seed(0)
    image = F.interpolate(torch.rand(1, 3, 9, 9, generator=generator), size=(128, 128))[0]
    image = (255 * image).to(torch.uint8)
    boxes = torch.tensor([[3.0, 5.0, 50.0, 60.0], [60.0, 20.0, 120.0, 90.0]])
    for mode, cut in clip_training._cuts(untrained, image, boxes).items():
        found, expected = untrained.pool(cut), untrained.regions(image, boxes, mode)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


# --- training ----------------------------------------------------------------------------------


@pytest.fixture
def few_glyphs(monkeypatch):
    """Four glyphs and their names: all of them take seconds to tokenise."""
    few = {stem: glyph_names()[stem] for stem in (POODLE, GUITAR, "1F34E", "1F697")}
    monkeypatch.setattr(clip_training, "glyph_names", lambda: few)


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """Random cuts of four glyphs: each glyph has a pattern, nearly the same in both modes."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(4, 576, 1, 1, generator=generator)
    rows = torch.arange(40) % 4
    cuts = [patterns[rows] + 0.3 * torch.randn(40, 576, 4, 4, generator=generator) for _ in "ab"]
    path = tmp_path_factory.mktemp("shards") / "000000.safetensors"
    save_file({"crop": cuts[0].half(), "roi": cuts[1].half(), "label": rows}, path)
    return path


def pretrained(shard, target, steps, **settings):
    """Report of a pre-training, whose weights go to `target`."""
    config = PretrainConfig(steps=steps, lr=(1.5e-3,) * len(steps), **settings)
    return train(config, [shard], target)


def test_a_teacher_that_lacks_rare_classes_sees_none_of_their_glyphs_and_is_trained_once(
    monkeypatch, own_cache
):
    stems = sorted(glyph_names())
    rare = [one for one in vocabulary("lvis") if one.frequency == "r"]
    data = {"label": torch.arange(len(stems)), "crop": torch.arange(len(stems))}
    for share in (0.0, 0.5, 1.0):
        seen = clip_training._seen(data, share)
        left = {stems[row] for row in seen["label"].tolist()}
        lost = [one for one in rare if not left & set(one.glyphs)]
        assert len(lost) == round(share * len(rare)) and torch.equal(seen["crop"], seen["label"])
        assert len(stems) - len(left) == sum(len(one.glyphs) for one in lost)
    made = []

    def pretrain(config, target):
        made.append(config)
        target.write_bytes(b"weights")

    monkeypatch.setattr(clip_training, "pretrain", pretrain)
    files = [clip_training.prepared(PretrainConfig(unseen=share)) for share in (0.5, 1.0, 0.5)]
    assert files[0] == files[2] != files[1]
    assert made == [PretrainConfig(unseen=0.5), PretrainConfig(unseen=1.0)]


def test_steps_reduce_the_loss_and_one_seed_gives_one_result(shard, few_glyphs, tmp_path):
    target, results = tmp_path / "mini.safetensors", []
    for seed in (1, 1, 2):  # with a batch larger than all there is
        report = pretrained(shard, target, (2,), seed=seed, batch=512)
        results.append((report, target.read_bytes()))
    assert results[0] == results[1] and results[0][1] != results[2][1]
    report = pretrained(shard, target, (25, 7), batch=512)
    assert report["loss"] < 0.9 * results[0][0]["loss"] and not load_miniclip(target).training
