"""Pre-training of the small CLIP: captions, regions of scenes, a loss that falls."""

import contextlib

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from richsem.minilvis import clip_training
from richsem.minilvis.clip_training import Captions, PretrainConfig, extract, train
from richsem.minilvis.glyph_classes import glyph_names
from richsem.models.miniclip import load_miniclip, mini_tokenizer

POODLE, DOG, GUITAR = "1F429", "1F415", "1F3B8"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


# --- captions ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def captions():
    return Captions([POODLE, DOG, GUITAR])


def test_a_second_glyph_of_the_same_name_is_no_negative(captions):
    assert "dog" in glyph_names()[POODLE]
    assert "dog" in glyph_names()[DOG]
    labels = torch.tensor([0, 1, 2])
    dog, seen = mini_tokenizer()(["a dog."])[0], 0
    for seed in range(60):
        tokens, fits = captions.draw(labels, torch.Generator().manual_seed(seed))
        for column, caption in enumerate(tokens):
            if torch.equal(caption, dog):
                assert fits[:, column].tolist() == [True, True, False]
                seen += 1
    assert seen


def test_every_region_and_every_caption_has_a_partner(captions):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (8,), generator=generator)
        tokens, fits = captions.draw(labels, generator)
        assert fits.shape == (8, len(tokens))
        assert fits.any(0).all()
        assert fits.any(1).all()
        assert len(tokens.unique(dim=0)) == len(tokens)


def test_captions_are_names_in_prompts(captions):
    tokens, _ = captions.draw(torch.tensor([2] * 6), torch.Generator().manual_seed(0))
    words = [name for name in glyph_names()[GUITAR]]
    possible = [prompt.format(name) for prompt in clip_training.MINI_PROMPTS for name in words]
    known = mini_tokenizer()(possible).tolist()
    assert all(caption in known for caption in tokens.tolist())
    assert set(tokens.flatten().tolist()) <= set(captions.known_tokens.tolist())


# --- regions of scenes -------------------------------------------------------------------------

SCENES = PretrainConfig(seed=5, scenes=3, size=64)


class InlinePool:
    """Does the work in this process and counts its shards."""

    shards = 0

    def map(self, function, items):
        for item in items:
            self.shards += 1
            yield function(item)


@pytest.fixture
def inline(monkeypatch, tmp_path):
    pool = InlinePool()
    monkeypatch.setattr("richsem.processes.worker_pool", lambda n: contextlib.nullcontext(pool))
    monkeypatch.setattr("richsem.paths.CACHE", tmp_path)
    monkeypatch.setattr(clip_training, "_SHARD", 2)
    return pool


def test_extraction_resumes_and_repeats_itself(inline):
    files = extract(SCENES)
    assert [path.is_file() for path in files] == [True, True]
    assert inline.shards == 2
    stored = load_file(files[1])
    number = len(stored["label"])
    assert stored["crop"].shape == stored["roi"].shape == (number, 576, 4, 4)
    assert 0 < number <= 6
    before = files[1].read_bytes()
    files[1].unlink()
    assert extract(SCENES) == files
    assert inline.shards == 3
    assert files[1].read_bytes() == before


def test_training_settings_share_the_regions(inline):
    first = extract(PretrainConfig(seed=5, scenes=1, size=64))
    other = PretrainConfig(seed=5, scenes=1, size=64, steps=(7,), batch=9, lr=(1e-4,))
    assert extract(other) == first
    assert inline.shards == 1


def test_cuts_are_those_the_teacher_pools(untrained):
    generator = torch.Generator().manual_seed(0)
    image = F.interpolate(torch.rand(1, 3, 9, 9, generator=generator), size=(128, 128))[0]
    image = (255 * image).to(torch.uint8)
    boxes = torch.tensor([[3.0, 5.0, 50.0, 60.0], [60.0, 20.0, 120.0, 90.0]])
    trunk = untrained.model.visual.trunk
    for mode, cut in clip_training._cuts(trunk, image, boxes).items():
        features = untrained.pool(trunk.norm(cut))
        expected = untrained.regions(image, boxes, mode)
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-3)


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


def test_a_few_steps_reduce_the_loss(shard, few_glyphs, tmp_path):
    losses = [
        train(
            PretrainConfig(steps=steps, batch=16, lr=(1.5e-3,) * len(steps)),
            [shard],
            tmp_path / "mini.safetensors",
        )["loss"]
        for steps in ((2,), (25, 7))
    ]
    assert losses[1] < 0.9 * losses[0]
    assert not load_miniclip(tmp_path / "mini.safetensors").training


def test_one_seed_gives_one_result(shard, few_glyphs, tmp_path):
    """Also with a batch larger than all there is."""
    results = []
    for run, seed in enumerate((1, 1, 2)):
        target = tmp_path / f"{run}.safetensors"
        report = train(
            PretrainConfig(seed=seed, steps=(2,), lr=(1e-3,), batch=512), [shard], target
        )
        results.append((report, target.read_bytes()))
    assert results[0] == results[1]
    assert results[0][1] != results[2][1]
