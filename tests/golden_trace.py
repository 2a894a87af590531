"""The golden trace: what today's code computes, as numbers in `richsem/trace.json`.

A refactor that leaves these numbers alone changes nothing; one that changes them shows it in the
file. Nothing kept by earlier code is trusted but the rendered smoke benchmark, and that is compared
with pictures painted anew. About 25 seconds on one core.

    python tests/golden_trace.py            prints what differs from the file
    python tests/golden_trace.py --write    rewrites the file
"""

import argparse
import contextlib
import functools
import hashlib
import io
import json
import math
import os
import re
import sys
import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path
from unittest import mock

# Before torch is imported: sums do not depend on the machine's number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import golden_runs
import numpy as np
import torch
from torch import Tensor

from richsem import paths
from richsem.data.catalog import open_boxes
from richsem.data.categories import spoken_names
from richsem.data.corrupt import drop_annotations, jitter_boxes, uniform_draws
from richsem.data.drawn import DEMO, SMOKE, drawn_folder
from richsem.data.samples import DetectionTrainingSet
from richsem.data.sampling import repeat_factors
from richsem.data.transforms import MosaicConfig, ScaleJitterConfig, TransformConfig
from richsem.minilvis import files, plans, render
from richsem.models.clip import MINI, FrozenClip, soft_labels
from richsem.recipes import dino_recipes
from richsem.structures import Supervision
from richsem.training import build
from richsem.training.loading import StepLoader
from richsem.training.run_config import ExtraConfig
from richsem.workbook import zero_shot
from richsem.workbook.zero_shot import ReadConfig, read_regions

FILE = paths.ROOT / "richsem" / "trace.json"


def sha256(content):
    """Hash of JSON values, 16 hex digits."""
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compute(scratch):
    """The whole trace; features, texts and runs go to the empty folder `scratch`."""
    shared = render.build_minilvis(SMOKE)  # of the cache that all tests use
    benchmark = scratch / shared.name
    benchmark.symlink_to(shared, target_is_directory=True)
    with (
        # Features and text features are computed anew: kept ones may be of other code.
        mock.patch.object(paths, "CACHE", scratch),
        # Opening CLIP takes a third of a second and every run does it.
        mock.patch.object(build, "FrozenClip", functools.cache(FrozenClip)),
        contextlib.redirect_stderr(io.StringIO()),  # progress bars
    ):
        sections = {
            "pictures": pictures(benchmark, scratch),
            "features": features_section(benchmark),
            "teacher": teacher(benchmark),
            "runs": golden_runs.first_steps(scratch),
            "schedules": golden_runs.schedules(),
            "evaluation": golden_runs.evaluation(benchmark),
        }
    return plain(sections)


# --- pictures --------------------------------------------------------------------------------

# Image number by folder; those of the smoke benchmark are compared with its render, too.
SMOKE_PICTURES = {
    "lvis/train": 3, "lvis/dev": 1, "lvis/val": 0, "objects365/train": 2, "objects365/val": 0,
    "visual_genome/train": 4, "visual_genome/val": 1, "openimages/train": 5, "openimages/val": 2,
    "imagenet_lvis": 7, "imagenet_unl": 3, "cc3m": 2,
}  # fmt: skip
REDRAWN_PICTURES = {"lvis/train": 3, "visual_genome/train": 4, "openimages/train": 5}
DEMO_PICTURES = {"lvis/train": 1500, "imagenet_lvis": 4000, "imagenet_unl": 900, "cc3m": 700}


def pictures(benchmark, scratch):
    """Scenes planned, pictures painted, and the annotation files of the smoke benchmark."""
    smoke, demo = replace(SMOKE, draw=1), replace(DEMO, draw=1)
    pieces = [render._pieces(benchmark, *folder) for folder in _plans(SMOKE).items()]
    records = render._painted(SMOKE, list(chain.from_iterable(pieces)), 1)
    contents = files.annotation_files(SMOKE, records)
    return {
        "annotations": {name: {"sha256": sha256(content)} for name, content in contents.items()},
        "plans": {"demo": _planned(DEMO), "demo, draw 1": _planned(demo)},
        "painted": {
            "smoke": _painted(SMOKE, SMOKE_PICTURES, scratch, records),
            "smoke, draw 1": _painted(smoke, REDRAWN_PICTURES, scratch),
            "demo": _painted(DEMO, DEMO_PICTURES, scratch),
            "demo, draw 1": _painted(demo, {"lvis/train": 1500}, scratch),
        },
    }


_plans = functools.cache(render.planned)


def _planned(config):
    return {
        folder: {"images": len(specs), "plan": sha256([_spec(spec) for spec in specs])}
        for folder, specs in _plans(config).items()
    }


def _spec(spec):
    things = [[t.stem, t.group, list(t.styles), int(t.label)] for t in spec.things]
    labels = [int(label) for label in spec.labels]
    return [things, spec.scene, spec.portrait, list(spec.words), labels]


