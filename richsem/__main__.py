"""Command line: `python -m richsem notebooks --profile demo --only 02`."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from richsem.config import PROFILES

# What the heavy imports inside the functions bring is not needed to show the help.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, FileNotFoundError) as error:  # a user's mistake, explained by its message
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


# --- commands ------------------------------------------------------------------------------------


def _notebooks(options: argparse.Namespace) -> int:
    from richsem.workbook import runner

    outcomes = runner.run_all(
        options.profile,
        only=options.only,
        overrides=dict(options.parameter),
        seeds=options.seeds,
        force=options.force,
        keep_going=options.keep_going,
        jobs=options.jobs,
        into=options.into,
        ship=options.ship,
    )
    return int(any(outcome.status == "failed" for outcome in outcomes))


def _data_render(options: argparse.Namespace) -> None:
    from richsem.data import drawn
    from richsem.minilvis import render

    config = {"smoke": drawn.SMOKE, "demo": drawn.DEMO}[options.profile]
    print(render.build_minilvis(config))
    for folder in render.other_renders(config):
        print(f"drawn by another version of the code, may be deleted: {folder}")


def _data_check(options: argparse.Namespace) -> None:
    from richsem.data.box_sets import BoxDataset

    dataset = BoxDataset.load(options.annotations, options.images)
    groups = dataset.frequency_groups().tolist()
    counts = {"rare": groups.count("r"), "common": groups.count("c"), "frequent": groups.count("f")}
    missing = dataset.missing_images()
    print(f"images      {len(dataset):,}")
    print(f"boxes       {len(dataset.labels):,} and {dataset.num_crowd:,} crowd regions")
    print(f"categories  {len(groups):,}")
    print("            " + ", ".join(f"{number:,} {name}" for name, number in counts.items()))
    print(f"files       {len(dataset) - len(missing):,} found, {len(missing):,} missing")
    for name in missing[:3]:
        print(f"            missing: {dataset.image_root / name}")


def _clip_train(options: argparse.Namespace) -> None:
    from richsem.minilvis.clip_training import PretrainConfig, pretrain
    from richsem.models.miniclip import MINI_WEIGHTS

    target = options.out or Path(str(MINI_WEIGHTS))
    result = pretrain(PretrainConfig(), target)
    print(f"{target}: loss {result['loss']:.3f}, tau {result['tau']:.1f}")


def _train(options: argparse.Namespace) -> None:
    from richsem import recipes
    from richsem.config import to_json, with_settings
    from richsem.minilvis.render import prepare
    from richsem.operations import store
    from richsem.operations.dry_run import summary
    from richsem.training import runs

    settings = [*options.set, *([f"train.steps={options.steps}"] if options.steps else [])]
    # Names in the run store end in hashes; recipes are functions, and folders exist.
    if "-" in options.recipe and not Path(options.recipe).exists():
        config = with_settings(store.find(options.recipe).known(), settings)
    else:
        config = recipes.configure(
            options.recipe, options.profile, seed=options.seed, settings=settings
        )
    if options.dry_run:
        prepare(config.data)
        print(to_json(config), end="")
        place = options.out or store.describe_folder(config)
        for name, value in {**summary(config), "folder": place}.items():
            print(f"{name:15}{value}")
    elif options.out:
        runs.run(store.started(config), options.out)
        print(options.out)
    else:
        store.finish_here([config])
        print(store.run_folder(config))


def _runs_register(options: argparse.Namespace) -> None:
    from richsem.operations import store
    from richsem.workbook.studies import runs_behind

    if options.seeds < 1:
        raise ValueError(f"--seeds is {options.seeds}; at least one is needed")
    if options.profile == "paper" and not options.root:
        raise ValueError("the paper profile needs real data: name its folder by --root")
    known = {"all_seeds": range(options.seeds), "root": options.root}
    for config in runs_behind(options.result, options.profile, **known):
        print(store.register(config).name)


def _runs_list(options: argparse.Namespace) -> None:
    from richsem.operations import store

    for one in store.entries():
        print(f"{one.id:50} {one.state:18} {one.cpu_seconds:7.0f} CPU-s")


def _runs_show(options: argparse.Namespace) -> None:
    import json

    from richsem.operations import store

    print(json.dumps(store.describe(store.find(options.id)), indent=1))


def _runs_finish(options: argparse.Namespace) -> None:
    from richsem.operations import store

    chosen = []
    for one in map(store.find, options.runs) if options.runs else store.entries():
        if one.state not in store.NOT_TO_TRAIN:
            chosen.append(one.known())
        elif options.runs:
            raise ValueError(f"{one.id} is {one.state!r}: {one.problem}")
        elif one.state == "damaged":
            print(f"left out: {one.problem}", file=sys.stderr)
    store.finish_here(chosen, options.split, waits=not options.no_wait)


def _runs_delete(options: argparse.Namespace) -> None:
    from richsem.operations import store

    chosen = [store.find(name) for name in options.runs]
    if options.outdated:
        chosen += [one for one in store.entries() if one.state == "outdated"]
    for one in chosen:
        store.delete(one)
        print(f"deleted {one.id}")


def _evaluate(options: argparse.Namespace) -> None:
    import json

    from richsem.minilvis.render import prepare
    from richsem.paths import write_atomic
    from richsem.training import runs

    trained = runs.open_trained(options.folder)
    if options.annotations:
        images = options.images or options.annotations.parent
        file = (options.annotations, images, options.protocol)
        result, found = runs.evaluate_file(trained, *file, batch_size=options.batch_size)
    else:
        if trained.recipe:
            prepare(trained.recipe.data)
        result, found = runs.evaluate_split(trained, options.split, batch_size=options.batch_size)
    print(f"{result.ground_truth}: {result.num_images:,} images, {result.protocol} protocol")
    for name, value in result.metrics.items():
        print(f"{name:6}{100 * value:6.2f}")
    if options.out:
        write_atomic(options.out, json.dumps(found.to_list()) + "\n")


def _convert(options: argparse.Namespace) -> None:
    from richsem.training import runs

    runs.convert(options.checkpoint, options.annotations, options.out)
    print(options.out)


def _detect(options: argparse.Namespace) -> None:
    import json

    from richsem.data.reading import open_rgb
    from richsem.paths import write_atomic
    from richsem.training import runs
    from richsem.workbook.figures.drawing import contact_sheet

    image = open_rgb(options.image, "the picture")
    found = runs.open_trained(options.weights).detect(image, options.threshold)
    rows = list(zip(found.names, found.scores, strict=True))
    for name, score in rows:
        print(f"{score:.2f}  {name}")
    if not rows:
        print(f"nothing found with a score of {options.threshold} or more")
    sheet = contact_sheet(
        [image],
        columns=1,
        boxes=[found.boxes_xyxy.tolist()],
        labels=[[f"{name} {score:.2f}" for name, score in rows]],
        rare=[[frequency == "r" for frequency in found.frequencies]],
    )
    out = options.out or options.image.with_name(f"{options.image.stem}-detections.png")
    sheet.savefig(out, dpi=300, bbox_inches="tight")
    write_atomic(out.with_suffix(".json"), json.dumps(found.to_list(), indent=1) + "\n")
    print(out)


def _bench(options: argparse.Namespace) -> None:
    from importlib import import_module

    import torch

    from richsem.paths import ROOT

    torch.set_num_threads(1)
    given = {key: value for key, value in vars(options).items() if value is not None}
    del given["run"], given["name"]
    sys.path.insert(0, str(ROOT))  # the benchmarks lie beside the package, in the checkout
    import_module(f"benchmarks.{options.name}").main(**given)


# --- what they are called with -------------------------------------------------------------------

_Argument = tuple[tuple[str, ...], dict[str, Any]]


def _arg(*names: str, **settings: Any) -> _Argument:
    return names, settings


def _file(name: str, metavar: str = "FILE", **settings: Any) -> _Argument:
    return (name,), {"type": Path, "metavar": metavar, **settings}


def _several(name: str, metavar: str, help: str) -> _Argument:
    settings = {"nargs": "+", "action": "extend", "default": [], "metavar": metavar, "help": help}
    return (name,), settings


def _profile(*choices: str) -> _Argument:
    return ("--profile",), {"choices": choices, "default": "demo", "help": "size; default: demo"}


def _add(tasks: Any, name: str, run: Callable, words: str, *arguments: _Argument) -> None:
    command = tasks.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
    for names, settings in arguments:
        command.add_argument(*names, **settings)
    command.set_defaults(run=run, **({"name": name} if run is _bench else {}))


def parser() -> argparse.ArgumentParser:
    """Parser with one sub-command per task; tests check the README's commands against it."""
    root = argparse.ArgumentParser(prog="python -m richsem", description=__doc__)
    commands = root.add_subparsers(required=True, metavar="command")
    _add_notebooks(commands)
    data = commands.add_parser("data", help="draw the embedded benchmark, check your own files")
    _add_data(data.add_subparsers(required=True, metavar="task"))
    clip = commands.add_parser("clip", help="the small CLIP of the embedded benchmark")
    _add(
        clip.add_subparsers(required=True, metavar="task"),
        *("train", _clip_train, "train it anew (an hour on two cores)"),
        _file("--out", help="default: the weights that the package ships"),
    )
    _add_detectors(commands)
    runs = commands.add_parser("runs", help="the run store: what was trained, what is left to do")
    runs.set_defaults(run=_runs_list)
    _add_runs(runs.add_subparsers(metavar="task", help="default: list"))
    bench = commands.add_parser("bench", help="how fast it is, against named baselines")
    _add_bench(bench.add_subparsers(required=True, metavar="name"))
    return root


