"""Composing a scene: a procedural background, objects with soft shadows, and what stays visible.

The caller says what is there (a `Thing` per object); it is painted back to front, so that occlusion
is exact: each object's mask is what the later ones leave of it.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from richsem.minilvis.glyphs import STYLES, draw_glyph, sample_look, sample_pose

Rng = np.random.Generator

_SOLID = 90  # alpha above which a pixel belongs to its object
_MIN_VISIBLE = 0.45  # of an object; one that is hidden more than that is left out


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What to draw: a glyph, the group that decides on its colours, and the styles allowed."""

    stem: str  # OpenMoji file stem
    group: str  # semantic group of its class ("animal", "vehicle", ...)
    styles: tuple[str, ...] = STYLES  # drawing styles to choose from
    label: int = -1  # of its class in the caller's list; negative for clutter that nobody labels
    side: float = 0.0  # as a part of the scene's; 0 leaves it to chance


class _Sprite(NamedTuple):
    thing: Thing
    image: Image.Image
    depth: float  # 0 far, 1 near
    corner: tuple[int, int] = (0, 0)  # x, y of the top left pixel
    mask: np.ndarray | None = None  # visible pixels [H, W]


@dataclass(frozen=True)
class Painted:
    """One labelled object of a finished scene."""

    label: int
    mask: np.ndarray  # its visible pixels [H, W] (bool)


def paint_scene(
    things: list[Thing], *, size: int, scene: str, rng: Rng, zoom: int = 1
) -> tuple[np.ndarray, list[Painted]]:
    """Paints things (from back to front; clutter has a negative label) on one of `BACKGROUNDS`.

    Returns the image [zoom * size, zoom * size, 3] uint8, the same scene at any `zoom` but for
    finer objects, and the labelled objects that remain visible.
    """
    horizon, canvas = BACKGROUNDS[scene](size, rng)
    if zoom > 1:  # the background is stretched: painted at another size it would be another one
        size *= zoom
        parts = [_resized(Image.fromarray(c), size, size) for c in np.moveaxis(canvas, -1, 0)]
        canvas = np.stack(parts, axis=-1)
    sprites = sorted(
        (_prepare(thing, size, len(things), horizon, rng) for thing in things),
        key=lambda s: s.depth,
    )
    kept = _visible(_arrange(sprites, size, horizon, rng), size)
    shadow = (rng.uniform(-0.25, 0.25), rng.uniform(0.02, 0.2), rng.uniform(0.25, 0.55))
    for placed in kept:
        _paint(canvas, placed.image, placed.corner, shadow)
    painted = [Painted(p.thing.label, p.mask) for p in kept if p.thing.label >= 0]
    return _photograph(canvas, rng), painted


def paint_portrait(thing: Thing, *, size: int, scene: str, rng: Rng) -> np.ndarray:
    """Paints an object-centric image [size, size, 3] uint8: one object fills most of it."""
    canvas, sprite, corner = _pose_for_portrait(thing, size, scene, rng)
    _paint(canvas, sprite, corner, (rng.uniform(-0.2, 0.2), 0.08, 0.4))
    return _photograph(canvas, rng)


def portrait_box(thing: Thing, *, size: int, scene: str, rng: Rng) -> np.ndarray:
    """Box xyxy (pixels, float32 [4]) of the object that `paint_portrait` paints with this `rng`."""
    _, sprite, corner = _pose_for_portrait(thing, size, scene, rng)
    inside = box_of(np.asarray(sprite.getchannel("A")) > _SOLID)
    return (np.tile(corner, 2) + inside).clip(0, size).astype(np.float32)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Box xyxy in pixels that just holds a mask [H, W], which must not be empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# --- objects ---------------------------------------------------------------------------------


def _sprite(thing: Thing, side: float, rng: Rng) -> Image.Image:
    look, pose = sample_look(rng, thing.group, thing.styles), sample_pose(rng)
    blur = rng.uniform(0.4, 1.0) if rng.random() < 0.12 else 0.0
    return draw_glyph(thing.stem, look, pose, side, blur=blur)


