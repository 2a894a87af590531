"""`data list`, `get`, `prepare` and `check`: the real sets, and any annotation file."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from richsem.data.releases import RELEASES, Release, mirrored, release, without_login
from richsem.operations.console import FILE, FOLDER
from richsem.paths import free_bytes, only_one

# Heavy imports stand inside the functions: the help of the command line needs none of them.

PICTURE_BYTES = 163_000  # of COCO, on average


def add_commands(command: Callable[..., Callable], own_files: Callable) -> None:
    """Adds them by `command`, as `run_commands` does; `own_files` adds arguments to `check`."""
    command("list", _list, "the real sets: size, licence, where they come from")
    get = command("get", _get, "fetch the files of real sets, or what is missing of them")
    prepare = command("prepare", _prepare, "bring them into the layout of data/README.md")
    words = "say what would be done with your own LVIS or COCO file, or with a real set"
    check = command("check", _check, words)
    check("name", nargs="?", default="", metavar="NAME", help="a real set of `data list`")
    for add in (get, prepare, check):
        if add is not check:
            add("names", nargs="+", metavar="NAME", help="of `data list`")
        add("--root", **FOLDER, required=add is not check, help="folder of the real sets")
        add("--split", default="", choices=("train", "val"), help="default: all")
    words = "of LVIS, so many pictures of a split, shared out among its classes"
    get("--images", type=int, default=0, metavar="N", help=words)
    get("--jobs", type=int, default=4, metavar="N", help="files at a time; default: 4")
    get("--dry-run", action="store_true", help="show what would be fetched")
    own_files(check)
    check("--repair", **FILE, help="write a copy of the annotations that has no fault")


def _list() -> None:
    for one in RELEASES.values():
        size, words = _transit([file.bytes for file in one.files], one.disk)
        print(f"{one.name:14} {one.title}{', with ' if one.also else ''}{', '.join(one.also)}")
        disk = f"prepared: about {_size(one.disk)}; both stay: about {_size(size + one.disk)}"
        print(f"{'':14} to fetch: {words}; {disk if one.disk else 'prepared: unknown'}")
        print(f"{'':14} licence: {one.licence}; {one.page}")


def _transit(sizes: list[int], prepared: int) -> tuple[int, str]:
    """Bytes to reckon with for files of these sizes (0: unknown), and what to say of them.

    Pictures hardly become smaller in an archive, so those of unknown size take about as much as
    what is made of them.
    """
    known = sum(sizes)
    if all(sizes):
        return known, _size(known) if known else "nothing"
    return max(known, prepared), f"at least {_size(known)}" if 2 * known > prepared else "unknown"


def _size(number: float) -> str:
    words = f"{number / 1e9:,.1f} GB" if number >= 1e8 else f"{number / 1e6:,.2f} MB"
    return words if number else "?"


def _get(names: list[str], root: Path, split: str, images: int, jobs: int, dry_run: bool) -> int:
    from richsem.operations.fetch import fetch_all

    if images and (names != ["lvis"] or images < 0):
        raise ValueError("--images is a number of pictures of LVIS: name lvis alone")
    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; at least one file at a time is fetched")
    problems = []
    for one in [release(name) for name in names]:
        parts, wanted = one.splits(split), _missing(one, root, split)
        for line in _plan(one, root, split, wanted, images * len(parts)):  # it may end in an error
            print(line, flush=True)
        if dry_run:
            continue
        with _alone(one, root):
            problems += fetch_all(wanted, jobs, f"get {one.name}")
            for part in parts if images and not problems else ():
                pictures = _pictures(one, root, part, images)
                problems += fetch_all(pictures, jobs, f"pictures of {part}")
    for words in problems:
        print(f"error: {words}", file=sys.stderr)
    return int(bool(problems))


def _missing(one: Release, root: Path, split: str) -> list[Any]:
    """What has to be fetched, as `Download`s."""
    from richsem.operations.fetch import Download

    found = []
    for file in one.of(split):
        known = {"bytes": file.bytes, "sha256": file.sha256}
        download = Download(url=mirrored(file.url), target=root / "raw" / file.place, **known)
        if not file.by_hand and not download.is_there():
            found.append(download)
    return found


def _plan(one: Release, root: Path, split: str, wanted: list[Any], images: int) -> Iterator[str]:
    """What is there, what is to come, and what a person has to do."""
    to_come = {download.target for download in wanted}
    for file in one.of(split):
        place = root / "raw" / file.place
        state = "to fetch" if place in to_come else "there" if file.found(root) else "by hand"
        yield f"{state:9} {_size(file.bytes):>10}  {place}"
        address = file.url if file.by_hand else without_login(mirrored(file.url))
        yield f"{'':21} {address} (size: {file.said_by or 'not verified here'})"
        if state == "by hand":
            yield f"{'':21} {file.by_hand}"
    if images:
        yield f"{images:,} pictures by their addresses, about {_size(images * PICTURE_BYTES)}"
    needed, words = _needed(one, split, wanted)
    needed += images * PICTURE_BYTES
    free = free_bytes(root)
    yield f"{one.name}: in transit {words}; prepared about {_size(one.disk_of(split))}"
    yield f"{one.name}: needs about {_size(needed)}, {_size(free)} free below {root}"
    if needed > free:
        raise ValueError(f"{root}: too little space. Name another folder, or one --split")


def _needed(one: Release, split: str, wanted: list[Any]) -> tuple[int, str]:
    """Bytes for files to come and for what is made of them, as both stay; what is in transit."""
    if not wanted:
        return 0, "nothing"
    unknown = sum(not file.bytes and not file.by_hand for file in one.of(split))
    prepared = one.disk_of(split)
    # Of what came so far, the rest; a whole file that is not in its place yet is known as well.
    sizes = [max(1, file.bytes - file.came) if file.bytes else 0 for file in wanted]
    size, words = _transit(sizes, prepared * sizes.count(0) // max(1, unknown))
    return size + prepared, words


def _pictures(one: Release, root: Path, split: str, number: int) -> list[Any]:
    """So many pictures of LVIS as `Download`s; those that are there count as well."""
    from richsem.data.box_sets import BoxDataset, read_annotations
    from richsem.data.sampling import stratified
    from richsem.operations.fetch import Download
    from richsem.operations.prepare import prepare

    file = read_annotations(*prepare(one, root, split))
    dataset = BoxDataset.of(file, root)
    return [
        Download(url=mirrored(file.images[i].coco_url), target=root / dataset.file_names[i])
        for i in stratified(dataset, number)
    ]


def _prepare(names: list[str], root: Path, split: str) -> None:
    from richsem.operations.prepare import prepare

    for one in [release(name) for name in names]:
        with _alone(one, root):
            for words in prepare(one, root, split):
                print(words, flush=True)


@contextmanager
def _alone(one: Release, root: Path) -> Iterator[None]:
    with only_one(root / "raw" / one.name, wait=False) as alone:
        if not alone:
            raise ValueError(f"{one.name} is being fetched or prepared below {root}: wait for it")
        yield


def _check(name: str, root: Path | None, split: str, repair: Path | None, **files: Any) -> int:
    from richsem.data.catalog import dataset_spec, locate
    from richsem.data.own import OwnConfig
    from richsem.operations.check import check
    from richsem.operations.recipe_book import own_files

    own = own_files(**files)
    if bool(name) == bool(own) or bool(name) != bool(root):
        raise ValueError("name a real set and its --root, or --annotations and --images")
    if split if own else repair:
        raise ValueError("--split is of a real set, --repair of your own file: leave it out")
    parts = () if own else release(name).splits(split)
    if own:
        found = [check(**own, repair=repair)]
    elif (spec := dataset_spec((*release(name).keys, name)[0])).splits:
        places = [locate(spec, root, part) for part in parts]
        found = [check(OwnConfig(annotations=str(a), images=str(b))) for a, b in places]
    else:
        found = [_check_pictures(spec.key, root)]
    for lines, _ in found:
        print(*lines, sep="\n")
    return max(code for _, code in found)


def _check_pictures(key: str, root: Path) -> tuple[list[str], int]:
    from richsem.data.catalog import open_images
    from richsem.data.reading import first_few

    images = open_images(key, root=root)
    missing = images.missing_images()
    words = f"{len(images):,}, {len(missing):,} of them missing ({first_few(missing, 3) or '-'})"
    shown = (images.image_counts() > 0).sum()
    return [f"pictures       {words}", f"classes        {shown:,} with pictures"], int(any(missing))
