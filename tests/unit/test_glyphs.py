"""One glyph as one object: same seed same pixels, every style, tight crops."""

import numpy as np
import pytest

from richsem.minilvis import glyphs
from richsem.minilvis.glyphs import STYLES, sample_look, vocabulary


def drawn(stem, seed, *, styles=STYLES, size=40.0):
    rng = np.random.default_rng(seed)
    look, pose = sample_look(rng, "animal", styles), glyphs.sample_pose(rng)
    return np.asarray(glyphs.draw_glyph(stem, look, pose, size))


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
