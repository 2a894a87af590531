"""Long-tailed object detection: notebooks, detectors and data of the RichSem workbook."""

import argparse
import gc
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from richsem.config import PROFILES, REAL
from richsem.operations import console, real_data, run_commands
from richsem.operations.console import FILE, FOLDER
from richsem.paths import IN_CHECKOUT, ROOT, check_own, check_writable, user_path, write_own
from richsem.processes import GARBAGE_AFTER, speaks

# What the heavy imports inside the functions bring is not needed to show the help.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 fine, 1 failed, 2 wrong usage, 130 interrupted.

    75: a training kept its state, because a signal or its time limit ended it; start it again.
    """
    options = vars(parser().parse_args(arguments))
    run = options.pop("run")
    gc.set_threshold(GARBAGE_AFTER)
    with console.outlets():
        try:
            user_path(".")  # a folder that is gone, libraries would tell in odd ways
            code = run(**options) or 0
            sys.stdout.flush()
            return code
        # A mistake, the disk's, what is absent, no room.
        except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
            if not (words := console.explained(error)):
                raise
            print(f"error: {words}", file=sys.stderr)
            return getattr(error, "code", 2)
        except KeyboardInterrupt as stop:
            if str(stop) and speaks():
                print(stop, file=sys.stderr)
            return getattr(stop, "code", 130)


# --- commands ------------------------------------------------------------------------------------


def _notebooks(
    profile: str, parameter: list[tuple[str, str]], copy: Path | None, **options: Any
) -> int:
    from richsem.workbook import notebook_files, runner

    if copy:
        options |= {"parameter": parameter, "profile": profile != "demo"}
        options["jobs"] = options["jobs"] != 2  # its default
        if over := [name.replace("_", "-") for name, given in options.items() if given]:
            raise ValueError(f"--copy copies all notebooks as they are: leave out --{over[0]}")
        print(*notebook_files.copy_sources(copy), sep="\n")
        return 0
    names = [name for name, _ in parameter]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"-p {twice[0]} is given twice: leave one out")
    outcomes = runner.run_all(profile, overrides=dict(parameter), **options)
    return int(any(outcome.status == "failed" for outcome in outcomes))


def _course(out: Path, **options: Any) -> None:
    from richsem.workbook.figures import pages

    print(f"{len(pages.write(out, **options))} files in {out}")


def _doctor() -> int:
    from richsem.workbook import doctor

    return doctor.examine()


def _data_render(profile: str) -> None:
    from richsem.data import drawn
    from richsem.minilvis import render

    config = {"smoke": drawn.SMOKE, "demo": drawn.DEMO}[profile]
    print(render.build_minilvis(config))
    for folder in render.other_renders(config):
        print(f"drawn by another version of the code, may be deleted: {folder}")


def _clip_train(out: Path | None) -> None:
    from richsem.minilvis.clip_training import PretrainConfig, pretrain
    from richsem.models.miniclip import MINI_WEIGHTS

    target = out or Path(str(MINI_WEIGHTS))
    if out and out.exists():
        raise ValueError(f"{out} exists: name another file, or remove it")
    check_writable(target)
    result = pretrain(PretrainConfig(), target)
    print(f"{target}: loss {result['loss']:.3f}, tau {result['tau']:.1f}")


def _train(
    recipe: str,
    profile: Any,
    seed: int | None,
    steps: int | None,
    settings: list[str],
    out: Path,
    dry_run: bool,
    time_limit: int | None,
    **files: Any,
) -> None:
    from richsem.config import with_settings
    from richsem.minilvis.render import prepare
    from richsem.operations import recipe_book, store
    from richsem.operations.check import require_pictures
    from richsem.operations.dry_run import own_parts, own_sets, show
    from richsem.training import build, stopping
    from richsem.training.parallel import this_process

    if time_limit is not None:
        stopping.end_after(time_limit)
    settings = [*settings, *([] if steps is None else [f"train.steps={steps}"])]
    own = recipe_book.own_files(**files)
    elsewhere = out and out.absolute() != Path(recipe).absolute()
    if not (settings or own or dry_run or elsewhere) and recipe_book.is_finished(recipe):
        raise ValueError(
            f"{recipe} is a finished run: `evaluate {recipe}` judges it; to train anew, change "
            "something (--set, --steps) or name another folder (--out)"
        )
    # Names in the run store end in hashes; recipes are functions, and folders exist.
    if "-" in recipe and not Path(recipe).exists() and not own:
        config = with_settings(store.find(recipe).known(), settings)
    else:
        size, draw = profile or "demo", seed or 0
        config = recipe_book.configure(recipe, size, seed=draw, settings=settings, **own)
    if not own and recipe not in recipe_book.recipe_names() and (profile, seed) != (None, None):
        raise ValueError(
            f"--profile and --seed are for recipes, {recipe} is a run: change its fields by --set, "
            "such as train.seed=1"
        )
    # A dry run describes a recipe whose start is to be made first, but not one that a user names.
    named = any(setting.startswith("init=") for setting in settings)
    to_come = dry_run and not named and not user_path(config.init).exists()
    build.check(replace(config, init="") if to_come else config)  # before anything is drawn
    if config.data.own and not dry_run:
        sets = own_sets(config)
        for name, value in own_parts(config, sets).items():
            print(f"{name:15}{value}", flush=True)
        for pictures in sets if this_process().is_main_process else ():
            require_pictures(pictures)
    if dry_run:
        if out:
            store.check_folder(out, config)
        prepare(config.data)
        show(config, out)
    elif out:
        store.train_into(out, config)
        print(out)
    else:
        store.finish_here([config])
        print(store.run_folder(config))


def _evaluate(
    source: Path, annotations: Path | None, protocol: Any, out: Path, by_class: bool, **options: Any
) -> None:
    from richsem.operations import verdict

    if out:
        check_own(out)
    is_result = source.suffix == ".json" or (source.exists() and not source.is_dir())
    case_of = verdict.of_results if is_result else verdict.of_detector
    given = {name: value for name, value in options.items() if value is not None}
    case = case_of(source, annotations, protocol, **given)
    print(*verdict.judged(case, out, by_class), sep="\n")


def _convert(checkpoint: Path, annotations: Path, out: Path) -> None:
    from richsem.operations.store import CONFIG
    from richsem.training import runs

    if (out / CONFIG).exists():
        raise ValueError(f"{out} holds a run: name another folder for the translated checkpoint")
    runs.convert(checkpoint, annotations, out)
    print(out)


def _export(folder: str, out: Path, size: list[int]) -> None:
    import richsem
    from richsem.operations.export import export

    number, same = export(richsem.load(folder, device="cpu"), out, size)
    print(f"{out}: onnxruntime makes {same} of torch's {number} detections in a picture of noise")


def _detect(
    places: list[str],
    weights: str,
    names: str | None,
    clip: str,
    clip_weights: str,
    threshold: float,
    out: Path | None,
) -> int:
    import richsem
    from richsem.data.pictures import open_rgb
    from richsem.data.reading import DataError
    from richsem.models.clip import ClipConfig
    from richsem.workbook.figures import gallery

    files = gallery.pictures(places)
    drawn, beside = gallery.targets(files, out)
    if not 0 <= threshold <= 1:  # also what is no number
        raise ValueError(f"--threshold is a score, 0 to 1, got {threshold}")
    if (clip or clip_weights) and (not clip or not names or weights == "small"):
        raise ValueError(
            "--clip names the CLIP that reads --names: give --names and --weights, too"
        )
    teacher = ClipConfig(model=clip, weights=clip_weights or "openai") if clip else None
    trained = richsem.load(weights, gallery.given_names(names), teacher=teacher)
    if weights == "small":
        print("the small detector of the package knows drawn pictures only", file=sys.stderr)
    seen, unread = [], 0
    for file, target in zip(files, drawn, strict=True):
        try:
            picture = open_rgb(file, "the picture")
        except DataError as error:
            unread += 1
            print(f"left out: {error}", file=sys.stderr)
            continue
        every = trained.detect(picture, 0.0)
        found = every.select(every.scores >= threshold)
        write_own(target, gallery.drawn(picture, found))
        one = gallery.Seen(picture=file, size=picture.size, found=found, drawn=target.name)
        seen.append(one)
        nothing = len(every) and not len(found)  # rounded down: the best is below the threshold
        best = f" (best score: {int(100 * every.scores[0]) / 100})" if nothing else ""
        print(f"{file}: {one.words}{best}", flush=True)
    if seen:
        gallery.write_beside(beside, seen, trained.classes)
        print(beside[-1] if len(files) > 1 else drawn[0])
    return int(unread > 0)


def _runs_register(result: str, profile: Any, seeds: int, root: str) -> None:
    from richsem.operations import store
    from richsem.workbook.studies import runs_behind

    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}; at least one is needed")
    if profile in REAL and not root:
        raise ValueError(f"the {profile} profile needs real data: name its folder by --root")
    for config in runs_behind(result, profile, all_seeds=range(seeds), root=root):
        print(store.register(config).name)


def _bench(name: str, **options: Any) -> None:
    import torch

    torch.set_num_threads(1)
    if not IN_CHECKOUT:
        raise ValueError("the benchmarks are no part of an installed package: use a checkout")
    sys.path.insert(0, str(ROOT))
    given = {key: value for key, value in options.items() if value is not None}
    for key in {"repeats", "images", "size"} & given.keys():
        if not 0 < given[key] < float("inf"):
            raise ValueError(f"--{key} is {given[key]}; a number above 0 is needed")
    import_module(f"benchmarks.{name}").main(**given)


# --- what they are called with -------------------------------------------------------------------

_PROFILE = {"default": "demo", "help": "size; default: demo"}
_SEVERAL: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
_SWITCH = {"action": "store_true"}
BENCHMARKS = {
    "attention": "deformable attention: sparse product, grid_sample, embedding_bag",
    "step": "a training step part by part; detection",
    "teacher": "what soft labels cost",
    "evaluators": "official and fast evaluators: time and equality",
    "explorer": "the soft-label explorer; regions from one map against crops",
    "two_stage": "the second detector against torchvision's Faster R-CNN",
    "peer": "the first detector against transformers' Deformable DETR",
    "paper": "a step at the published sizes, part by part, with every option",
}


def parser() -> argparse.ArgumentParser:
    """Parser with one sub-command per task; tests check the README's commands against it."""
    root = argparse.ArgumentParser(prog="python -m richsem", description=__doc__)
    commands = root.add_subparsers(required=True, metavar="command")
    _add_notebooks_and_data(commands)
    _add_detectors(commands)
    runs = commands.add_parser("runs", help="the run store: what was trained, what is left to do")
    runs.set_defaults(run=run_commands.show_all)
    tasks = runs.add_subparsers(metavar="task", help="default: list")
    words = "put the runs behind a result on the list, for `finish`"
    add = _command(tasks, "register", _runs_register, words)
    add("result", metavar="ID", help="table or figure, such as table4_versus_detic")
    add("--profile", choices=PROFILES, **_PROFILE)
    add("--seeds", type=int, default=1, metavar="N", help="from 0 on; default: 1")
    add("--root", default="", metavar="DIR", help="real data, at paper")
    run_commands.add_commands(partial(_command, tasks))
    bench = commands.add_parser("bench", help="how fast it is, against named baselines")
    names = bench.add_subparsers(required=True, metavar="name", dest="name")
    for name, words in BENCHMARKS.items():
        add = _command(names, name, _bench, words)
        add("--repeats", type=int, help="the shortest time counts")
        if name in ("step", "teacher"):
            add("--profile", choices=("smoke", "demo"), help="default: demo")
        if name in ("evaluators", "paper"):
            add("--images", type=int, help="default: 100, and 2 per step")
        if name == "paper":
            words = "cpu or cuda; refuses any other than what is found"
            add("--device", type=console.filled, help=words)
            add("--size", type=float, help="factor on the sides of images; default: 1")
    return root


