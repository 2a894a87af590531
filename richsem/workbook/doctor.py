"""Is all there that the workbook needs, and what can this machine do? One screen."""

import shutil
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from richsem import paths
from richsem.operations import console
from richsem.processes import accelerator, own_cores

OPTIONAL = ("hotcoco", "onnxruntime", "supervision", "playwright")
_ROOM = 6e9  # bytes of memory, and of disk, with which the demo profile is at ease


def examine() -> int:
    """Prints a line for each part; returns 1 if one that is needed is broken."""
    broken, looks = 0, {"packages": _packages, "machine": _machine, "weights": _weights}
    looks |= {"drawn data": _drawn_data, "one picture": _one_picture}
    for title, look in looks.items():
        try:
            words = look()
        except (ValueError, OSError, ImportError) as error:
            words, broken = f"BROKEN: {console.explained(error)}", 1
        print(f"{title:13}{words}", flush=True)
    return broken


def _packages() -> str:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = paths.ROOT / "constraints.txt"  # an installed package has none
    lines = pins.read_text(encoding="utf-8").lower().splitlines() if pins.is_file() else ()
    tested = dict(line.split("==") for line in lines if "==" in line)
    installed = {canonicalize_name(one.name): one.version for one in metadata.distributions()}
    wrong, other = [], []
    for needed in map(Requirement, metadata.requires("richsem") or ()):
        version = installed.get(canonicalize_name(needed.name), "missing")
        known = tested.get(needed.name.lower(), version)
        if needed.marker is None and (version == "missing" or version not in needed.specifier):
            wrong.append(f"{needed} is needed, it is {version}")
        elif version not in ("missing", known):
            other.append(f"{needed.name} {version} (tested: {known})")
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: pip install -c constraints.txt -e .")
    absent = [name for name in OPTIONAL if not find_spec(name)]
    absent += ["chromium"] * (not shutil.which("chromium"))
    words = ", ".join(other) or "all that are needed, as tested"
    return words + f"; optional and not there: {', '.join(absent)}" * bool(absent)


def _machine() -> str:
    import psutil
    import torch

    from richsem.workbook.results import NOTEBOOKS

    memory, disk = psutil.virtual_memory().total, paths.free_bytes(paths.CACHE)
    used = accelerator()
    gpu = torch.cuda.get_device_name() if used and used.type == "cuda" else used or "no GPU"
    if not used and torch.backends.mps.is_available():
        gpu = "a Mac's GPU (used only with PYTORCH_ENABLE_MPS_FALLBACK=1)"
    profile = "demo" if min(memory, disk) > _ROOM else "smoke"
    minutes = sum(getattr(one, profile) for one in NOTEBOOKS.values() if not one.asked)
    return (
        f"{own_cores()} cores, {memory / 1e9:.0f} GB memory, {gpu}, {disk / 1e9:.0f} GB free for "
        f"{paths.portable(str(paths.CACHE))}\n{'':13}`notebooks --profile {profile}` fits; it "
        f"takes about {minutes:.0f} minutes on two cores at most"
    )


def _weights() -> str:
    from richsem.models import weight_files

    files = sorted((Path(__file__).parents[1] / "models").glob("*.safetensors"))
    return ", ".join(f"{file.stem} ({len(weight_files.read(file))} tensors)" for file in files)


def _drawn_data() -> str:
    from richsem.data.drawn import DEMO, drawn_folder
    from richsem.minilvis import render

    root = drawn_folder(DEMO)
    if not render.is_complete(DEMO, root):
        return "not yet, or not all: notebooks draw it when they need it"
    for folder in render.changed(root):
        raise ValueError(f"{folder} is not as it was drawn: remove {root}")
    return "as it was drawn"


def _one_picture() -> str:
    from PIL import Image

    import richsem
    from richsem.data.drawn import SMOKE
    from richsem.minilvis import plans, scenes

    spec, rng = plans.plan_detection(SMOKE, "val")[0], plans.stream(SMOKE, "doctor")
    scene, _ = scenes.paint_scene([*spec.things], size=SMOKE.size, scene=spec.scene, rng=rng)
    detector, began = richsem.load(device="cpu"), time.perf_counter()
    found = detector.detect(Image.fromarray(scene))
    return f"drawn, objects found in it: {len(found)}, in {time.perf_counter() - began:.2f} s"
