"""Command line: `python -m richsem notebooks --profile demo --only 02`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from richsem.config import PROFILES
from richsem.data import drawn


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, FileNotFoundError) as error:  # a user's mistake, explained by its message
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Parser with one sub-command per task; tests check the README's commands against it."""
    root = argparse.ArgumentParser(prog="python -m richsem", description=__doc__)
    commands = root.add_subparsers(required=True, metavar="command")
    _add_notebooks(commands.add_parser("notebooks", help="run notebooks into executed copies"))
    data = commands.add_parser("data", help="render the embedded benchmark, check your own files")
    _add_data(data.add_subparsers(required=True, metavar="task"))
    clip = commands.add_parser("clip", help="the small CLIP of the embedded benchmark")
    _add_clip(clip.add_subparsers(required=True, metavar="task"))
    _add_train(commands.add_parser("train", help="train a detector, or go on with it"))
    runs = commands.add_parser("runs", help="the run store: what was trained, what is left to do")
    runs.set_defaults(run=_run_runs_list)
    _add_runs(runs.add_subparsers(metavar="task", help="default: list"))
    _add_evaluate(commands.add_parser("evaluate", help="average precision of a trained detector"))
    _add_convert(commands.add_parser("convert", help="take over a published checkpoint"))
    _add_detect(commands.add_parser("detect", help="find objects in a picture"))
    bench = commands.add_parser("bench", help="how fast it is, against named baselines")
    _add_bench(bench.add_subparsers(required=True, metavar="name"))
    return root


def _add_notebooks(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profile", choices=PROFILES, default="demo", help="default: demo")
    command.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="NN", help="names begin with NN"
    )
    command.add_argument(
        "--seeds", type=int, metavar="N", help="paired seeds per row, in notebooks that train runs"
    )
    command.add_argument("--force", action="store_true", help="run unchanged notebooks too")
    command.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="notebooks side by side; default: 2"
    )
    command.add_argument("--keep-going", action="store_true", help="go on after a failure")
    command.add_argument(
        "--into",
        type=Path,
        metavar="DIR",
        help="folder for figures/ and notebooks/ of a run on other data; default: the project's",
    )
    command.add_argument(
        "--ship", action="store_true", help="replace the results that the project ships"
    )
    command.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="any parameter, for those of the notebooks that have it; VALUE is a YAML or JSON "
        "literal",
    )
    command.set_defaults(run=_run_notebooks)


def _run_notebooks(options: argparse.Namespace) -> int:
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


def _add_data(tasks: Any) -> None:
    render = tasks.add_parser("render", help="draw the embedded benchmark into the cache")
    render.add_argument("--profile", choices=("smoke", "demo"), default="demo")
    render.set_defaults(run=_run_render)
    check = tasks.add_parser("check", help="read an LVIS or COCO file as the notebooks do")
    check.add_argument("--annotations", required=True, type=Path, metavar="FILE")
    check.add_argument("--images", required=True, type=Path, metavar="FOLDER")
    check.set_defaults(run=_run_check)


def _run_render(options: argparse.Namespace) -> int:
    from richsem.minilvis import render as minilvis

    config = {"smoke": drawn.SMOKE, "demo": drawn.DEMO}[options.profile]
    print(minilvis.build_minilvis(config))
    for folder in minilvis.other_renders(config):
        print(f"drawn by another version of the code, may be deleted: {folder}")
    return 0


def _run_check(options: argparse.Namespace) -> int:
    from richsem.data.box_sets import BoxDataset

    dataset = BoxDataset.load(options.annotations, options.images)
    groups = dataset.frequency_groups().tolist()
    missing = dataset.missing_images()
    print(f"images      {len(dataset):,}")
    print(f"boxes       {len(dataset.labels):,} and {dataset.num_crowd:,} crowd regions")
    print(f"categories  {len(groups):,}")
    print("            " + ", ".join(f"{groups.count(g):,} {name}" for g, name in _GROUPS))
    print(f"files       {len(dataset) - len(missing):,} found, {len(missing):,} missing")
    for name in missing[:3]:
        print(f"            missing: {dataset.image_root / name}")
    return 0


def _add_clip(tasks: Any) -> None:
    train = tasks.add_parser("train", help="train it anew (an hour on two cores)")
    train.add_argument(
        "--out", type=Path, metavar="FILE", help="default: the weights that the package ships"
    )
    train.set_defaults(run=_run_clip_train)


def _run_clip_train(options: argparse.Namespace) -> int:
    from richsem.minilvis.clip_training import PretrainConfig, pretrain
    from richsem.models.miniclip import MINI_WEIGHTS

    target = options.out or Path(str(MINI_WEIGHTS))
    result = pretrain(PretrainConfig(), target)
    print(f"{target}: loss {result['loss']:.3f}, tau {result['tau']:.1f}")
    return 0


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "recipe", help="a recipe, an earlier run's folder, or the ID of a run of the store"
    )
    command.add_argument("--profile", choices=PROFILES, default="demo", help="default: demo")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--steps", type=int, help="optimiser steps, instead of the recipe's")
    command.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any field of the configuration, such as optim.lr=2e-4",
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="default: one folder per configuration in the cache"
    )
    command.add_argument("--dry-run", action="store_true", help="show what would be done")
    command.set_defaults(run=_run_train)


