"""Command line: `python -m richsem notebooks --profile demo --only 02`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from richsem.config import PROFILES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except ValueError as error:  # a user's mistake, explained by its message
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
    return root


def _add_notebooks(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profile", choices=PROFILES, default="demo", help="default: demo")
    command.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="NN", help="names begin with NN"
    )
    command.add_argument("--force", action="store_true", help="run unchanged notebooks too")
    command.add_argument("--keep-going", action="store_true", help="go on after a failure")
    command.add_argument(
        "--into",
        type=Path,
        metavar="DIR",
        help="folder for figures/ and notebooks/ of a run on other data; default: the project's",
    )
    command.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="any parameter of the selected notebooks; VALUE is a YAML or JSON literal",
    )
    command.set_defaults(run=_run_notebooks)


def _run_notebooks(options: argparse.Namespace) -> int:
    from richsem import notebooks

    outcomes = notebooks.run_all(
        options.profile,
        only=options.only,
        overrides=dict(options.parameter),
        force=options.force,
        keep_going=options.keep_going,
        into=options.into,
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
    from richsem.data import minilvis, plans

    config = {"smoke": plans.SMOKE, "demo": plans.DEMO}[options.profile]
    print(minilvis.build_minilvis(config))
    for folder in minilvis.other_renders(config):
        print(f"drawn by another version of the code, may be deleted: {folder}")
    return 0


def _run_check(options: argparse.Namespace) -> int:
    from richsem.data.boxes import BoxDataset

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
    from richsem.engine.clip_pretrain import PretrainConfig, pretrain
    from richsem.models.miniclip import MINI_WEIGHTS

    target = options.out or Path(str(MINI_WEIGHTS))
    result = pretrain(PretrainConfig(), target)
    print(f"{target}: loss {result['loss']:.3f}, tau {result['tau']:.1f}")
    return 0


_GROUPS = (("r", "rare"), ("c", "common"), ("f", "frequent"))


if __name__ == "__main__":
    sys.exit(main())
