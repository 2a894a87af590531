"""One glyph as one object: same seed same pixels, every style, tight crops."""

import re

import numpy as np
import pytest

from richsem.minilvis import glyphs
from richsem.minilvis.glyph_classes import vocabulary
from richsem.minilvis.glyphs import STYLES, Look, read_glyph, restyle, sample_look

POODLE, CLOCK = "1F429", "1F557"


def drawn(stem, seed, *, styles=STYLES, size=40.0, blur=0.0):
    rng = np.random.default_rng(seed)
    look, pose = sample_look(rng, "animal", styles), glyphs.sample_pose(rng)
    return np.asarray(glyphs.draw_glyph(stem, look, pose, size, blur=blur))


@pytest.mark.parametrize("style", STYLES)
def test_every_style_draws_every_class(style):
    for seed, item in enumerate(vocabulary("lvis")[::4]):
        alpha = drawn(item.glyphs[-1], seed, styles=(style,), size=30)[..., 3]
        assert (alpha > 90).mean() > 0.05, item.name


def test_the_crop_is_tight_and_not_clipped():
    for seed, item in enumerate(vocabulary("lvis")):
        alpha = drawn(item.glyphs[0], seed, size=40)[..., 3] > 40
        edges = (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1])
        assert all(edge.any() for edge in edges), item.name
        assert max(alpha.shape) < 2 * 40, item.name


def test_size_is_in_pixels_and_blur_softens():
    small, large = (np.array(drawn(POODLE, 3, size=size).shape[:2]) for size in (20, 80))
    assert large == pytest.approx(4 * small, abs=8)
    sharp, soft = (drawn(POODLE, 4, blur=blur)[..., 3] for blur in (0.0, 2.0))
    assert ((soft > 0) & (soft < 255)).mean() > ((sharp > 0) & (sharp < 255)).mean()


def test_lines_without_outline_are_faint_but_there():
    look = sample_look(np.random.default_rng(0), "object", ("flat",))
    assert 0 < look.faint <= 0.5
    assert sample_look(np.random.default_rng(0), "object", ("natural",)).faint == 1.0
    hands = re.findall(r'stroke="(#\w+)"', restyle(read_glyph(CLOCK), look))
    assert {len(color) for color in hands} == {9}  # with opacity


def test_restyle_leaves_no_original_black_and_scales_lines():
    svg, black, width = read_glyph(POODLE), r'stroke="#000(000)?"', r'stroke-width="([\d.]+)'
    new = restyle(svg, Look(style="natural", ink=(0.2, 0.1, 0.1), outline=2.0))
    assert re.search(black, svg) and not re.search(black, new)
    assert float(re.search(width, new)[1]) == pytest.approx(2 * float(re.search(width, svg)[1]))
    hollow = restyle(svg, Look(style="sketch", hollow=True))
    assert set(re.findall(r'fill="(.*?)"', hollow)) == {"none"}


def test_styles_come_in_their_proportions_and_animals_keep_their_colours():
    rng = np.random.default_rng(0)
    counts = [sample_look(rng, "animal").style for _ in range(3000)]
    share = [counts.count(style) / len(counts) for style in STYLES]
    assert share == pytest.approx(list(glyphs.STYLE_WEIGHTS), abs=0.03)
    assert {sample_look(rng, "food", ("ink", "flat")).style for _ in range(50)} == {"ink", "flat"}
    # Animals keep their colours and things do not.
    groups = ("animal", "tool")
    animal, tool = (np.abs([sample_look(rng, g).hue for _ in range(300)]) for g in groups)
    assert animal.max() < 0.15 and (tool > 0.15).mean() > 0.2