def _run_train(options: argparse.Namespace) -> int:
    from richsem.config import to_json, with_settings
    from richsem.operations import store
    from richsem.operations.dry_run import summary
    from richsem.training import runs

    settings = [*options.set, *([f"train.steps={options.steps}"] if options.steps else [])]
    if _is_store_id(options.recipe):
        found = store.find(options.recipe)
        if found.config is None:
            raise ValueError(f"{found.id} is of earlier code and cannot be read any more")
        config = with_settings(found.config, settings)
    else:
        config = runs.configure(
            options.recipe, options.profile, seed=options.seed, settings=settings
        )
    if options.dry_run:
        print(to_json(config), end="")
        place = options.out or store.describe_folder(config)
        for name, value in {**summary(config), "folder": place}.items():
            print(f"{name:15}{value}")
        return 0
    folder = options.out or store.run_folder(config)
    if options.out:
        runs.run(store.started(config), folder)
    else:
        store.train_one(config)
    print(folder)
    return 0


def _is_store_id(name: str) -> bool:
    """Names in the run store end in hashes; recipes are functions, and folders exist."""
    return "-" in name and not Path(name).exists()


def _add_runs(tasks: Any) -> None:
    register = tasks.add_parser(
        "register", help="put the runs behind a table or figure on the list, for `finish`"
    )
    register.add_argument("result", metavar="ID", help="such as table4_versus_detic")
    register.add_argument("--profile", choices=PROFILES, default="demo", help="default: demo")
    register.add_argument("--seeds", type=int, default=1, metavar="N", help="from 0 on; 1")
    register.add_argument("--root", default="", metavar="DIR", help="real data, at paper")
    register.set_defaults(run=_run_runs_register)
    listing = tasks.add_parser("list", help="all runs of the store")
    listing.set_defaults(run=_run_runs_list)
    show = tasks.add_parser("show", help="configuration, cost and results of a run")
    show.add_argument("id", metavar="ID", help="beginning of its name")
    show.set_defaults(run=_run_runs_show)
    finish = tasks.add_parser("finish", help="train and judge runs that are not finished")
    finish.add_argument("runs", nargs="*", metavar="ID", help="default: all")
    finish.add_argument("--split", default="val", help="judge on this split; val")
    finish.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="let no more than N runs of such commands train at once on this machine; no limit",
    )
    finish.add_argument(
        "--no-wait",
        action="store_true",
        help="end when others train all that is left, as in a job array",
    )
    finish.set_defaults(run=_run_runs_finish)
    adopt = tasks.add_parser(
        "adopt", help="keep outdated runs whose first steps today's code repeats exactly"
    )
    adopt.add_argument("runs", nargs="+", metavar="ID")
    adopt.set_defaults(run=_run_runs_adopt)
    delete = tasks.add_parser("delete", help="remove runs with their weights and results")
    delete.add_argument("runs", nargs="*", metavar="ID")
    delete.add_argument("--outdated", action="store_true", help="all whose code or data changed")
    delete.set_defaults(run=_run_runs_delete)


def _run_runs_register(options: argparse.Namespace) -> int:
    from richsem.operations import store
    from richsem.workbook.studies import runs_behind

    if options.seeds < 1:
        raise ValueError(f"--seeds is {options.seeds}; at least one is needed")
    if options.profile == "paper" and not options.root:
        raise ValueError("the paper profile needs real data: name its folder by --root")
    known = {"all_seeds": range(options.seeds), "root": options.root}
    for config in runs_behind(options.result, options.profile, **known):
        print(store.register(config).name)
    return 0


def _run_runs_list(options: argparse.Namespace) -> int:
    from richsem.operations import store

    for one in store.entries():
        print(f"{one.id:50} {one.state:18} {one.cpu_seconds:7.0f} CPU-s")
    return 0


def _run_runs_show(options: argparse.Namespace) -> int:
    import json

    from richsem.operations import store

    print(json.dumps(store.describe(store.find(options.id)), indent=1))
    return 0


def _run_runs_finish(options: argparse.Namespace) -> int:
    from richsem.operations import store

    chosen = [store.find(name) for name in options.runs]
    for one in chosen:
        if one.state in store.NOT_TO_TRAIN:
            raise ValueError(
                f"{one.id} is {one.state!r}: data or code are not those that it was asked for "
                "with. If the library was edited in between, restart the notebook's kernel"
            )
    chosen = chosen or [e for e in store.entries() if e.state not in store.NOT_TO_TRAIN]
    folders = [one.folder for one in chosen]
    waits = not options.no_wait
    store.finish_all(folders, options.split, at_once=options.at_once, waits=waits)
    return 0