def _command(tasks: Any, name: str, run: Callable, words: str) -> Callable:
    """Adds a command; what comes back adds an argument to it."""
    command = tasks.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
    command.set_defaults(run=run)
    command.register("action", None, console.Once)
    return command.add_argument


def _add_notebooks_and_data(commands: Any) -> None:
    add = _command(commands, "notebooks", _notebooks, "run notebooks into executed copies")
    add("--profile", choices=PROFILES, **_PROFILE)
    add("--only", **_SEVERAL, type=console.filled, metavar="NN", help="names begin with NN")
    add("--seeds", type=int, metavar="N", help="paired seeds per row, where runs are trained")
    add("--force", **_SWITCH, help="run unchanged notebooks too")
    add("--jobs", type=int, default=2, metavar="N", help="side by side; default: 2")
    add("--keep-going", **_SWITCH, help="go on after a failure")
    add("--into", **FOLDER, help="folder for the results of other data; default: your own")
    add("--copy", **FOLDER, help="only copy the notebooks into a folder, to work on them there")
    add("--ship", **_SWITCH, help="replace the results that the project ships")
    pairs = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    words = "any parameter, for the notebooks that have it; VALUE is a YAML or JSON literal"
    add("-p", "--parameter", **pairs, help=words)

    add = _command(commands, "course", _course, "notebooks for a class, slides, a site")
    words = "the notebooks without solutions, or with solved answers"
    add("--edition", choices=("student", "teacher"), help=words)
    add("--slides", **_SWITCH, help="executed notebooks as slides")
    add("--site", **_SWITCH, help="executed notebooks, slides and the report as pages")
    add("--only", **_SEVERAL, type=console.filled, metavar="NN", help="names begin with NN")
    add("--out", **FOLDER, required=True)
    _command(commands, "doctor", _doctor, "is all there, and what can this machine do?")

    data = commands.add_parser("data", help="the embedded benchmark, real sets, your own files")
    tasks = data.add_subparsers(required=True, metavar="task")
    add = _command(tasks, "render", _data_render, "draw the embedded benchmark into the cache")
    add("--profile", choices=("smoke", "demo"), **_PROFILE)
    real_data.add_commands(partial(_command, tasks), _add_own_files)

    clip = commands.add_parser("clip", help="the small CLIP of the embedded benchmark")
    tasks = clip.add_subparsers(required=True, metavar="task")
    add = _command(tasks, "train", _clip_train, "train it anew (an hour on two cores)")
    add("--out", **FILE, help="default: the weights that the package ships")