def _pose_for_portrait(
    thing: Thing, size: int, scene: str, rng: Rng
) -> tuple[np.ndarray, Image.Image, tuple[int, int]]:
    """Background, object and its top left corner: all of a portrait but shadow and camera."""
    _, canvas = BACKGROUNDS[scene](size, rng)
    sprite = _sprite(thing, rng.uniform(0.55, 0.95) * size, rng)
    room = np.array([size - sprite.width, size - sprite.height])
    corner = tuple((room * rng.uniform(0.3, 0.7, size=2)).astype(int))
    return canvas, sprite, corner


def _prepare(thing: Thing, size: int, crowd: int, horizon: float, rng: Rng) -> _Sprite:
    """Draws one object and proposes a place; nearer things are larger and lower."""
    side = size * float(np.clip(np.exp(rng.normal(np.log(0.31 - 0.014 * crowd), 0.36)), 0.11, 0.6))
    depth = rng.random()
    if horizon:
        side *= 0.65 + 0.6 * depth
    side = size * thing.side or side
    return _Sprite(thing, _sprite(thing, side, rng), depth)


def _place(
    sprite: Image.Image, depth: float, size: int, horizon: float, rng: Rng
) -> tuple[int, int]:
    """A top left corner: anywhere, or with its foot on the ground at the given depth."""
    ends = ((-0.08 * side, size - 0.92 * side) for side in (sprite.width, sprite.height))
    x, y = (int(rng.uniform(low, max(low, high))) for low, high in ends)
    foot = int((horizon + (1.0 - horizon) * (0.12 + 0.85 * depth)) * size)
    return (x, foot - sprite.height) if horizon and sprite.height < foot else (x, y)


def _arrange(sprites: list[_Sprite], size: int, horizon: float, rng: Rng) -> list[_Sprite]:
    """Finds each sprite a place: the least crowded of a few random ones."""
    taken, arranged = np.zeros((size, size), dtype=np.uint8), []
    for sprite in sprites:
        extent = (sprite.image.height, sprite.image.width)
        tries = [_place(sprite.image, sprite.depth, size, horizon, rng) for _ in range(5)]
        slices = [_overlap(taken.shape, extent, corner)[0] for corner in tries]
        # Every other pixel will do to compare places.
        best = min(range(5), key=lambda i: taken[slices[i]][::2, ::2].sum(dtype=np.int64))
        taken[slices[best]] += 1
        arranged.append(sprite._replace(corner=tries[best]))
    return arranged


def _visible(sprites: list[_Sprite], size: int) -> list[_Sprite]:
    """Drops objects hidden too much by nearer ones and finds the mask of the others."""
    kept, covered = [], np.zeros((size, size), dtype=bool)
    for placed in reversed(sprites):
        opaque, whole = _opaque(placed.image, placed.corner, size)
        mask = opaque & ~covered
        if whole and np.count_nonzero(mask) >= max(12, _MIN_VISIBLE * whole):
            kept.append(placed._replace(mask=mask))
            covered |= opaque
    return kept[::-1]


def _opaque(sprite: Image.Image, corner: tuple[int, int], size: int) -> tuple[np.ndarray, int]:
    """The sprite's pixels on the canvas and their number on and off it.

    Outlined drawings count with their inside: a box and a mask mean the thing, not its ink.
    """
    alpha = np.asarray(sprite.getchannel("A")) > _SOLID
    spread = np.logical_or.accumulate
    solid = spread(alpha, 0) & spread(alpha[::-1], 0)[::-1]
    solid &= spread(alpha, 1) & spread(alpha[:, ::-1], 1)[:, ::-1]
    canvas = np.zeros((size, size), dtype=bool)
    there, here = _overlap(canvas.shape, solid.shape, corner)
    canvas[there] = solid[here]
    return canvas, int(np.count_nonzero(solid))


