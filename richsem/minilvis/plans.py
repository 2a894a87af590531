"""Which scenes make up each set of MiniLVIS: who appears, how often, in which glyphs and styles.

Scarcity is built here. A rare class of the detection set is seen in training in a few of its
glyphs and of the drawing styles only; the dev and val splits, and the extra sets, show all.
Everything is a pure function of the configuration.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from richsem.data.categories import clean_name
from richsem.data.drawn import MiniLvisConfig, StagedConfig
from richsem.minilvis.glyphs import STYLES, GlyphClass, glyph_names, vocabulary
from richsem.minilvis.scenes import BACKGROUNDS, Rng, Thing

Palette = tuple[tuple[str, ...], tuple[str, ...]]  # glyphs and styles that a class is shown in

# Where things are usually met; a quarter of the scenes ignores it.
_OUTDOOR_GROUPS = frozenset({"animal", "vehicle", "plant", "sport", "nature", "building", "person"})
_OUTDOOR_SCENES = ("outdoors", "outdoors", "rough", "room")
_INDOOR_SCENES = ("tabletop", "tabletop", "room", "wood", "cloth", "tiles")
_SCENES = tuple(BACKGROUNDS)


@dataclass(frozen=True, kw_only=True)
class SceneSpec:
    """One image to paint."""

    things: tuple[Thing, ...]  # from back to front; in a captioned scene labelled by their position
    scene: str  # one of `scenes.BACKGROUNDS`
    portrait: bool = False  # whether the only thing fills the image
    words: tuple[str, ...] = ()  # what a caption calls each thing; none for a scene without caption
    labels: tuple[int, ...] = ()  # of the image as a whole


def detection_classes(config: MiniLvisConfig | StagedConfig) -> tuple[GlyphClass, ...]:
    """The classes of the detection set in id order (ids are 1, 2, ... in this order)."""
    classes = vocabulary("lvis")
    if not config.classes_per_group:
        return classes
    kept = []
    for frequency in "rcf":
        kept += [c for c in classes if c.frequency == frequency][: config.classes_per_group]
    return tuple(c for c in classes if c in kept)


def stream(config: MiniLvisConfig | StagedConfig, *names: str | int) -> Rng:
    """An independent random stream for a set, a split or one image of it."""
    names = (*names, "draw", config.draw) if config.draw else names
    words = [n if isinstance(n, int) else int.from_bytes(n.encode(), "little") for n in names]
    return np.random.default_rng(np.random.SeedSequence([config.seed, *words]))


def plan_detection(config: MiniLvisConfig, split: str) -> list[SceneSpec]:
    """Scenes of the detection set: long-tailed in train, balanced in dev and val."""
    classes = detection_classes(config)
    rng = stream(config, "lvis", split)
    if split == "train":
        counts = _long_tail(config, classes)
        palette = _training_palette(config, classes)
        crowding = np.array([{"r": 0.08, "c": 0.12, "f": 0.2}[c.frequency] for c in classes])
    else:
        share = 1.0 if split == "val" else config.dev_fraction
        goal = {"r": config.rare_val, "c": config.other_val, "f": config.other_val}
        counts = np.array([max(2, round(share * goal[c.frequency])) for c in classes])
        palette = [(c.glyphs, STYLES) for c in classes]
        crowding = np.zeros(len(classes))
    return _pack(classes, counts, palette, crowding, _clutter(vocabulary("lvis")), rng)


def plan_boxes(config: MiniLvisConfig, name: str, split: str) -> list[SceneSpec]:
    """Scenes of a COCO-style set: `objects365`, `visual_genome` or `openimages`.

    The three tails differ: Objects365 is mildly, Visual Genome steeply (Zipf) and OpenImages
    log-uniformly skewed. Val has the same classes, each at least four times (smoke: once).
    """
    classes = vocabulary(name)
    rng = stream(config, name, split)
    total = config.objects365 if name == "objects365" else config.other
    images = total if split == "train" else total // 4
    rank = np.arange(1, len(classes) + 1, dtype=float)
    tail = {
        "objects365": rank**-0.35,
        "visual_genome": rank**-1.25,
        "openimages": np.exp(-4.0 * rank / len(classes)),
    }[name]
    if split != "train":
        tail = np.sqrt(tail)
    # How often a class is shown is the same in every draw, here and in `_long_tail`.
    share = stream(replace(config, draw=0), name).permutation(tail / tail.sum())
    least = min(2 if split == "train" else 4, max(1, images // 16))
    counts = np.maximum(least, np.round(share * images * 2.6)).astype(int)
    palette = [(c.glyphs, STYLES) for c in classes]
    return _pack(classes, counts, palette, np.full(len(classes), 0.12), _clutter(classes), rng)


def plan_portraits(config: MiniLvisConfig) -> list[SceneSpec]:
    """INet-LVIS: object-centric images, balanced over the classes, in all glyphs and styles."""
    classes = detection_classes(config)
    rng = stream(config, "imagenet_lvis")
    return [
        _portrait(rng, stem=_pick(rng, c.glyphs), group=c.group, label=index)
        for index, c in enumerate(classes)
        for _ in range(config.portraits)
    ]


def plan_unlabelled(config: MiniLvisConfig) -> list[SceneSpec]:
    """INet-Unl: object-centric images, half of detection classes and half of anything else."""
    classes = detection_classes(config)
    rng = stream(config, "imagenet_unl")
    others = _clutter(vocabulary("lvis"))
    specs = []
    for _ in range(config.unlabelled):
        if rng.random() < 0.5:
            glyph_class = classes[rng.integers(len(classes))]
            stem, group = _pick(rng, glyph_class.glyphs), glyph_class.group
        else:
            stem, group = others[rng.integers(len(others))]
        specs.append(_portrait(rng, stem=stem, group=group, label=-1))
    return specs


def plan_captioned(config: MiniLvisConfig) -> list[SceneSpec]:
    """CC3M: scenes of one to three things of the whole vocabulary and what a caption calls them."""
    classes = detection_classes(config)
    rng = stream(config, "cc3m", "plan")  # not ("cc3m",): numpy gives ("cc3m", 0) the same stream
    names = glyph_names()
    known = [(stem, c.group) for c in classes for stem in c.glyphs]
    others = _clutter(vocabulary("lvis"))
    specs = []
    for _ in range(config.captioned):
        pools = [known if rng.random() < 0.65 else others for _ in range(rng.integers(1, 4))]
        chosen = [pool[rng.integers(len(pool))] for pool in pools]
        things = tuple(
            Thing(stem=stem, group=group, label=i) for i, (stem, group) in enumerate(chosen)
        )
        words = tuple(_pick(rng, names[stem]) for stem, _ in chosen)
        specs.append(SceneSpec(things=things, scene=_pick(rng, _SCENES), words=words))
    return specs


def caption(rng: Rng, words: Sequence[str]) -> str:
    """Draws a caption that names each of `words`."""
    opening = _pick(rng, ("a picture of ", "we see ", "there is ", "", "a scene with "))
    link = _pick(rng, (" next to ", " and ", " with ", " near "))
    return opening + link.join(f"{'an' if w[0] in 'aeiou' else 'a'} {w}" for w in words)


def _long_tail(config: MiniLvisConfig, classes: Sequence[GlyphClass]) -> np.ndarray:
    """Training images per class: log-spaced inside each frequency group, in random order."""
    bounds = {"r": config.rare_images, "c": config.common_images, "f": config.frequent_images}
    rng = stream(replace(config, draw=0), "lvis", "tail")
    counts = np.zeros(len(classes), dtype=int)
    for frequency, (low, high) in bounds.items():
        members = [i for i, c in enumerate(classes) if c.frequency == frequency]
        spaced = np.geomspace(low, high, max(len(members), 2))[: len(members)]
        counts[members] = rng.permutation(np.round(spaced).astype(int))
    return counts


def _training_palette(config: MiniLvisConfig, classes: Sequence[GlyphClass]) -> list[Palette]:
    """Glyphs and styles that training shows of each class: a third for rare, all for frequent."""
    rng = stream(config, "lvis", "palette")
    glyph_share = {"r": 0.34, "c": 0.67, "f": 1.0}
    num_styles = {"r": 3, "c": 6, "f": len(STYLES)}
    palette = []
    for c in classes:
        num_glyphs = max(1, int(glyph_share[c.frequency] * len(c.glyphs)))
        glyphs = rng.permutation(c.glyphs)[:num_glyphs]
        styles = rng.permutation(STYLES)[: num_styles[c.frequency]]
        palette.append((tuple(map(str, glyphs)), tuple(map(str, styles))))
    return palette


def _pack(
    classes: Sequence[GlyphClass],
    counts: np.ndarray,
    palette: list[Palette],
    crowding: np.ndarray,
    clutter: list[tuple[str, str]],
    rng: Rng,
) -> list[SceneSpec]:
    """Deals `counts[c]` appearances of each class into scenes of one to five classes."""
    specs = []
    outdoors = np.array([c.group in _OUTDOOR_GROUPS for c in classes])
    for place, usual in ((outdoors, _OUTDOOR_SCENES), (~outdoors, _INDOOR_SCENES)):
        members = np.flatnonzero(place)
        deck = rng.permutation(np.repeat(members, counts[members]))
        for hand in _hands(deck, rng):
            things = [
                thing
                for index in hand
                for thing in _appearance(
                    rng, index, classes[index].group, palette[index], crowding[index]
                )
            ]
            for _ in range(rng.choice(4, p=[0.6, 0.25, 0.1, 0.05])):
                stem, group = clutter[rng.integers(len(clutter))]
                things.append(Thing(stem=stem, group=group))
            scene = _pick(rng, usual if rng.random() < 0.75 else _SCENES)
            specs.append(SceneSpec(things=tuple(things), scene=scene))
    return [specs[i] for i in rng.permutation(len(specs))]


def _appearance(rng: Rng, label: int, group: str, palette: Palette, crowding: float) -> list[Thing]:
    """One thing of a class or, with probability `crowding`, a crowd of two to five."""
    glyphs, styles = palette
    copies = 1 + (rng.geometric(0.5) if rng.random() < crowding else 0)
    stem, things = _pick(rng, glyphs), []
    for _ in range(min(copies, 5)):
        stem = stem if rng.random() < 0.6 else _pick(rng, glyphs)
        things.append(Thing(stem=stem, group=group, styles=styles, label=label))
    return things


def _hands(deck: np.ndarray, rng: Rng) -> Iterator[list[int]]:
    """Splits a shuffled deck into hands of one to five different classes."""
    waiting = list(deck[::-1])
    while waiting:
        wanted = int(rng.choice([1, 2, 3, 4, 5], p=[0.12, 0.28, 0.3, 0.2, 0.1]))
        hand: list[int] = []
        aside = []
        while waiting and len(hand) < wanted:
            card = int(waiting.pop())
            (aside if card in hand else hand).append(card)
        waiting.extend(aside)
        yield hand


def _clutter(classes: Sequence[GlyphClass]) -> list[tuple[str, str]]:
    """(glyph, group) of every named glyph that nobody would call one of `classes`."""
    own = {stem for c in classes for stem in c.glyphs}
    words = {c.words for c in classes} | {clean_name(s) for c in classes for s in c.synonyms}
    return [
        (stem, "object")
        for stem, names in sorted(glyph_names().items())
        if stem not in own and not words & {w for n in names for w in (n, n.split()[-1])}
    ]


def _portrait(rng: Rng, *, stem: str, group: str, label: int) -> SceneSpec:
    thing = Thing(stem=stem, group=group, label=label)
    scene = _pick(rng, _SCENES)
    labels = (label,) if label >= 0 else ()
    return SceneSpec(things=(thing,), scene=scene, portrait=True, labels=labels)


def _pick(rng: Rng, items: Sequence[str]) -> str:
    return items[rng.integers(len(items))]
