"""Gives what earlier code kept the names of today's code, so that nothing is trained or drawn anew.

    python scripts/take_over_store.py            # the project's cache, or RICHSEM_CACHE

Runs and drawn pictures of commit 1afce31 were named after a hash of that code's text; today they
are named after what differs from the defaults and after the trace (`richsem.kept`). The trace shows
that today's code computes the same numbers, so names are all that has to change. Interrupted, the
script can be called again; called once more, it does nothing.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from richsem import kept, paths
from richsem.config import ConfigError, convert, to_dict, to_json
from richsem.data.catalog import dataset_spec, locate
from richsem.data.drawn import MiniLvisConfig, drawn_folder
from richsem.data.reading import DataError
from richsem.operations import store
from richsem.paths import only_one, write_atomic
from richsem.training.build import build
from richsem.training.checkpoint import DESCRIPTION, WEIGHTS
from richsem.training.loop import STATE, run_identity
from richsem.training.run_config import RUN, DetectorConfig, RunConfig

OLD_CODE = "04629e61f8b4703a"  # `code_hash()` of commit 1afce31
OLD_PAINTING = "bfe4fc02"  # `painting_hash()` of the same
FORMER = "former_name.txt"  # in the folder of a run: what it was called before
# Defaults of the old code's fields that may be gone today: what had these values is the same run.
GONE = {
    "alternate": [1, 1],
    "as_released_masks": False,
    "batch_size": 32,
    "box_noise": 1.0,
    "class_scale": 50.0,
    "common_images": [14, 92],
    "deterministic": False,
    "dev_fraction": 0.5,
    "ema_decay": 0.0,
    "entropy_weight": False,
    "federated_soft": False,
    "focal_alpha": 0.25,
    "focal_gamma": 2.0,
    "giou": 2.0,
    "image_level": "max_size",
    "label_noise": 0.5,
    "long_side": 1333,
    "matching": {"alpha": 0.25, "boxes": 5.0, "classes": 2.0, "gamma": 2.0, "giou": 2.0},
    "multipliers": [],
    "portrait_size": 64,
    "rare_images": [3, 9],
    "semantic_stages": "last",
    "teacher_boxes": "gt",
}


def main() -> int:
    """Takes over pictures, then runs; returns the exit code."""
    for folder in sorted(paths.CACHE.glob("minilvis-*")):
        if folder.name.endswith(f"-{OLD_PAINTING}"):
            report(folder.name, take_over_pictures(folder))
    # Those that start from another run come last: they name the folder of the first one.
    folders = [path.parent for path in sorted((paths.CACHE / "runs").glob(f"*/{store.CONFIG}"))]
    for folder in sorted(folders, key=starts_from_a_run):
        report(folder.name, take_over_run(folder))
    return 0


def read_old(expected: Any, values: Any) -> Any:
    """A configuration of the old code, if all that is gone since then was at its default."""
    dropped: list[str] = []
    config = convert(values, expected, "it", dropped)
    names = {name.rpartition(".")[2] for name in dropped}
    for name, value in leaves(values):
        if name in names and (name not in GONE or GONE[name] != value):
            raise ConfigError(f"{name} is {value!r}, which today's code does not know")
    return config


def leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of all fields, nested ones too."""
    for name, value in values.items():
        yield name, value
        if isinstance(value, Mapping):
            yield from leaves(value)


def report(name: str, outcome: str) -> None:
    """One line per folder; what has its name already is passed over in silence."""
    if outcome:
        print(f"{name}: {outcome}", flush=True)


# --- pictures --------------------------------------------------------------------------------