def _add_notebooks(commands: Any) -> None:
    _add(
        commands,
        *("notebooks", _notebooks, "run notebooks into executed copies"),
        _profile(*PROFILES),
        _several("--only", "NN", "names begin with NN"),
        _arg("--seeds", type=int, metavar="N", help="paired seeds per row, where runs are trained"),
        _arg("--force", action="store_true", help="run unchanged notebooks too"),
        _arg("--jobs", type=int, default=2, metavar="N", help="side by side; default: 2"),
        _arg("--keep-going", action="store_true", help="go on after a failure"),
        _file("--into", "DIR", help="folder for the results of other data; default: your own"),
        _arg("--ship", action="store_true", help="replace the results that the project ships"),
        _arg(
            *("-p", "--parameter"),
            nargs=2,
            action="append",
            default=[],
            metavar=("NAME", "VALUE"),
            help="any parameter, for the notebooks that have it; VALUE is a YAML or JSON literal",
        ),
    )


def _add_data(tasks: Any) -> None:
    words = "draw the embedded benchmark into the cache"
    _add(tasks, "render", _data_render, words, _profile("smoke", "demo"))
    _add(
        tasks,
        *("check", _data_check, "read an LVIS or COCO file as the notebooks do"),
        _file("--annotations", required=True),
        _file("--images", "DIR", required=True),
    )