def _paint(
    canvas: np.ndarray,
    sprite: Image.Image,
    corner: tuple[int, int],
    shadow: tuple[float, float, float],
) -> None:
    """Puts a soft shadow and the sprite on the canvas [H, W, 3] (float, 0..255), in place."""
    dx, dy, strength = shadow
    reach = max(2, sprite.height // 10)
    padded = Image.new("L", (sprite.width + 4 * reach, sprite.height + 4 * reach), 0)
    padded.paste(sprite.getchannel("A"), (2 * reach, 2 * reach))
    soft = np.asarray(padded.filter(ImageFilter.BoxBlur(reach)), dtype=np.float32)[..., None]
    x = int(corner[0] + dx * sprite.width) - 2 * reach
    y = int(corner[1] + dy * sprite.height) - 2 * reach
    there, here = _overlap(canvas.shape[:2], soft.shape[:2], (x, y))
    canvas[there] *= 1.0 - strength / 255 * soft[here]
    rgba = np.asarray(sprite, dtype=np.float32)
    there, here = _overlap(canvas.shape[:2], rgba.shape[:2], corner)
    alpha = rgba[here][..., 3:] / 255
    canvas[there] += (rgba[here][..., :3] - canvas[there]) * alpha


def _overlap(
    canvas: tuple[int, int], patch: tuple[int, int], corner: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices (rows, columns) of canvas and patch where a patch at `corner` (x, y) covers it."""
    there, here = [], []
    for length, extent, start in zip(canvas, patch, corner[::-1], strict=True):
        first, last = max(start, 0), max(min(start + extent, length), max(start, 0))
        there.append(slice(first, last))
        here.append(slice(first - start, last - start))
    return tuple(there), tuple(here)


def _photograph(canvas: np.ndarray, rng: Rng) -> np.ndarray:
    """The camera: white balance, exposure, a little vignette, sensor noise, now and then blur."""
    axis = np.linspace(-1, 1, canvas.shape[0], dtype=np.float32)
    vignette = 1 - rng.uniform(0, 0.12) * (axis[:, None] ** 2 + axis[None, :] ** 2)
    cast = rng.normal(1.0, 0.035, size=3).astype(np.float32) * np.float32(rng.uniform(0.85, 1.1))
    grain = rng.random(canvas.shape, dtype=np.float32)  # uniform: cheaper, and looks the same
    deviation = rng.uniform(0.5, 4.0)
    grain *= deviation * 12**0.5
    canvas *= vignette[..., None] * cast
    canvas += grain
    canvas += 0.5 - deviation * 3**0.5  # centres the grain; 0.5 because the cast below rounds down
    image = canvas.clip(0, 255, out=canvas).astype(np.uint8)
    if rng.random() < 0.1:
        blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 0.8)))
        image = np.asarray(blurred)
    return image


# --- backgrounds -----------------------------------------------------------------------------
# Each returns the horizon as a fraction of the height, or 0, and the canvas, float [H, W, 3].


def _noise(size: int, rng: Rng, cells: tuple[int, int], octaves: int = 3) -> np.ndarray:
    """Smooth noise [size, size] of roughly unit variance, from `cells` (rows, columns) upwards."""
    total = None
    for octave in range(octaves):
        rows, cols = (min(size, max(2, c * 2**octave)) for c in cells)
        grid = 0.6**octave * rng.standard_normal((rows, cols), dtype=np.float32)
        total = Image.fromarray(grid if total is None else _resized(total, cols, rows) + grid)
    return _resized(total, size, size)


def _resized(noise: Image.Image, width: int, height: int) -> np.ndarray:
    return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))


def _colour(rng: Rng, hues: tuple[float, float], saturations: tuple, values: tuple) -> np.ndarray:
    """A colour (3,) float 0..255 from ranges of hue (turns), saturation and value."""
    hue, saturation, value = rng.uniform(*hues), rng.uniform(*saturations), rng.uniform(*values)
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)


def _textured(base: np.ndarray, noise: np.ndarray, depth: float) -> np.ndarray:
    return base * (1 + depth * noise[..., None])


def _outdoors(size: int, rng: Rng) -> tuple[float, np.ndarray]:
    horizon = rng.uniform(0.25, 0.5)
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    skies = [
        ((0.53, 0.62), (0.2, 0.5), (0.75, 0.95)),
        ((0.03, 0.1), (0.15, 0.4), (0.8, 0.95)),
        ((0.55, 0.7), (0.0, 0.12), (0.65, 0.9)),
        ((0.6, 0.72), (0.4, 0.6), (0.15, 0.35)),
    ]
    top = _colour(rng, *skies[rng.choice(4, p=[0.5, 0.15, 0.25, 0.1])])
    bottom = top + (235 - top) * rng.uniform(0.2, 0.7)
    canvas = top + (bottom - top) * np.clip(y / horizon, 0, 1) + np.zeros((1, size, 1), np.float32)
    clouds = np.clip(_noise(size, rng, (3, 2)) - rng.uniform(0.2, 1.2), 0, 1.2)[..., None]
    canvas += (245 - canvas) * clouds * 0.5
    grounds = [
        ((0.2, 0.32), (0.25, 0.55), (0.3, 0.65)),
        ((0.08, 0.13), (0.15, 0.4), (0.6, 0.85)),
        ((0.0, 1.0), (0.0, 0.08), (0.3, 0.6)),
        ((0.55, 0.65), (0.0, 0.1), (0.85, 0.97)),
        ((0.5, 0.6), (0.3, 0.5), (0.4, 0.7)),
        ((0.05, 0.09), (0.3, 0.5), (0.3, 0.5)),
    ]
    base = _colour(rng, *grounds[rng.choice(6, p=[0.34, 0.18, 0.2, 0.08, 0.1, 0.1])])
    if rng.random() < 0.6:  # hills or trees far away
        ridge = horizon - 0.12 * np.clip(_noise(size, rng, (2, rng.integers(2, 8)))[0], 0, 2)
        hill = _colour(rng, (0.25, 0.6), (0.1, 0.35), (0.35, 0.7))
        far = (y[..., 0] > ridge[None])[..., None]
        canvas = np.where(far, hill * (1 + 0.06 * _noise(size, rng, (8, 8), 2)[..., None]), canvas)
    ground = _textured(base, _noise(size, rng, (12, 4)), rng.uniform(0.04, 0.12))
    ground *= 0.8 + 0.3 * y
    return horizon, np.where(y > horizon, ground, canvas).astype(np.float32)


def _wood(size: int, rng: Rng) -> np.ndarray:
    base = _colour(rng, (0.05, 0.1), (0.25, 0.6), (0.35, 0.8))
    planks = rng.integers(2, 6)
    grain = _noise(size, rng, (size // 3, 2), 2) * 0.07
    canvas = _textured(base, grain, 1.0)
    rows = np.arange(size) * planks // size
    canvas *= (1 + rng.normal(0, 0.06, size=planks).astype(np.float32))[rows][:, None, None]
    seam = np.diff(rows, prepend=0) > 0
    canvas[seam] *= 0.72
    return canvas if rng.random() < 0.6 else canvas.transpose(1, 0, 2).copy()


def _tabletop(size: int, rng: Rng) -> tuple[float, np.ndarray]:
    horizon = rng.uniform(0.18, 0.4)
    edge = int(horizon * size)
    canvas = _wall(size, rng)
    table = _wood(size, rng) if rng.random() < 0.6 else _cloth(size, rng)
    canvas[edge:] = table[edge:]
    canvas[edge : edge + max(1, size // 64)] *= 0.75
    return horizon, canvas


def _room(size: int, rng: Rng) -> tuple[float, np.ndarray]:
    horizon = rng.uniform(0.45, 0.65)
    edge = int(horizon * size)
    canvas = _wall(size, rng)
    floor = _wood(size, rng) if rng.random() < 0.5 else _tiles(size, rng)
    canvas[edge:] = floor[edge:]
    skirting = max(2, size // 40)
    canvas[edge - skirting : edge] = _colour(rng, (0.05, 0.15), (0.0, 0.15), (0.7, 0.95))
    x = np.linspace(0, 1, size, dtype=np.float32)
    canvas *= (0.8 + 0.25 * np.exp(-(((x - rng.random()) / 0.35) ** 2)))[None, :, None]
    return horizon, canvas


def _wall(size: int, rng: Rng) -> np.ndarray:
    base = _colour(rng, (0.0, 1.0), (0.03, 0.28), (0.5, 0.85))
    canvas = _textured(base, _noise(size, rng, (3, 3)), 0.03)
    if rng.random() < 0.35:  # striped paper
        period = rng.uniform(6, 20) * size / 128
        stripes = np.sin(np.arange(size) * 2 * np.pi / period) > rng.uniform(-0.3, 0.6)
        canvas *= np.where(stripes, 1.0, rng.uniform(0.86, 0.96)).astype(np.float32)[None, :, None]
    return canvas


def _tiles(size: int, rng: Rng) -> np.ndarray:
    base = _colour(rng, (0.0, 1.0), (0.02, 0.25), (0.5, 0.9))
    side = max(4, int(rng.uniform(0.12, 0.3) * size))
    index = np.arange(size) // side
    tone = 1 + rng.normal(0, 0.05, size=(index[-1] + 1, index[-1] + 1)).astype(np.float32)
    if rng.random() < 0.4:
        tone[(np.indices(tone.shape).sum(0) % 2) == 0] *= rng.uniform(0.6, 0.85)
    canvas = base * tone[index][:, index][..., None]
    joint = np.arange(size) % side == 0
    canvas[joint] *= 0.85
    canvas[:, joint] *= 0.85
    return canvas + 4 * _noise(size, rng, (16, 16), 2)[..., None]


def _cloth(size: int, rng: Rng) -> np.ndarray:
    base = _colour(rng, (0.0, 1.0), (0.05, 0.4), (0.45, 0.9))
    canvas = _textured(base, _noise(size, rng, (3, 3)), 0.07)
    if rng.random() < 0.5:  # checked
        period = rng.uniform(8, 26) * size / 128
        wave = (np.sin(np.arange(size) * 2 * np.pi / period) > 0).astype(np.float32)
        canvas *= (
            1 - rng.uniform(0.05, 0.2) * (wave[:, None] + wave[None]).astype(np.float32)[..., None]
        )
    return canvas


def _rough(size: int, rng: Rng) -> np.ndarray:
    """Sand, concrete, lawn or carpet seen from above."""
    kinds = [
        ((0.07, 0.13), (0.1, 0.4), (0.5, 0.85)),
        ((0.0, 1.0), (0.0, 0.07), (0.35, 0.75)),
        ((0.2, 0.33), (0.25, 0.5), (0.3, 0.6)),
        ((0.0, 1.0), (0.1, 0.35), (0.25, 0.6)),
    ]
    base = _colour(rng, *kinds[rng.integers(4)])
    cells = int(rng.choice([4, 10, 24]))
    return _textured(base, _noise(size, rng, (cells, cells)), rng.uniform(0.04, 0.13))


BACKGROUNDS: dict[str, Callable[[int, Rng], tuple[float, np.ndarray]]] = {
    "outdoors": _outdoors,
    "room": _room,
    "tabletop": _tabletop,
    "wood": lambda size, rng: (0.0, _wood(size, rng)),
    "cloth": lambda size, rng: (0.0, _cloth(size, rng)),
    "tiles": lambda size, rng: (0.0, _tiles(size, rng)),
    "rough": lambda size, rng: (0.0, _rough(size, rng)),
}