def _add_own_files(add: Callable) -> None:
    """Adds the files that one learns from and is judged by, for `train` and `check`."""
    add("--annotations", **FILE, help="your own LVIS or COCO file, to learn from")
    add("--images", **FOLDER, help="its images; default: beside it")
    add("--val-annotations", **FILE, help="judge by this file; default: by a held-out part")
    add("--val-images", **FOLDER, help="its images; default: those of --images")
    add("--holdout", type=float, metavar="SHARE", help="held-out part of the images; default: 0.2")
    add("--extra", **FOLDER, help="pictures without boxes; their sub-folders, if any, are labels")
    add("--extra-labels", **FILE, help="labels of --extra: a csv file of FILE,LABEL[;LABEL]")


def _add_detectors(commands: Any) -> None:
    add = _command(commands, "train", _train, "train a detector, or go on with it")
    add("recipe", help="a recipe, an earlier run's folder, or the ID of a run of the store")
    add("--profile", choices=PROFILES, help="size of a recipe; default: demo")
    add("--seed", type=int, help="of a recipe; default: 0")
    add("--steps", type=int, help="optimiser steps, instead of the recipe's")
    words = "any field of the configuration, such as optim.lr=2e-4"
    add("--set", **_SEVERAL, dest="settings", metavar="KEY=VALUE", help=words)
    _add_own_files(add)
    add("--out", **FOLDER, help="default: one folder per configuration in the cache")
    words = "keep the state and end with code 75 before this process is so old"
    add("--time-limit", type=hours_and_minutes, metavar="HH:MM", help=words)
    add("--dry-run", **_SWITCH, help="show what would be done")

    words = "average precision of a trained detector, or of any tool's detections"
    add = _command(commands, "evaluate", _evaluate, words)
    add("source", type=console.place, help="folder of a detector, `small`, or a .json of results")
    add("--split", type=console.filled, help="of the set it was trained on; default: val")
    add("--annotations", **FILE, help="judge by this file")
    add("--images", **FOLDER, help="its images; default: beside it")
    add("--protocol", choices=("lvis", "coco"), help="default: the file's kind")
    add("--batch-size", type=int, help="images at a time; default: 8")
    words = "judge so many images of --annotations, shared out among its classes; default: all"
    add("--max-images", type=int, metavar="N", help=words)
    add("--by-class", **_SWITCH, help="average precision of each class as well, the rarest first")
    add("--out", **FILE, help="write detections as the servers of LVIS and COCO take them")

    add = _command(commands, "convert", _convert, "take over a published checkpoint")
    add("checkpoint", type=console.place, help="published for DINO, RichSem or Detic")
    add("--annotations", **FILE, required=True, help="of the data it was trained on")
    add("--out", **FOLDER, required=True)

    add = _command(commands, "export", _export, "write a detector as an ONNX file")
    add("folder", type=console.filled, help="of a trained detector, or `small`")
    add("--out", **FILE, required=True)
    sides = {"nargs": 2, "type": int, "metavar": ("HEIGHT", "WIDTH"), "default": []}
    add("--size", **sides, help="of the pictures; default: a square of the detector's short side")

    add = _command(commands, "detect", _detect, "find objects in a picture")
    words = "a file, a folder, or a pattern such as '*.jpg'"
    add("places", nargs="+", metavar="PICTURE", help=words)
    words = "folder of a trained detector; default: the package's small one, for drawn pictures"
    add("--weights", **FOLDER | {"type": console.filled}, default="small", help=words)
    words = "classes to look for: names with commas between, or a text file with one per line"
    add("--names", help=words)
    words = "the CLIP that reads the names; default: the one that the detector learnt with"
    add("--clip", default="", metavar="MODEL", help=words)
    add("--clip-weights", default="", metavar="FILE", help="its weights; default: the hub's")
    add("--threshold", type=float, default=0.3, help="lowest score; default: 0.3")
    words = "a .png for one picture, with a .json beside it; a folder for several, with a page"
    add("--out", **FILE | {"metavar": "PLACE"}, help=words)


def hours_and_minutes(text: str) -> int:
    """Seconds of what is written as HH:MM; in no time at all nothing would ever be trained."""
    found = re.fullmatch(r"(\d+):([0-5]\d)", text)
    if not found or not int(found[1] + found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no HH:MM above 0:00")
    return 3600 * int(found[1]) + 60 * int(found[2])


if __name__ == "__main__":
    # What `timeout` and job queues send ends a command like Ctrl-C: tidily, leaving no process.
    for name in {"SIGTERM", "SIGUSR1"} & {*dir(signal)}:
        signal.signal(getattr(signal, name), signal.default_int_handler)
    sys.exit(main())
