"""Commands on the run store: what was trained, what is left to do."""

import json
import shutil
import sys
from collections.abc import Callable

from richsem.paths import only_one


def show_all() -> None:
    """Prints a line for every run of the store."""
    from richsem.operations import store

    empty = "the run store is empty: `train` and `runs register` put runs into it"
    rows = (f"{one.id:50} {one.state:18} {one.cpu_seconds:7.0f} CPU-s" for one in store.entries())
    print("\n".join(rows) or empty)


def _show(name: str) -> None:
    from richsem.operations import store

    print(json.dumps(store.describe(store.find(name)), indent=1))


def _finish(names: list[str], split: str, no_wait: bool) -> None:
    from richsem.operations import store

    chosen = []
    for one in map(store.find, names) if names else store.entries():
        if not one.problem:
            chosen.append(one.known())
        elif names:
            raise ValueError(f"{one.id} is {one.state!r}: {one.problem}")
        elif one.state == "damaged":
            print(f"left out: {one.problem}", file=sys.stderr)
    store.finish_here(chosen, split, waits=not no_wait)


def _delete(names: list[str], outdated: bool) -> None:
    from richsem.operations import store

    if not (names or outdated):
        raise ValueError("name runs to delete, as `runs list` shows them, or give --outdated")
    chosen = {one.id: one for one in map(store.find, names)}
    if outdated:
        chosen |= {one.id: one for one in store.entries() if one.state == "outdated"}
    if not chosen:
        print("no run is outdated")
    for one in chosen.values():
        if one.folder.is_symlink():
            raise ValueError(f"{one.folder} is a link to {one.folder.resolve()}: remove both")
        with only_one(one.folder, wait=False) as alone:
            if not alone:
                raise ValueError(f"{one.id}: another process is training it; end that first")
            shutil.rmtree(one.folder)
        print(f"deleted {one.id}")


def add_commands(command: Callable[..., Callable]) -> None:
    """Adds them to the command line; `command` adds one and gives what adds its arguments."""
    command("list", show_all, "all runs of the store")
    add = command("show", _show, "configuration, cost and results of a run")
    add("name", metavar="ID", help="beginning of its name")
    add = command("finish", _finish, "train and judge runs that are not finished, one by one")
    add("names", nargs="*", metavar="ID", help="default: all")
    add("--split", default="val", help="judge on this split; default: val")
    add("--no-wait", action="store_true", help="end when others train all that is left")
    add = command("delete", _delete, "remove runs with their weights and results")
    add("names", nargs="*", metavar="ID")
    add("--outdated", action="store_true", help="all whose code or data changed")
