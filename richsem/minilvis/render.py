"""MiniLVIS, the embedded benchmark: renders every set once into the cache and describes it.

`build_minilvis` paints in shards on all cores. A finished shard is never painted again, so an
interrupted run resumes; the same configuration gives the same bytes.
"""

import functools
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import contourpy
import numpy as np
from PIL import Image

from richsem import kept, processes, shards
from richsem.config import read_kept, to_dict
from richsem.data.drawn import LONG_TAILED, MiniLvisConfig, StagedConfig, drawn_folder, extra_images
from richsem.minilvis import plans, scenes
from richsem.minilvis.files import annotation_files
from richsem.minilvis.glyphs import GlyphClass, glyph_names, vocabulary
from richsem.minilvis.plans import SceneSpec
from richsem.minilvis.scenes import Rng
from richsem.paths import write_atomic

if TYPE_CHECKING:
    from richsem.training.run_config import TrainingDataConfig

_SHARD = 100  # images per resumable unit
_JPEG_QUALITY = 90
# Levels of 255 that differ in a sixteenth of the side where an object moved; grain makes 10 to 40.
_OTHER_PLACE = 50


class RenderError(ValueError):
    """The benchmark could not be rendered; the message says where and what to do."""


@dataclass(frozen=True, kw_only=True)
class _PaintShard(shards.Shard):
    """Some images of one folder."""

    folder: str
    images: Path  # where they lie
    specs: list[SceneSpec]

    @property
    def is_complete(self) -> bool:
        """Whether its record and all its images are there."""
        return super().is_complete and all(self.file(index).is_file() for index in self.items)

    def file(self, index: int) -> Path:
        """The picture of an item; records of annotations count from 1."""
        return self.images / f"{index + 1:012d}.jpg"


def build_minilvis(config: MiniLvisConfig, *, workers: int | None = None) -> Path:
    """Renders what is missing of MiniLVIS and returns its folder (`annotations/`, `images/`).

    By default one process per core works. A `RenderError` says that the cache cannot be written, a
    worker failed, or the folder holds something else; finished shards are kept and the next call
    goes on from them.
    """
    root = drawn_folder(config)
    if is_complete(config, root):
        return root
    try:
        root.mkdir(parents=True, exist_ok=True)
        pieces = [_pieces(root, *folder) for folder in planned(config).items()]
        pieces = list(chain.from_iterable(pieces))
        _describe(config, root, _painted(config, pieces, workers or processes.own_cores()))
    except OSError as error:
        raise RenderError(_cannot_write(root, error)) from error
    return root


def prepare(data: "TrainingDataConfig") -> None:
    """Draws what a run on the embedded benchmark needs, and trains its teacher, if need be."""
    if data.teacher_training:
        from richsem.minilvis import clip_training  # with torch, which drawing can do without

        clip_training.prepared(data.teacher_training)
    if data.extra and data.extra.staged:
        build_staged(data.extra.staged)
    if data.root or data.benchmark is None:
        return
    build_minilvis(replace(data.benchmark, draw=0))
    if data.key in LONG_TAILED:
        build_minilvis(data.benchmark)
    if data.extra and data.extra.draw:
        build_minilvis(extra_images(data.benchmark, data.extra.draw))


def other_renders(config: MiniLvisConfig) -> list[Path]:
    """Renders of the same configuration by code that drew other pictures; nothing needs them."""
    own = drawn_folder(config)
    same = own.parent.glob(f"{own.name.rpartition('-')[0]}-*")
    return sorted(path for path in same if path != own)


def drawn_larger(config: MiniLvisConfig, split: str, index: int, image: Image.Image) -> Image.Image:
    """Scene `index` of the detection set painted again, twice as large, for people to see.

    At another size an object may find another place. Where the new picture shows that, it is
    `image` itself, the scene as it was drawn, stretched.
    """
    larger = _larger(config, split, index)
    coarse = [one.resize((16, 16), Image.Resampling.BOX) for one in (larger, image)]
    off = np.abs(np.subtract(*(np.asarray(one, dtype=int) for one in coarse))).max()
    return larger if off < _OTHER_PLACE else image.resize(larger.size, Image.Resampling.BICUBIC)


@functools.lru_cache(maxsize=32)  # explorers ask for the same one move by move
def _larger(config: MiniLvisConfig, split: str, index: int) -> Image.Image:
    spec, rng = _scenes(config, split)[index], plans.stream(config, f"lvis/{split}", index)
    how = {"size": config.size, "scene": spec.scene, "zoom": 2}
    return Image.fromarray(scenes.paint_scene(list(spec.things), rng=rng, **how)[0])


_scenes = functools.cache(plans.plan_detection)