def take_over_pictures(folder: Path) -> str:
    """Renames a drawn benchmark; its pictures get the time that drawing gives them today."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return "left: it was never finished, and is drawn anew when asked for; may be deleted"
    values = json.loads(manifest.read_bytes())
    config = read_old(MiniLvisConfig, values["config"])
    target = drawn_folder(config)
    with only_one(folder):
        if target.exists():
            return f"left: {target.name} is there already; may be deleted"
        for picture in (folder / "images").rglob("*.jpg"):
            os.utime(picture, ns=(kept.DRAWN_AT, kept.DRAWN_AT))
        values["config"] = to_dict(config)
        write_atomic(manifest, json.dumps(values, indent=1))
        folder.rename(target)
    return f"now {target.name}"


# --- runs ------------------------------------------------------------------------------------


def starts_from_a_run(folder: Path) -> bool:
    """Whether a run waits for another one, as far as its file can be read."""
    return f'"init": "{RUN}' in (folder / store.CONFIG).read_text("utf-8", errors="replace")


def take_over_run(folder: Path) -> str:
    """Renames a run of the old code and whatever names it; "" where nothing is to be done."""
    path = folder / store.CONFIG
    try:
        config = read_old(RunConfig, json.loads(path.read_bytes()))
        if not folder.name.endswith(f"-{old_suffix(config)}"):
            return ""
        config = with_new_start(config)
        target = store.run_folder(config)
    except (DataError, ConfigError, json.JSONDecodeError) as error:
        return f"left: {str(error).splitlines()[0]}"
    with only_one(folder, wait=False) as mine:
        if not mine:
            return "left: a process is at it; call again when it is done"
        if target.exists():
            return f"left: {target.name} is there already"
        # Everything that is changed inside comes before the name, which says that it is done.
        write_atomic(folder / FORMER, folder.name + "\n")
        write_atomic(path, to_json(config))
        rename_verdicts(folder, config)
        if (folder / DESCRIPTION).is_file():
            rewrite_description(folder / DESCRIPTION, config)
        elif (folder / STATE).is_file():
            report(folder.name, "not finished; what its identity needs is computed: minutes")
            rewrite_identity(folder / STATE, store.started(config))
        folder.rename(target)
    return f"now {target.name}"


def old_suffix(config: RunConfig) -> str:
    """How the old code ended the name of a run: a hash of that code and of real data."""
    states = " ".join(kept.digest(file) for file in old_files(config))
    return hashlib.sha256(f"{OLD_CODE} {states}".encode()).hexdigest()[:8]


def old_files(config: RunConfig) -> Iterator[Path]:
    """Annotations of real data, and weights that are not the package's."""
    data = config.data
    if data.root:
        root = paths.ROOT / Path(data.root).expanduser()
        for key in [data.key, *([data.extra.key] if data.extra else [])]:
            yield locate(dataset_spec(key), root, "train")[0]
    if config.init:
        start = paths.ROOT / Path(config.init).expanduser()
        start = start / WEIGHTS if start.is_dir() else start
        if start.is_file() and not start.is_relative_to(paths.ROOT / "richsem"):
            yield start
    for weights in (data.teacher.weights, config.detector.backbone.weights):
        file = paths.ROOT / Path(weights).expanduser()
        if weights and file.is_file():
            yield file


def with_new_start(config: RunConfig) -> RunConfig:
    """The run with today's name of the run that it starts from."""
    if not config.init.startswith(RUN):
        return config
    old = config.init.removeprefix(RUN)
    for former in (paths.CACHE / "runs").glob(f"*/{FORMER}"):
        if former.read_text().startswith(f"{old}-"):
            name = former.parent.name.rpartition("-")[0]
            return replace(config, init=f"{RUN}{name}")
    return config


def rename_verdicts(folder: Path, config: RunConfig) -> None:
    """Verdicts on real data are named after it, in today's way; their content stays."""
    for path in sorted(folder.glob("judged-*")):
        found = re.fullmatch(r"judged-(.+)-([0-9a-f]{16})", path.stem)
        if not found or not config.data.root:
            continue
        split, old = found.groups()
        root = paths.ROOT / Path(config.data.root).expanduser()
        annotations = locate(dataset_spec(config.data.key), root, split)[0]
        if kept.digest(annotations) == old:
            new = f"judged-{split}-{store.split_state(config, split)}{path.suffix}"
            path.rename(path.with_name(new))


def rewrite_description(path: Path, config: RunConfig) -> None:
    """Drops the fields of the recipe and the detector that today's code does not know."""
    values = json.loads(path.read_bytes())
    recipe = to_dict(read_old(RunConfig, values["recipe"]))
    if config.init.startswith(RUN):
        recipe["init"] = to_dict(store.started(config))["init"]
    detector = to_dict(read_old(DetectorConfig, values["detector"]))
    text = json.dumps({**values, "recipe": recipe, "detector": detector}, indent=2, sort_keys=True)
    write_atomic(path, text + "\n")


def rewrite_identity(path: Path, config: RunConfig) -> None:
    """Says in the state of an unfinished run what it belongs to, in today's words."""
    setup = build(config)
    state = torch.load(path, map_location="cpu", weights_only=True)
    state["identity"] = run_identity(config.train, config.optim, setup.identity)
    temporary = path.with_name(f".{path.name}.tmp")
    torch.save(state, temporary)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