def _painted(config, chosen, scratch, records=None):
    """Pictures painted anew, which must be those of the records of an earlier render."""
    found = {}
    for folder, index in chosen.items():
        spec, target = _plans(config)[folder][index], scratch / f"{index + 1:012d}.jpg"
        record = render._paint_file(config, folder, index, spec, target)
        if records and record != records[folder][index]:
            where = drawn_folder(config)
            raise RuntimeError(f"{where} was painted by other code: delete it and try again")
        pixels = render._paint(config, spec, plans.stream(config, folder, index))[0]
        found[f"{folder} {index}"] = _picture(pixels, record)
    return found


def _picture(pixels, record):
    """What a picture shows: pixels [S, S, 3] as hash and as the mean colour of each quarter."""
    quarters = [q for row in np.split(pixels, 2) for q in np.split(row, 2, axis=1)]
    outlines = [thing.pop("segmentation", []) for thing in record["objects"]]
    return {name: record[name] for name in ("side", "labels", "caption")} | {
        "sha256": hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()[:16],
        "colours": [[round(float(c), 1) for c in q.mean((0, 1))] for q in quarters],
        "objects": [[t["label"], *t["bbox"], t["area"]] for t in record["objects"]],
        "outlines": sha256(outlines),
    }


# --- features --------------------------------------------------------------------------------


def features_section(benchmark):
    """Order of the epoch, augmented samples, dropped annotations, box noise and cached maps."""
    config = dino_recipes.richsem("smoke")
    data = replace(config.data, features=None)
    setup = build.build(golden_runs.from_pixels(config))
    dataset = open_boxes("lvis", "train", root=benchmark)
    boxes, sizes = dataset.boxes_xyxy[:3], dataset.image_sizes[dataset.box_image[:3]]
    draws = uniform_draws(3, 0)
    return {
        "order": _order(setup, config),
        "samples": _samples(data, dataset),
        "dropped": _dropped(dataset),
        "noise": {str(s): jitter_boxes(boxes, s, sizes, draws) for s in (0.4, 1.5)},
        "maps": _maps(golden_runs.few_images(dino_recipes.baseline("smoke"))),
    }


def _order(setup, config):
    """Image numbers and seeds in the order in which the loader asks for them."""
    loader = StepLoader([setup.main, setup.extra], config.train, range(32))
    keys = [key for batch in loader.keys() for key in batch]  # noqa: SIM118 (no dictionary)
    found = {}
    for number, name in enumerate(("main", "extra")):
        own = [key for key in keys if key[0] == number][:32]
        found[name] = {"images": [k[1] for k in own], "seeds": [k[2] for k in own[:3]]}
    epochs = [setup.main.epoch(np.random.default_rng(number)) for number in range(3)]
    return found | {"epochs": [[len(e), *e[:3].tolist()] for e in epochs]}


def _samples(data, dataset):
    """Two augmented samples of each kind."""
    extra = ExtraConfig(
        key="inet_lvis", supervision=Supervision.IMAGE_LABELS, transform=dino_recipes.TILE
    )
    mosaics = replace(extra, mosaic=MosaicConfig(side=128))
    jitter = ScaleJitterConfig(side=160, scales=(0.5, 1.5))
    extras = {
        "tile": extra,
        "tile, unlabelled": replace(extra, key="inet_unl", supervision=Supervision.UNLABELLED),
        "whole image": replace(extra, supervision=Supervision.WHOLE_IMAGES),
        "mosaic": mosaics,
        "mosaic, captions": replace(mosaics, key="cc3m", supervision=Supervision.CAPTIONS),
        "mosaic, scale jitter": replace(mosaics, transform=jitter),
        "boxes only": replace(extra, key="o365_box", supervision=Supervision.BOXES_ONLY),
    }
    transforms = {
        "scene": data.transform,
        "scene, evaluation": data.transform.evaluation(),
        "scale jitter": jitter,
        "paper's sizes": TransformConfig(),
    }
    categories = dataset.categories
    sets = {name: build.extra_set(e, data, categories) for name, e in extras.items()} | {
        name: DetectionTrainingSet(dataset, transform) for name, transform in transforms.items()
    }
    keys = ((1, 11), (6, 5))  # image and seed
    return {name: [_sample(samples[key]) for key in keys] for name, samples in sets.items()}


