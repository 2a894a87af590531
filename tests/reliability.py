"""Commands that are killed, doubled and short of room: nothing is lost, going on gives the same.

`python tests/reliability.py --kills 50` prints what became of all, and each fault. Commands are
forked copies of this process, which has imported all: random moments fall into work.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

SMOKE = "--profile smoke"
RENDER, STEPS = f"data render {SMOKE}", "--set train.steps=8 train.checkpoint_every=1"
TRAINED = ("weights.safetensors", "start.safetensors", "log.jsonl")
JOBS = {  # what is run, and the files that must come out the same
    "render": (RENDER, ["cache/minilvis-*/*.json", "cache/minilvis-*/[ai]*/**/*.*"]),
    "train": (f"train baseline {SMOKE} {STEPS} --out {{}}/run", [f"run/{n}" for n in TRAINED]),
    "finish": ("runs finish", [f"cache/runs/*/{name}" for name in (*TRAINED, "judged-*")]),
    "evaluate": ("evaluate {}/detector --out {}/found.json", ["found.json"]),
    "detect": ("detect {}/photos --out {}/found --threshold 0.1", ["found/*"]),
    "notebook": (f"notebooks {SMOKE} --only 00 --into {{}}", ["notebooks/smoke/*.ipynb"]),
}
HEAVY = ("operations.store", "operations.verdict", "workbook.runner", "workbook.figures.gallery")
CHAIN = 3  # kills, at most, before a command may end
counts, faults = Counter(), []


def start(words, home):
    """Begins a command; what it says is added to `home`.txt."""
    process = multiprocessing.get_context("fork").Process(target=command, args=(words, home))
    process.start()
    return process


def command(words, home):
    with home.with_suffix(".txt").open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.environ["RICHSEM_CACHE"] = str(home / "cache")
    import_module("richsem.paths").CACHE = home / "cache"
    sys.exit(import_module("richsem.__main__").main(words.replace("{}", str(home)).split()))


def code_of(process):
    process.join(600)
    return process.exitcode


def results(name, home):
    found = (path for pattern in JOBS[name][1] for path in home.glob(pattern) if path.is_file())
    return {str(path.relative_to(home)): content(path) for path in found}


# --- what commands leave behind -----------------------------------------------------------------


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


def look(what, home, codes, allowed=(0,), expected=None):
    """Counts how commands ended, and notes what is wrong with it or with what lies there."""
    text = home.with_suffix(".txt").read_text(errors="replace")
    wrong = [*broken(home), *left_processes(home)] + ["a traceback"] * ("Traceback" in text)
    wrong += [f"exit codes {codes}"] * (not set(codes) <= set(allowed))
    wrong += ["not said in one line"] * (text.count("error: ") != codes.count(2))
    if expected is not None and (found := results(what.split()[0], home)) != expected:
        every = sorted({*expected, *found})
        names = [file for file in every if found.get(file) != expected.get(file)]
        wrong.append(f"not the same: {names[:4]}")
    faults.extend(f"{what}: {one}; it said: {text[-500:]}" for one in wrong)
    counts[f"{what}: {'wrong' if wrong else 'fine'}, exit codes {sorted(codes)}"] += 1
    home.with_suffix(".txt").write_text("\n")


def anew(ready, home):
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(ready, home)
    home.with_suffix(".txt").write_text("\n")


def kill(name, ready, home, expected, seconds, left):
    """Kills a job at random moments, in chains; then it goes on to its end."""
    while left:
        anew(ready, home)
        for _ in range(min(left, random.randint(1, CHAIN))):
            before = {path for path in home.rglob("[!.]*.*") if ".partial." not in path.name}
            process = start(JOBS[name][0], home)
            process.join(random.uniform(0.02, seconds))
            process.kill()
            if (code := code_of(process)) == 0:  # it was quicker than before
                break
            left -= 1
            look(f"{name} killed", home, [code], allowed=(-9,))
            faults.extend(f"{name}: lost {path}" for path in before if not path.exists())
        counts[f"{name}: temporary files left"] += len([*home.rglob(".*.tmp")])
        again(f"{name} after kills", home, expected)


def again(what, home, expected):
    codes = [code_of(start(JOBS[what.split()[0]][0], home))]
    look(what, home, codes, expected=expected)


def double(name, ready, home, expected):
    """Two at once in the same folders; of trainings the second one is refused."""
    anew(ready, home)
    codes = [code_of(one) for one in [start(JOBS[name][0], home) for _ in range(2)]]
    look(f"{name} twice at once", home, codes, (0, 2) if name == "train" else (0,), expected)


def vanish(name, ready, home, expected, seconds):
    """Pictures are deleted midway; once they are back, the job ends as always."""
    anew(ready, home)
    process = start(JOBS[name][0], home)
    process.join(random.uniform(0, seconds))
    for path in (*home.glob("photos/*"), *home.glob("cache/minilvis-*/images/**/*.jpg")):
        path.unlink()
    look(f"{name} loses pictures", home, [code_of(process)], allowed=(0, 1, 2))
    shutil.copytree(ready, home, dirs_exist_ok=True)
    again(f"{name} with pictures back", home, expected)


def mount(options, home):
    return subprocess.run(["mount", *options.split(), home], capture_output=True).returncode == 0


def confine(name, ready, home, expected):
    """A full disk, then one that is read only; with room again, the job goes on."""
    room = sum(path.stat().st_blocks * 512 for path in ready.rglob("*")) + 20_000
    shutil.rmtree(home)
    home.mkdir()
    if not mount(f"-t tmpfs -o size={room} tmpfs", home):
        counts["small disks are not possible here"] += 1
        return
    try:
        shutil.copytree(ready, home, dirs_exist_ok=True)
        for what, options in (("on a full disk", ""), ("read only", "-o remount,ro,size=1g")):
            if options:
                mount(options, home)
            codes = [code_of(start(JOBS[name][0], home))]
            look(f"{name} {what}", home, codes, allowed=(2,))
        mount("-o remount,rw,size=1g", home)
        again(f"{name} with room again", home, expected)
    finally:
        subprocess.run(["umount", "--lazy", home])


def prepare(folder):
    """What jobs start from: nothing, or a drawn benchmark with a detector, a run and pictures."""
    home, ready = folder / "home", folder / "ready"
    (folder / "nothing").mkdir()
    home.mkdir()
    for words in (RENDER, JOBS["train"][0], f"runs register table4_versus_detic {SMOKE}"):
        if code := code_of(start(words, home)):
            sys.exit(f"exit code {code}: {home.with_suffix('.txt').read_text()}")
    for path in [*home.glob("cache/features-*"), *sorted(home.glob("cache/runs/*"))[1:]]:
        shutil.rmtree(path)
    (home / "run" / "state.pt").unlink()
    (home / "run").rename(home / "detector")
    (home / "photos").mkdir()
    for path in sorted(home.glob("cache/minilvis-*/images/lvis/val/*.jpg"))[:6]:
        shutil.copy(path, home / "photos")
    home.rename(ready)


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("--kills", type=int, default=50)
    parse.add_argument("--only", nargs="*", default=[*JOBS], choices=JOBS)
    parse.add_argument("--only-kills", action="store_true", help="no other accidents")
    chosen = parse.parse_args()
    random.seed(0)
    for name in HEAVY:
        import_module(f"richsem.{name}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        home = folder / "home"
        prepare(folder)
        for number, name in enumerate(chosen.only):
            ready = folder / ("nothing" if name == "render" else "ready")
            anew(ready, home)
            began = time.monotonic()
            look(f"{name} undisturbed", home, [code_of(start(JOBS[name][0], home))])
            seconds, expected = time.monotonic() - began, results(name, home)
            share = len(range(number, chosen.kills, len(chosen.only)))
            kill(name, ready, home, expected, seconds, share)
            if not chosen.only_kills:
                double(name, ready, home, expected)
                vanish(name, ready, home, expected, seconds)
                confine(name, ready, home, expected)
            print(f"{name}: {len(expected)} files, {seconds:.0f} s undisturbed", flush=True)
            print(*faults, sep="\n", flush=True)
    print(*(f"{number:4} {what}" for what, number in sorted(counts.items())), sep="\n")
    print(f"{len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
