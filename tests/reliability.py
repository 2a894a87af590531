"""Commands that are killed, doubled and short of room: nothing is lost, going on gives the same.

`python tests/reliability.py --kills 50` kills so many, tries the accidents and prints the counts.
Every command is a forked copy of this process, which has imported all that is heavy: so the random
moments fall into work and not into imports.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from importlib import import_module
from pathlib import Path

TRAINING = "train baseline --profile smoke --set train.steps=8 train.checkpoint_every=1 --out {}/run"
RUN, RENDER = ("weights.safetensors", "start.safetensors", "log.jsonl"), "data render --profile smoke"
JOBS = {  # what is run, and the files that must come out the same
    "render": (RENDER, ["cache/minilvis-*/*.json", "cache/minilvis-*/[ai]*/**/*.*"]),
    "train": (TRAINING, [f"run/{name}" for name in RUN]),
    "finish": ("runs finish", [f"cache/runs/*/{name}" for name in (*RUN, "judged-*")]),
    "evaluate": ("evaluate {}/detector --out {}/found.json", ["found.json"]),
    "detect": ("detect {}/photos --out {}/found --threshold 0.1", ["found/*"]),
    "notebook": ("notebooks --profile smoke --only 00 --into {}", ["notebooks/smoke/*.ipynb"]),
}
HEAVY = ("operations.store", "operations.verdict", "workbook.runner", "workbook.figures.gallery")
CHAIN = 3  # kills, at most, before a command may end
counts, faults = Counter(), []


# --- one command ---------------------------------------------------------------------------------


def start(words, home):
    """Begins a command in a session of its own; what it says is added to a file beside `home`."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        said = os.open(said_by(home), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.environ["RICHSEM_CACHE"] = str(home / "cache")
        import_module("richsem.paths").CACHE = home / "cache"
        code = import_module("richsem.__main__").main(words.replace("{}", str(home)).split())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def said_by(home):
    return home.with_suffix(".txt")