def _add_detectors(commands: Any) -> None:
    _add(
        commands,
        *("train", _train, "train a detector, or go on with it"),
        _arg("recipe", help="a recipe, an earlier run's folder, or the ID of a run of the store"),
        _profile(*PROFILES),
        _arg("--seed", type=int, default=0, help="default: 0"),
        _arg("--steps", type=int, help="optimiser steps, instead of the recipe's"),
        _several("--set", "KEY=VALUE", "any field of the configuration, such as optim.lr=2e-4"),
        _file("--out", "DIR", help="default: one folder per configuration in the cache"),
        _arg("--dry-run", action="store_true", help="show what would be done"),
    )
    _add(
        commands,
        *("evaluate", _evaluate, "average precision of a trained detector"),
        _file("folder", "folder", help="of a trained detector"),
        _arg("--split", default="val", help="of the set it was trained on; default: val"),
        _file("--annotations", help="judge by this file"),
        _file("--images", "DIR", help="its images; default: beside it"),
        _arg("--protocol", choices=("lvis", "coco"), help="default: the file's kind"),
        _arg("--batch-size", type=int, default=8, help="images at a time; default: 8"),
        _file("--out", help="detections as COCO results"),
    )
    _add(
        commands,
        *("convert", _convert, "take over a published checkpoint"),
        _file("checkpoint", "checkpoint", help="published for DINO, RichSem or Detic"),
        _file("--annotations", required=True, help="of the data it was trained on"),
        _file("--out", "DIR", required=True),
    )
    _add(
        commands,
        *("detect", _detect, "find objects in a picture"),
        _file("image", "image"),
        _file("--weights", "DIR", required=True, help="folder of a trained detector"),
        _arg("--threshold", type=float, default=0.3, help="lowest score; default: 0.3"),
        _file("--out", help="picture; a .json is written beside it"),
    )


def _add_runs(tasks: Any) -> None:
    _add(
        tasks,
        *("register", _runs_register, "put the runs behind a result on the list, for `finish`"),
        _arg("result", metavar="ID", help="table or figure, such as table4_versus_detic"),
        _profile(*PROFILES),
        _arg("--seeds", type=int, default=1, metavar="N", help="from 0 on; default: 1"),
        _arg("--root", default="", metavar="DIR", help="real data, at paper"),
    )
    _add(tasks, "list", _runs_list, "all runs of the store")
    _add(
        tasks,
        *("show", _runs_show, "configuration, cost and results of a run"),
        _arg("id", metavar="ID", help="beginning of its name"),
    )
    _add(
        tasks,
        *("finish", _runs_finish, "train and judge runs that are not finished, one by one"),
        _arg("runs", nargs="*", metavar="ID", help="default: all"),
        _arg("--split", default="val", help="judge on this split; default: val"),
        _arg("--no-wait", action="store_true", help="end when others train all that is left"),
    )
    _add(
        tasks,
        *("delete", _runs_delete, "remove runs with their weights and results"),
        _arg("runs", nargs="*", metavar="ID"),
        _arg("--outdated", action="store_true", help="all whose code or data changed"),
    )


def _add_bench(names: Any) -> None:
    repeats = _arg("--repeats", type=int, help="the shortest time counts")
    sized = (repeats, _arg("--profile", choices=("smoke", "demo"), help="default: demo"))
    some = (repeats, _arg("--images", type=int, help="default: 100"))
    for name, words, arguments in (
        ("attention", "deformable attention: sparse product, grid_sample, embedding_bag", ()),
        ("step", "a training step part by part; detection", sized),
        ("teacher", "what soft labels cost", sized),
        ("evaluators", "official and fast evaluators: time and equality", some),
        ("explorer", "the soft-label explorer; regions from one map against crops", ()),
        ("two_stage", "the second detector against torchvision's Faster R-CNN", ()),
    ):
        _add(names, name, _bench, words, *(arguments or (repeats,)))


if __name__ == "__main__":
    # What `timeout` and job queues send ends a command like Ctrl-C: tidily, leaving no process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
