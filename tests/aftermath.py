"""What commands leave behind: files that must be whole, processes that must be gone, results."""

import contextlib
import json
import time
from pathlib import Path


def left_processes(home):
    """Workers and kernels that are still there when all commands have ended half a minute ago."""
    mark, until, found = f"RICHSEM_CACHE={home}/cache\0".encode(), time.monotonic() + 30, [""]
    while found and time.monotonic() < until:
        time.sleep(0.1)
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                found += [f"process {file.parent.name} is left"] * (mark in file.read_bytes())
    return found


def broken(home):
    """Files under final names that are not whole."""
    import numpy
    import PIL.Image
    import safetensors.numpy
    import torch

    readers = {"json": lambda path: json.loads(path.read_bytes()), "pt": torch.load}
    readers |= dict.fromkeys(("jpg", "png"), lambda path: PIL.Image.open(path).load())
    readers |= {"npz": numpy.load, "npy": numpy.load, "safetensors": safetensors.numpy.load_file}
    for path in home.rglob("*.*"):
        try:
            readers.get(path.suffix[1:], Path.exists)(path)
        except Exception as error:
            yield f"{path}: {error}"


def content(path):
    """What must be the same: bytes, results of a notebook, a history without its times."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_bytes())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        return [output for output in outputs if output.get("name") != "stderr"]  # no progress
    if path.suffix == ".jsonl":
        times = {"seconds": 0, "cpu_seconds": 0}
        return [str({**json.loads(line), **times}) for line in path.open()]
    return path.read_bytes()
