"""MiniLVIS, the embedded benchmark: renders every set once into the cache and describes it.

`build_minilvis` paints in shards on all cores. A finished shard is never painted again, so an
interrupted run resumes; the same configuration gives the same bytes. The annotation files have
the formats of the real data sets they stand for (LVIS v1, COCO, the INet-LVIS and CC3M lists).
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from PIL import Image
from tqdm import tqdm

from richsem.config import config_hash, to_dict
from richsem.data import plans, scenes
from richsem.data.plans import MiniLvisConfig, SceneSpec
from richsem.data.vocabulary import vocabulary
from richsem.paths import CACHE

_SHARD = 100  # images per resumable unit
_JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One folder of images and how its scenes are planned."""

    folder: str
    plan: Callable[[], list[SceneSpec]]


def build_minilvis(
    config: MiniLvisConfig, *, cache: Path | None = None, workers: int | None = None
) -> Path:
    """Renders what is missing of MiniLVIS and returns its folder (`annotations/`, `images/`).

    Args:
        config: Sizes and seed.
        cache: Folder for rendered data; by default the project's cache.
        workers: Processes; by default one per core.
    """
    root = (cache or CACHE) / f"minilvis-{config_hash(config)}-{_source_hash()}"
    if (root / "manifest.json").is_file():
        return root
    parts = _parts(config)
    _paint_parts(config, root, parts, workers or os.cpu_count() or 1)
    records = {part.folder: _collect(root, part.folder) for part in parts}
    annotations = _annotations(config, records)
    (root / "annotations").mkdir(exist_ok=True)
    sums = {}
    for name, content in annotations.items():
        data = json.dumps(content, separators=(",", ":")).encode()
        _write(root / "annotations" / name, data)
        sums[name] = hashlib.sha256(data).hexdigest()
    manifest = {
        "config": to_dict(config),
        "annotations": sums,
        "images": {
            folder: {
                "count": len(rows),
                "sha256": hashlib.sha256("".join(r["sha256"] for r in rows).encode()).hexdigest(),
            }
            for folder, rows in records.items()
        },
    }
    _write(root / "manifest.json", json.dumps(manifest, indent=1).encode())
    return root


def _parts(config: MiniLvisConfig) -> list[_Part]:
    parts = [
        _Part(folder=f"lvis/{split}", plan=partial(plans.plan_detection, config, split))
        for split in ("train", "dev", "val")
    ]
    parts += [
        _Part(folder=f"{name}/{split}", plan=partial(plans.plan_boxes, config, name, split))
        for name in ("objects365", "visual_genome", "openimages")
        for split in ("train", "val")
    ]
    return [
        *parts,
        _Part(folder="imagenet_lvis", plan=partial(plans.plan_portraits, config)),
        _Part(folder="imagenet_unl", plan=partial(plans.plan_unlabelled, config)),
        _Part(folder="cc3m", plan=partial(plans.plan_captioned, config)),
    ]


def _paint_parts(config: MiniLvisConfig, root: Path, parts: list[_Part], workers: int) -> None:
    jobs = []
    for part in parts:
        specs = part.plan()
        for first in range(0, len(specs), _SHARD):
            if not _shard_path(root, part.folder, first).is_file():
                jobs.append((config, root, part.folder, first, specs[first : first + _SHARD]))
    total = sum(len(job[-1]) for job in jobs)
    context = multiprocessing.get_context("spawn")
    with (
        tqdm(total=total, desc="rendering MiniLVIS", unit="image", mininterval=2) as progress,
        ProcessPoolExecutor(min(workers, max(1, len(jobs))), mp_context=context) as pool,
    ):
        for done in as_completed([pool.submit(_paint_shard, *job) for job in jobs]):
            progress.update(done.result())