def end(pid, seconds=600.0):
    """Exit code of a command, or None if it still runs after so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def finished(name, home):
    """Exit code of a job that nothing disturbs."""
    return end(start(JOBS[name][0], home))


def left_processes(home, seconds=30):
    """Workers and kernels of commands that are still there after so many seconds."""
    mark, until, found = f"RICHSEM_CACHE={home}/cache\0".encode(), time.monotonic() + seconds, True
    while found and time.monotonic() < until:
        time.sleep(0.1)
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                found += [file.parent.name] if mark in file.read_bytes() else []
    return found


# --- what lies there afterwards ------------------------------------------------------------------


def broken(home):
    """Files under final names that are not whole."""
    import numpy
    import PIL.Image
    import safetensors.numpy
    import torch

    readers = {
        (".json", ".ipynb"): lambda path: json.loads(path.read_bytes()),
        (".jpg", ".png"): lambda path: PIL.Image.open(path).load(),
        (".npz", ".npy"): numpy.load,
        (".pt",): torch.load,
        (".safetensors",): safetensors.numpy.load_file,
    }
    for path in home.rglob("*.*"):
        read = [read for endings, read in readers.items() if path.suffix in endings]
        if read and ".partial." not in path.name:
            try:
                read[0](path)
            except Exception as error:
                yield f"{path}: {error}"


def content(path):
    """What must be the same: bytes, outputs of a notebook, a history without its times."""
    raw = path.read_bytes()
    if path.suffix == ".ipynb":
        return [cell.get("outputs") for cell in json.loads(raw)["cells"]]
    if path.suffix == ".jsonl":
        times = {"seconds": 0, "cpu_seconds": 0}
        return [str({**json.loads(line), **times}) for line in raw.splitlines()]
    return raw


def results(name, home):
    """Contents of the files that a job makes, by name."""
    found = (path for pattern in JOBS[name][1] for path in home.glob(pattern) if path.is_file())
    return {str(path.relative_to(home)): content(path) for path in found}


def look(what, home, expected=None):
    """Notes what is wrong: half files, left processes, tracebacks, and results unlike `expected`."""
    name = what.split()[0]
    wrong = [*broken(home), *(f"process {pid} is left" for pid in left_processes(home))]
    said = said_by(home).read_text(errors="replace")
    wrong += [said] if "Traceback" in said else []
    if expected is not None and (found := results(name, home)) != expected:
        other = [file for file in {**expected, **found} if found.get(file) != expected.get(file)]
        wrong.append(f"not the same: {sorted(other)[:4]}: {said[-600:]}")
    faults.extend(f"{what}: {one}" for one in wrong)
    counts[f"{what}: {'wrong' if wrong else 'fine'}"] += 1


def refused(what, home, code):
    """A command that could not do its work says so in one line."""
    lines = [line for line in said_by(home).read_text().splitlines() if line.startswith("error: ")]
    if code not in (0, 2) or len(lines) != (code == 2):
        faults.append(f"{what}: exit code {code}: {said_by(home).read_text()[-600:]}")
    counts[f"{what}: exit code {code}"] += 1


# --- accidents -----------------------------------------------------------------------------------


def anew(ready, home):
    shutil.rmtree(home, ignore_errors=True)
    said_by(home).unlink(missing_ok=True)
    shutil.copytree(ready, home)


def kill(name, ready, home, expected, seconds, kills):
    """Kills a job at random moments, in chains; then it goes on to its end."""
    left = kills
    while left:
        anew(ready, home)
        for _ in range(min(left, random.randint(1, CHAIN))):
            before = {path for path in home.rglob("[!.]*.*") if ".partial." not in path.name}
            pid = start(JOBS[name][0], home)
            if end(pid, random.uniform(0.02, seconds)) is not None:
                counts[f"{name}: done before"] += 1
                break
            os.kill(pid, signal.SIGKILL)
            end(pid)
            left -= 1
            counts[f"{name}: killed"] += 1
            look(f"{name} after a kill", home)
            faults.extend(f"{name}: lost {path}" for path in before if not path.exists())
        temporary = [path.name for path in home.rglob(".*.tmp")]
        counts[f"{name}: temporary files left"] += len(temporary)
        code = finished(name, home)
        look(f"{name} went on, exit code {code}", home, expected)


def double(name, ready, home, expected):
    """Two at once in the same folders."""
    anew(ready, home)
    pids = [start(JOBS[name][0], home) for _ in range(2)]
    codes = sorted(map(end, pids))
    if codes not in ([0, 0], [0, 2] if name == "train" else []):
        faults.append(f"{name} twice: exit codes {codes}: {said_by(home).read_text()[-600:]}")
    look(f"{name} twice, exit codes {codes}", home, expected)


def vanish(name, ready, home, expected, seconds):
    """Pictures are deleted midway; once they are back, the job ends as always."""
    anew(ready, home)
    pid = start(JOBS[name][0], home)
    code = end(pid, random.uniform(0, seconds))
    for path in (*home.glob("photos/*"), *home.glob("cache/minilvis-*/images/**/*.jpg")):
        path.unlink()
    code = end(pid) if code is None else code
    refused(f"{name} without its pictures", home, code)
    shutil.copytree(ready, home, dirs_exist_ok=True)
    finished(name, home)
    look(f"{name} with its pictures again", home, expected)


def mounted(options, home):
    return subprocess.run(["mount", *options.split(), str(home)], capture_output=True).returncode


def confine(name, ready, home, expected):
    """A full disk, then a folder that is read only; then there is room, and the job goes on."""
    anew(ready, home)
    used = sum(path.stat().st_blocks * 512 for path in home.rglob("*"))
    room = sum(len(str(value)) for value in expected.values()) // 3
    shutil.rmtree(home)
    home.mkdir()
    if mounted(f"-t tmpfs -o size={used + room} tmpfs", home):
        counts["no small disk here"] += 1
        return
    try:
        shutil.copytree(ready, home, dirs_exist_ok=True)
        refused(f"{name} on a full disk", home, finished(name, home))
        mounted("-o remount,ro,size=1g", home)
        said_by(home).write_text("")
        refused(f"{name} in a folder that is read only", home, finished(name, home))
        mounted("-o remount,rw,size=1g", home)
        finished(name, home)
        look(f"{name} with room again", home, expected)
    finally:
        subprocess.run(["umount", "--lazy", str(home)])


# --- all of it -----------------------------------------------------------------------------------


def prepare(folder):
    """What jobs start from: nothing, and a drawn benchmark with a detector, a run and pictures."""
    (folder / "nothing").mkdir()
    home, ready = folder / "home", folder / "ready"
    home.mkdir()
    register = "runs register table4_versus_detic --profile smoke"
    for words in (RENDER, TRAINING, register):
        if code := end(start(words, home)):
            sys.exit(f"exit code {code}: {said_by(home).read_text()}")
    for path in home.glob("cache/features-*"):
        shutil.rmtree(path)
    for extra in sorted(home.glob("cache/runs/*"))[1:]:
        shutil.rmtree(extra)
    (home / "run" / "state.pt").unlink()
    (home / "run").rename(home / "detector")
    (home / "photos").mkdir()
    for path in sorted(home.glob("cache/minilvis-*/images/lvis/val/*.jpg"))[:6]:
        shutil.copy(path, home / "photos")
    home.rename(ready)


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("--kills", type=int, default=50)
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--only", nargs="*", default=list(JOBS), choices=JOBS)
    parse.add_argument("--accidents", nargs="*", default=["double", "vanish", "confine"])
    chosen = parse.parse_args()
    random.seed(chosen.seed)
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
            code = finished(name, home)
            seconds, expected = time.monotonic() - began, results(name, home)
            look(f"{name} undisturbed, exit code {code}", home)
            share = [chosen.kills // len(chosen.only)] * len(chosen.only)
            kills = share[number] + (number < chosen.kills % len(chosen.only))
            kill(name, ready, home, expected, seconds, kills)
            if "double" in chosen.accidents:
                double(name, ready, home, expected)
            if "vanish" in chosen.accidents:
                vanish(name, ready, home, expected, seconds)
            if "confine" in chosen.accidents:
                confine(name, ready, home, expected)
            print(f"{name}: {seconds:.0f} s undisturbed", *faults, sep="\n", flush=True)
    print(*(f"{number:4} {what}" for what, number in sorted(counts.items())), sep="\n")
    print(f"{len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
