"""Extra images in which the size of the named thing and the number of others are chosen.

Like the portraits of INet-LVIS they are balanced over the classes, in all glyphs and styles. Where
the named thing is, is written down beside the pictures, for those who measure; no training sees it.
"""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from richsem import kept
from richsem.data.altered import StagedConfig
from richsem.data.drawn import drawn_folder
from richsem.minilvis.glyph_classes import GlyphClass, glyph_names, vocabulary
from richsem.minilvis.plans import detection_classes, stream
from richsem.minilvis.scenes import BACKGROUNDS, Rng, Thing, box_of, paint_scene
from richsem.paths import write_atomic

BOXES = "boxes.json"  # name of a picture -> box xyxy of the named thing, in pixels


def build_staged(config: StagedConfig) -> Path:
    """Draws what is missing and returns the folder: a folder of pictures for each class."""
    root = drawn_folder(config)
    if (root / BOXES).is_file():
        return root
    boxes = {}
    for named in detection_classes(config):
        (root / named.name).mkdir(parents=True, exist_ok=True)
        for number in range(config.images):
            name = f"{named.name}/{number:03d}.png"
            rng = stream(config, "staged", name)
            image, boxes[name] = _paint(config, named, rng)
            Image.fromarray(image).save(root / name)
            os.utime(root / name, ns=(kept.DRAWN_AT, kept.DRAWN_AT))
    write_atomic(root / BOXES, json.dumps(boxes))  # last: it marks the set as complete
    return root


def _paint(config: StagedConfig, named: GlyphClass, rng: Rng) -> tuple[np.ndarray, list[int]]:
    """A picture and the box of what is visible of its named thing, which is not hidden too much."""
    groups = {stem: c.group for c in vocabulary("lvis") for stem in c.glyphs}
    others = sorted(glyph_names().keys() - set(named.glyphs))
    scene = str(rng.choice([*BACKGROUNDS]))
    while True:
        chosen = [(str(rng.choice(named.glyphs)), named.group, 0)]
        for stem in map(str, rng.choice(others, config.others)):
            chosen.append((stem, groups.get(stem, "object"), -1))
        things = [
            Thing(stem=stem, group=group, label=label, side=config.scale * rng.uniform(0.55, 0.95))
            for stem, group, label in chosen
        ]
        image, painted = paint_scene(things, size=config.size, scene=scene, rng=rng)
        if painted:
            return image, list(box_of(painted[0].mask))