def _paint_shard(
    config: MiniLvisConfig, root: Path, folder: str, first: int, specs: list[SceneSpec]
) -> int:
    """Paints one shard (in a worker process); its record is written last, so it is all or nothing."""
    target = root / "images" / folder
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, spec in enumerate(specs, start=first):
        rng = plans.stream(config, folder, index)
        image, objects = _paint(config, spec, rng, outlined=folder.startswith("lvis/"))
        name = f"{index + 1:012d}.jpg"
        Image.fromarray(image).save(target / name, quality=_JPEG_QUALITY, subsampling=0)
        rows.append(
            {
                "file": name,
                "side": image.shape[0],
                "sha256": hashlib.sha256((target / name).read_bytes()).hexdigest(),
                "objects": objects,
                "labels": list(spec.labels),
                "caption": spec.caption,
            }
        )
    _write(_shard_path(root, folder, first), json.dumps(rows, separators=(",", ":")).encode())
    return len(specs)


def _paint(
    config: MiniLvisConfig, spec: SceneSpec, rng: np.random.Generator, *, outlined: bool
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    if spec.portrait:
        (thing,) = spec.things
        side = config.portrait_size
        return scenes.paint_portrait(thing, size=side, scene=spec.scene, rng=rng), []
    image, painted = scenes.paint_scene(
        list(spec.things), size=config.size, scene=spec.scene, rng=rng
    )
    return image, [_describe(p, outlined) for p in painted]


def _describe(painted: scenes.Painted, outlined: bool) -> dict[str, Any]:
    """Label, box xywh, area and, if `outlined`, polygons (absolute pixels) of a visible object."""
    mask = painted.mask
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(cols[0]), int(rows[0])
    box = [x, y, int(cols[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    record = {"label": painted.label, "bbox": box, "area": int(mask.sum())}
    if outlined:  # LVIS publishes masks, the COCO-style sets are used with boxes only
        padded = np.pad(mask, 1).astype(np.float32)
        lines = contourpy.contour_generator(z=padded).lines(0.5)
        record["segmentation"] = [
            (line[:-1:2] - 0.5).round(1).ravel().tolist() for line in lines if len(line) >= 7
        ]
    return record


def _shard_path(root: Path, folder: str, first: int) -> Path:
    return root / "shards" / f"{folder.replace('/', '-')}-{first:06d}.json"


def _collect(root: Path, folder: str) -> list[dict[str, Any]]:
    shards = sorted((root / "shards").glob(f"{folder.replace('/', '-')}-[0-9]*.json"))
    return [row for shard in shards for row in json.loads(shard.read_bytes())]


# --- annotation files --------------------------------------------------------------------------


def _annotations(config: MiniLvisConfig, records: dict[str, list]) -> dict[str, Any]:
    classes = plans.detection_classes(config)
    categories = _lvis_categories(classes, records["lvis/train"])
    files = {
        f"lvis_v1_{split}.json": _lvis(config, split, records[f"lvis/{split}"], categories)
        for split in ("train", "dev", "val")
    }
    for name in ("objects365", "visual_genome", "openimages"):
        for split in ("train", "val"):
            files[f"{name}_{split}.json"] = _coco(name, records[f"{name}/{split}"])
    files["imagenet_lvis_image_info.json"] = _imagenet(categories, records["imagenet_lvis"])
    files["imagenet_unl_images.json"] = [[row["file"], -1] for row in records["imagenet_unl"]]
    files["cc3m.json"] = [
        {"caption": row["caption"], "image": row["file"]} for row in records["cc3m"]
    ]
    return files


def _lvis_categories(classes: Iterable, train: list[dict]) -> list[dict[str, Any]]:
    """LVIS v1 categories; counts and r/c/f come from the rendered training split."""
    categories = []
    for index, c in enumerate(classes):
        hits = [sum(o["label"] == index for o in row["objects"]) for row in train]
        images = sum(1 for hit in hits if hit)
        categories.append(
            {
                "id": index + 1,
                "name": c.name,
                "synset": c.synset,
                "synonyms": list(c.synonyms),
                "def": c.definition,
                "frequency": "r" if images <= 10 else "c" if images <= 100 else "f",
                "image_count": images,
                "instance_count": sum(hits),
            }
        )
    return categories


def _lvis(
    config: MiniLvisConfig, split: str, rows: list[dict], categories: list[dict]
) -> dict[str, Any]:
    """The detection set in LVIS v1 format: federated, now and then not exhaustively annotated."""
    rng = plans.stream(config, "lvis", split, "annotation")
    every = np.arange(1, len(categories) + 1)
    share = 0.15 if split == "train" else 0.4
    images, annotations = [], []
    for image_id, row in enumerate(rows, start=1):
        present = np.unique([o["label"] + 1 for o in row["objects"]])
        absent = np.setdiff1d(every, present)
        negatives = rng.choice(absent, size=round(share * len(absent)), replace=False)
        partial_ids = _partly_annotated(row["objects"], rng)
        images.append(
            {
                "id": image_id,
                "height": row["side"],
                "width": row["side"],
                "coco_url": f"minilvis://{split}/{row['file']}",
                "flickr_url": "",
                "license": 1,
                "date_captured": "",
                "neg_category_ids": sorted(map(int, negatives)),
                "not_exhaustive_category_ids": sorted(partial_ids),
            }
        )
        for thing in row["objects"]:
            category = thing["label"] + 1
            if category in partial_ids and partial_ids[category]:
                partial_ids[category] -= 1
                continue
            fields = {k: thing[k] for k in ("bbox", "area", "segmentation")}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": category} | fields
            )
    info = {"description": f"MiniLVIS {split}, seed {config.seed}", "version": "v1"}
    licenses = [{"id": 1, "name": "CC BY-SA 4.0 (OpenMoji)", "url": ""}]
    return {
        "info": info,
        "licenses": licenses,
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def _partly_annotated(objects: list[dict], rng: np.random.Generator) -> dict[int, int]:
    """Category -> instances left unannotated, for some of the crowds of three and more."""
    labels, counts = np.unique([o["label"] for o in objects], return_counts=True)
    crowds = [int(label) + 1 for label, count in zip(labels, counts, strict=True) if count >= 3]
    return {category: 1 for category in crowds if rng.random() < 0.3}


def _coco(name: str, rows: list[dict]) -> dict[str, Any]:
    classes = vocabulary(name)
    images, annotations = [], []
    for image_id, row in enumerate(rows, start=1):
        side = row["side"]
        images.append({"id": image_id, "file_name": row["file"], "height": side, "width": side})
        for thing in row["objects"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": thing["label"] + 1,
                    "bbox": thing["bbox"],
                    "area": thing["area"],
                    "iscrowd": 0,
                }
            )
    categories = [
        {"id": i, "name": c.name, "supercategory": c.group} for i, c in enumerate(classes, start=1)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def _imagenet(categories: list[dict], rows: list[dict]) -> dict[str, Any]:
    """INet-LVIS: LVIS categories with this set's own image counts, one image-level label each."""
    counts = np.bincount([row["labels"][0] for row in rows], minlength=len(categories))
    own = [c | {"image_count": int(n)} for c, n in zip(categories, counts, strict=True)]
    images = [
        {
            "id": image_id,
            "file_name": row["file"],
            "pos_category_ids": [label + 1 for label in row["labels"]],
            "width": row["side"],
            "height": row["side"],
        }
        for image_id, row in enumerate(rows, start=1)
    ]
    return {"categories": own, "images": images, "annotations": []}


def _source_hash() -> str:
    """Hash of the painting code and vocabulary, so that a changed recipe never reuses old pictures."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for name in ("glyphs.py", "scenes.py", "plans.py", "minilvis.py", "vocabulary.json"):
        digest.update((folder / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:8]


def _write(path: Path, data: bytes) -> None:
    """Writes a file in one step: a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(f".{os.getpid()}.partial")
    partial_path.write_bytes(data)
    partial_path.replace(path)