def is_complete(config: MiniLvisConfig, root: Path) -> bool:
    """Whether all is there; a `RenderError` says that the folder holds something else."""
    path = root / "manifest.json"
    if not path.is_file():
        return False
    try:
        manifest = json.loads(path.read_bytes())
        stored = read_kept(MiniLvisConfig, manifest["config"], path)
        files = manifest["annotations"]
        counts = {folder: images["count"] for folder, images in manifest["images"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        stored, files, counts = None, (), {}
    if stored != config:
        raise RenderError(f"{path} does not belong to its folder's configuration. Delete {root}.")
    images = all(len([*(root / "images" / f).glob("*.jpg")]) == n for f, n in counts.items())
    return images and all((root / "annotations" / name).is_file() for name in files)


def changed(root: Path) -> Iterator[Path]:
    """Folders of pictures of a complete render that are not as they were drawn."""
    for name, known in json.loads((root / "manifest.json").read_bytes())["images"].items():
        files = sorted((root / "images" / name).glob("*.jpg"))
        sums = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        if _sum_of(sums) != known.get("sha256"):
            yield root / "images" / name


def _sum_of(sums: Iterable[str]) -> str:
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def _describe(config: MiniLvisConfig, root: Path, records: dict[str, list[dict]]) -> None:
    """Writes the annotation files and, last, the manifest that marks the render as complete."""
    sums = {}
    for name, content in annotation_files(config, records).items():
        data = json.dumps(content, separators=(",", ":")).encode()
        write_atomic(root / "annotations" / name, data)
        sums[name] = hashlib.sha256(data).hexdigest()
    images = {
        folder: {"count": len(rows), "sha256": _sum_of(row["sha256"] for row in rows)}
        for folder, rows in records.items()
    }
    manifest = {"config": to_dict(config), "annotations": sums, "images": images}
    write_atomic(root / "manifest.json", json.dumps(manifest, indent=1).encode())


def _cannot_write(where: Path | str, error: OSError) -> str:
    return (
        f"cannot write {error.filename or where}: {error.strerror or error}. A full render takes "
        "about 300 MB; free some space or set RICHSEM_CACHE to a folder that can be written. "
        "Finished shards are kept."
    )


# --- painting ----------------------------------------------------------------------------------


def planned(config: MiniLvisConfig) -> dict[str, list[SceneSpec]]:
    """The scenes of each folder of images; a draw has those that it draws anew."""
    plan = {
        f"lvis/{split}": plans.plan_detection(config, split) for split in ("train", "dev", "val")
    }
    for name, split in product(("objects365", "visual_genome", "openimages"), ("train", "val")):
        plan[f"{name}/{split}"] = plans.plan_boxes(config, name, split)
    plan["imagenet_lvis"] = plans.plan_portraits(config)
    plan["imagenet_unl"] = plans.plan_unlabelled(config)
    plan["cc3m"] = plans.plan_captioned(config)
    drawn = (f for f in plan if not config.draw or f.removesuffix("/train") in config.anew)
    return {folder: plan[folder] for folder in drawn}


def _pieces(root: Path, folder: str, specs: list[SceneSpec]) -> list[_PaintShard]:
    cut = shards.cut(root / "shards" / folder, len(specs), _SHARD, suffix=".json")
    own = {"folder": folder, "images": root / "images" / folder}
    return [_PaintShard(**vars(s), **own, specs=[specs[i] for i in s.items]) for s in cut]


def _painted(
    config: MiniLvisConfig, pieces: list[_PaintShard], workers: int
) -> dict[str, list[dict[str, Any]]]:
    """Paints what is not there yet; returns the records of each folder's images."""
    paint = partial(_paint_shard, config)
    left = sum(not piece.is_complete for piece in pieces)
    try:
        with processes.worker_pool(max(1, min(workers, left))) as pool:
            words = {"title": "rendering MiniLVIS", "unit": "image", "pool": pool}
            read = shards.made(pieces, paint, lambda p: json.loads(p.path.read_bytes()), **words)
    except KeyboardInterrupt:
        print("stopped; finished shards are kept for the next run", file=sys.stderr)
        raise
    except BrokenProcessPool as error:
        raise RenderError(
            "a worker process ended unexpectedly. Was memory short (then pass fewer workers), or "
            'is this a script without `if __name__ == "__main__":` around its work? Finished '
            "shards are kept."
        ) from error
    records: dict[str, list] = {}
    for piece, rows in zip(pieces, read, strict=True):
        records.setdefault(piece.folder, []).extend(rows)
    return records


def _paint_shard(config: MiniLvisConfig, piece: _PaintShard) -> None:
    """Paints one shard in a worker; its record is written last, so it is all or nothing."""
    rows = []
    for index, spec in zip(piece.items, piece.specs, strict=True):
        target = piece.file(index)
        try:
            rows.append(_paint_file(config, piece.folder, index, spec, target))
        except OSError as error:
            raise RenderError(_cannot_write(target, error)) from error
        except Exception as error:
            raise RenderError(f"painting {target}: {type(error).__name__}: {error}") from error
    write_atomic(piece.path, json.dumps(rows, separators=(",", ":")).encode())


def _paint_file(
    config: MiniLvisConfig, folder: str, index: int, spec: SceneSpec, target: Path
) -> dict[str, Any]:
    rng = plans.stream(config, folder, index)
    image, painted = _paint(config, spec, rng)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    write_atomic(target, buffer.getvalue())
    os.utime(target, ns=(kept.DRAWN_AT, kept.DRAWN_AT))  # equal drawings are equal files
    record = {
        "file": target.name,
        "side": image.shape[0],
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "labels": list(spec.labels),
        "objects": [],
        "caption": "",
    }
    if spec.words:
        seen = [spec.words[p.label] for p in painted]
        return record | {"caption": plans.caption(rng, seen or spec.words)}
    outlined = folder.startswith("lvis/")  # LVIS publishes masks, the COCO-style sets need boxes
    return record | {"objects": [_annotation(p, outlined) for p in painted]}


def _paint(
    config: MiniLvisConfig, spec: SceneSpec, rng: Rng
) -> tuple[np.ndarray, list[scenes.Painted]]:
    things, scene = list(spec.things), spec.scene
    if spec.portrait:
        side = config.portrait_size
        return scenes.paint_portrait(things[0], size=side, scene=scene, rng=rng), []
    return scenes.paint_scene(things, size=config.size, scene=scene, rng=rng)


def _annotation(painted: scenes.Painted, outlined: bool) -> dict[str, Any]:
    """Label, box xywh, area and, if `outlined`, polygons (absolute pixels) of a visible object."""
    left, top, right, bottom = scenes.box_of(painted.mask)
    record = {
        "label": painted.label,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(np.count_nonzero(painted.mask)),
    }
    if not outlined:
        return record
    mask = np.pad(painted.mask[top:bottom, left:right], 1).astype(np.float32)
    outlines = []
    for line in contourpy.contour_generator(z=mask).lines(0.5):
        points = line[:-1] if len(line) < 9 else line[:-1:2]  # of a longer one every other will do
        points = points + np.array([left - 0.5, top - 0.5])
        outlines.append(points.round(1).ravel().tolist())  # [x1, y1, x2, y2, ...]
    return record | {"segmentation": outlines}


# --- staged images ------------------------------------------------------------------------------
# Extra images in which the size of the named thing and the number of others are chosen. Like the
# portraits of INet-LVIS they are balanced over the classes, in all glyphs and styles. Where the
# named thing is, is written down beside the pictures, for those who measure; no training sees it.

BOXES = "boxes.json"  # name of a picture -> box xyxy of the named thing, in pixels


def build_staged(config: StagedConfig) -> Path:
    """Draws what is missing and returns the folder: a folder of pictures for each class."""
    root = drawn_folder(config)
    if (root / BOXES).is_file():
        return root
    boxes = {}
    for named in plans.detection_classes(config):
        (root / named.name).mkdir(parents=True, exist_ok=True)
        for number in range(config.images):
            name = f"{named.name}/{number:03d}.png"
            rng = plans.stream(config, "staged", name)
            image, boxes[name] = _paint_staged(config, named, rng)
            Image.fromarray(image).save(root / name)
            os.utime(root / name, ns=(kept.DRAWN_AT, kept.DRAWN_AT))
    write_atomic(root / BOXES, json.dumps(boxes))  # last: it marks the set as complete
    return root


def _paint_staged(
    config: StagedConfig, named: GlyphClass, rng: Rng
) -> tuple[np.ndarray, list[int]]:
    """A picture and the box of what is visible of its named thing, which is not hidden too much."""
    groups = {stem: c.group for c in vocabulary("lvis") for stem in c.glyphs}
    others = sorted(glyph_names().keys() - set(named.glyphs))
    scene = str(rng.choice([*scenes.BACKGROUNDS]))
    while True:
        chosen = [(str(rng.choice(named.glyphs)), named.group, 0)]
        for stem in map(str, rng.choice(others, config.others)):
            chosen.append((stem, groups.get(stem, "object"), -1))
        things = [
            scenes.Thing(
                stem=stem, group=group, label=label, side=config.scale * rng.uniform(0.55, 0.95)
            )
            for stem, group, label in chosen
        ]
        image, painted = scenes.paint_scene(things, size=config.size, scene=scene, rng=rng)
        if painted:
            return image, list(scenes.box_of(painted[0].mask))
