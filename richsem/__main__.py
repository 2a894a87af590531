"""Command line: `python -m richsem notebooks --profile demo --only 02`."""

import argparse
import sys
from collections.abc import Sequence

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
    return root


def _add_notebooks(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profile", choices=PROFILES, default="demo", help="default: demo")
    command.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="NN", help="names begin with NN"
    )
    command.add_argument("--force", action="store_true", help="run unchanged notebooks too")
    command.add_argument("--keep-going", action="store_true", help="go on after a failure")
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
    )
    return int(any(outcome.status == "failed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