def _sample(sample):
    target, image = sample.target, sample.image
    return {
        "image": target.image_id,
        "size": list(target.size),
        "labels": target.labels,
        "boxes": [[round(x, 4) for x in box] for box in target.boxes.tolist()],
        "means": image.mean((1, 2)),
        "quarter": image[:, : image.shape[1] // 2, : image.shape[2] // 2].mean(),
    }


def _dropped(dataset):
    reduced = drop_annotations(dataset, 0.5, 0)
    complete, factors = (repeat_factors(boxes, 0.02) for boxes in (dataset, reduced))
    return {
        "boxes": [len(dataset.labels), len(reduced.labels)],
        "annotations": reduced.annotation_ids[:20],
        "factors": [factors.sum(), *np.sort(factors)[-8:]],
        "all factors": [complete.sum(), *np.sort(complete)[-8:]],
    }


def _maps(config):
    """Of three images the maps of both strides; they are stored as half floats, hence the means."""
    samples = build.build(config).main.dataset
    return [[_map(level.float()) for level in samples[i, 0].features] for i in (0, 3, 7)]


def _map(level):
    means = {"channels": level.mean((1, 2))[:4], "rows": level.mean((0, 2))[:4]}
    return {"mean": level.mean(), "std": level.std()} | means


# --- teacher ---------------------------------------------------------------------------------


def teacher(benchmark):
    """Text features, soft labels in both region modes, and the readings of Table 2 and Figure 1."""
    model = FrozenClip(MINI)
    dataset = open_boxes("lvis", "val", root=benchmark).select(range(6))
    names = spoken_names(dataset.categories)
    text = model.text_features(names)
    image = torch.from_numpy(np.array(dataset.image(0))).permute(2, 0, 1)
    boxes = torch.from_numpy(dataset.boxes_of(0)[0])[:3]
    found = {"soft labels": {}, "readings": {}}
    for mode in ("roi", "crop"):
        regions = model.regions(image, boxes, mode)
        config = ReadConfig(mode=mode, noise_scales=(0.0, 1.2), noise_seeds=(0, 1))
        found["soft labels"][mode] = soft_labels(regions, text, model.scale)
        reading = read_regions(model, dataset, names, config)
        found["readings"][mode] = _reading(dataset, reading, config.noise_scales)
    rows = {name: [row.norm(), *row[:6]] for name, row in zip(names, text, strict=True)}
    return found | {"scale": model.scale, "text": rows}


def _reading(dataset, reading, scales):
    ranks, labels = reading.ranks, dataset.labels
    table = zero_shot.accuracy_table(ranks[0, 0], labels, dataset.frequency_groups())
    curve = zero_shot.noise_curve(ranks, labels, scales)
    return {
        "ranks": ranks,
        "best": reading.top_classes[:, :3],
        "scores": reading.top_scores[:, :3],
        "table": table.to_dict("list"),
        "curve": curve.to_dict("list"),
    }


# --- file and comparison ---------------------------------------------------------------------

# Sums of floats depend a little on the number of threads and on the processor's vector units: up to
# 5e-5 (near zero 1.4e-6) was seen before the first update of the weights. Gradients jump where a
# point lies on the border of two cells, as the first offsets of deformable attention do: 1.3e-3.
# After an update a query or a region that is just chosen or just not makes more of it: 8e-3 (AVX2
# against AVX-512, and two processors with AVX-512). The same twice gives the same bits.
RTOL, GRADIENT_RTOL, LATER_RTOL, ATOL = 2e-4, 5e-3, 2e-2, 5e-6
GREY_LEVELS = 1.0  # between mean colours of pictures that were painted on unlike machines
_ONLY_SAME_MACHINE = {"sha256", "outlines", "objects"}


def plain(value):
    """Plain JSON: arrays as lists, numbers to 6 digits, None for what is not a number."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.6g}")
    return value


def to_text(trace):
    """JSON with sorted keys and a line per innermost list."""
    text = json.dumps(trace, indent=1, sort_keys=True)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def differing(expected, actual, *, same_machine=True, at=""):
    """The places (below the place `at`) at which two traces differ, with both values.

    Text, integers, order and number of items are compared exactly, floats to `RTOL`, norms of
    gradients to `GRADIENT_RTOL` and all after an update of the weights to `LATER_RTOL`. Pictures
    must be the same to the bit, or on another machine have the same mean colours to `GREY_LEVELS`.
    """
    found = []
    if isinstance(expected, dict) and isinstance(actual, dict):
        pairs = [(f"{at}/{key}", key) for key in expected if key in actual]
        found += [f"{at}/{key}: only in the file" for key in expected if key not in actual]
        found += [f"{at}/{key}: not in the file" for key in actual if key not in expected]
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return [f"{at}: {len(expected)} items -> {len(actual)} items"]
        pairs = [(f"{at}[{i}]", i) for i in range(len(expected))]
    else:
        same = _same(expected, actual, at, same_machine)
        return [] if same else [f"{at}: {expected!r} -> {actual!r}"]
    for name, key in pairs:
        if same_machine or key not in _ONLY_SAME_MACHINE:
            found += differing(expected[key], actual[key], same_machine=same_machine, at=name)
    return found


def _same(expected, actual, at, same_machine):
    if type(expected) is float and type(actual) is float:
        if at.startswith("/pictures/"):
            return abs(expected - actual) <= (0.0 if same_machine else GREY_LEVELS)
        rtol = GRADIENT_RTOL if at.endswith("/gradient_norm") else RTOL
        rtol = LATER_RTOL if re.search(r"/steps\[[1-9]", at) else rtol
        return math.isclose(expected, actual, rel_tol=rtol, abs_tol=ATOL)
    return type(expected) is type(actual) and expected == actual


def main():
    """Compares with the file, or writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"rewrite {FILE.name}")
    with tempfile.TemporaryDirectory() as scratch:
        write, trace = parser.parse_args().write, compute(Path(scratch))
    if write:
        FILE.write_text(to_text(trace), encoding="utf-8")
        return 0
    lines = differing(json.loads(FILE.read_text(encoding="utf-8")), trace)
    print("\n".join(lines) or "no difference")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