def _run_runs_adopt(options: argparse.Namespace) -> int:
    from richsem.operations import store
    from richsem.operations.adopting import adopt

    for name in options.runs:
        one = store.find(name)
        print(f"{one.id} -> {adopt(one).id}")
    return 0


def _run_runs_delete(options: argparse.Namespace) -> int:
    from richsem.operations import store

    chosen = [store.find(name) for name in options.runs]
    if options.outdated:
        chosen += [one for one in store.entries() if one.state == "outdated"]
    for one in chosen:
        store.delete(one)
        print(f"deleted {one.id}")
    return 0


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, help="folder of a trained detector")
    command.add_argument("--split", default="val", help="of the set it was trained on; val")
    command.add_argument("--annotations", type=Path, metavar="FILE", help="judge by this file")
    command.add_argument("--images", type=Path, metavar="DIR", help="its images")
    command.add_argument("--protocol", choices=("lvis", "coco"), help="default: the file's kind")
    command.add_argument("--batch-size", type=int, default=8)
    command.add_argument("--out", type=Path, metavar="FILE", help="detections as COCO results")
    command.set_defaults(run=_run_evaluate)


def _run_evaluate(options: argparse.Namespace) -> int:
    import json

    from richsem.paths import write_atomic
    from richsem.training import runs

    trained = runs.open_trained(options.folder)
    if options.annotations:
        images = options.images or options.annotations.parent
        file = (options.annotations, images, options.protocol)
        result, found = runs.evaluate_file(trained, *file, batch_size=options.batch_size)
    else:
        result, found = runs.evaluate_split(trained, options.split, batch_size=options.batch_size)
    print(f"{result.ground_truth}: {result.num_images:,} images, {result.protocol} protocol")
    for name, value in result.metrics.items():
        print(f"{name:6}{100 * value:6.2f}")
    if options.out:
        write_atomic(options.out, json.dumps(found.to_list()) + "\n")
    return 0


def _add_convert(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, help="published for DINO, RichSem or Detic")
    command.add_argument("--annotations", type=Path, required=True, metavar="FILE")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.set_defaults(run=_run_convert)


def _run_convert(options: argparse.Namespace) -> int:
    from richsem.training import runs

    runs.convert(options.checkpoint, options.annotations, options.out)
    print(options.out)
    return 0


def _add_detect(command: argparse.ArgumentParser) -> None:
    command.add_argument("image", type=Path)
    command.add_argument("--weights", type=Path, required=True, metavar="DIR")
    command.add_argument("--threshold", type=float, default=0.3, help="lowest score; 0.3")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="picture; a .json is written beside it"
    )
    command.set_defaults(run=_run_detect)


def _run_detect(options: argparse.Namespace) -> int:
    import json

    from richsem.data.reading import open_rgb
    from richsem.paths import write_atomic
    from richsem.training import runs
    from richsem.workbook.figures.pictures import contact_sheet

    image = open_rgb(options.image, "the picture")
    found = runs.detect(runs.open_trained(options.weights), image, options.threshold)
    for row in found:
        print(f"{row['score']:.2f}  {row['category']}")
    sheet = contact_sheet(
        [image],
        columns=1,
        boxes=[[row["box_xyxy"] for row in found]],
        labels=[[f"{row['category']} {row['score']:.2f}" for row in found]],
        rare=[[row["frequency"] == "r" for row in found]],
    )
    out = options.out or options.image.with_name(f"{options.image.stem}-detections.png")
    sheet.savefig(out, dpi=300, bbox_inches="tight")
    write_atomic(out.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    print(out)
    return 0


def _add_bench(names: Any) -> None:
    for name, words in _BENCHMARKS.items():
        command = names.add_parser(name, help=words)
        command.add_argument("--repeats", type=int, help="the shortest time counts")
        if name in ("step", "teacher"):
            command.add_argument("--profile", choices=("smoke", "demo"), help="default: demo")
        if name == "evaluators":
            command.add_argument("--images", type=int, help="default: 100")
        command.set_defaults(run=_run_bench, name=name)


def _run_bench(options: argparse.Namespace) -> int:
    from importlib import import_module

    import torch

    from richsem.paths import ROOT

    torch.set_num_threads(1)
    given = {
        key: value
        for key, value in vars(options).items()
        if key not in ("run", "name") and value is not None
    }
    sys.path.insert(0, str(ROOT))  # the benchmarks lie beside the package, in the checkout
    import_module(f"benchmarks.{options.name}").main(**given)
    return 0


_BENCHMARKS = {
    "attention": "deformable attention: sparse product, grid_sample, embedding_bag",
    "step": "a training step part by part; detection",
    "teacher": "what soft labels cost",
    "evaluators": "official and fast evaluators: time and equality",
    "explorer": "the soft-label explorer; regions from one map against crops",
    "two_stage": "the second detector against torchvision's Faster R-CNN",
}
_GROUPS = (("r", "rare"), ("c", "common"), ("f", "frequent"))


if __name__ == "__main__":
    # What `timeout` and job queues send ends a command like Ctrl-C: tidily, leaving no process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
