"""From files as they were released to the layout of data/README.md, one function per set."""

import csv
import io
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import pandas as pd
from tqdm import tqdm

from richsem.data.catalog import dataset_spec, locate
from richsem.data.categories import Category, read_categories
from richsem.data.pictures import ON_ITS_SIDE, on_disk
from richsem.data.reading import Box, DataError, Id, Integer, first_few, read
from richsem.data.releases import Release
from richsem.operations.check import look_at
from richsem.paths import write_own

DAMAGED = (shutil.ReadError, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error)
_Member = tuple[str, int, int]  # name, first byte and length of a file in a tar file
OPENIMAGES = {"ImageID": "str", "LabelName": "str", "IsGroupOf": "int64"}
OPENIMAGES |= dict.fromkeys(("XMin", "XMax", "YMin", "YMax"), "float64")
# What names of Visual Genome lose before they are looked up: a "large red ball" is a ball.
ADJECTIVE = (
    "white|black|blue|green|red|brown|yellow|large|small|silver|wooden|orange|gray|grey|metal|pink|"
    "tall|long|dark"
)


def prepare(one: Release, root: Path, split: str) -> Iterator[str]:
    """Lays a set out below a data root, this split or all of them, and says what is there then.

    A second call goes on where a first one was interrupted, and leaves what lies there as it is.

    Raises:
        DataError: a file is missing, damaged, or not what the release has.
        OSError: the disk is full, or an annotation file of the user's lies in the place.
    """
    for part in one.splits(split):
        files = one.of(part)
        if lacking := [file.place for file in files if not file.found(root)]:
            count = f"{one.name} {part}".strip() + f": {len(lacking)} of {len(files)} files"
            words = f"are missing below {root / 'raw'} ({first_few(lacking, 3)})"
            raise DataError(f"{count} {words}. Get them, or name the --split that is there.")
        yield _PREPARE[one.name](root, root / "raw", part)


def unpack(archive: Path, target: Path) -> None:
    """Unpacks a zip or tar file into a folder, once; files that lie there already stay."""
    done = target / f".{archive.name}.unpacked"
    folder = target / f".{archive.name}.unpacking"
    if done.exists():
        return
    if archive.suffix != ".zip" and not hasattr(tarfile, "data_filter"):
        raise DataError(f"{archive}: to unpack it safely, run this by Python 3.11.4 or newer")
    shutil.rmtree(folder, ignore_errors=True)  # somebody ended in the middle
    folder.mkdir(parents=True)
    try:
        # Nothing outside of the folder; zip files are always unpacked in this way.
        inside = {} if archive.suffix == ".zip" else {"filter": "data"}
        shutil.unpack_archive(archive, folder, **inside)
        for path in sorted(folder.rglob("*")):
            place = target / path.relative_to(folder)
            if path.is_dir():
                place.mkdir(exist_ok=True)
            elif not os.path.lexists(place):
                path.rename(place)
    except DAMAGED as error:
        words = "cannot be unpacked, delete it and get it again"
        raise DataError(f"{archive}: {words} ({error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    done.touch()


def _unpack_all(archives: Iterator[Path], target: Path, *, apart: bool = False) -> None:
    """The same for several, each into a folder of its own or all into one."""
    for archive in tqdm(sorted(archives), desc=f"unpacking into {target.name}", delay=1):
        unpack(archive, target / archive.stem if apart else target)


def _readable(files: list[Path], folder: Path) -> list[tuple[Path, list[int], int]]:
    """Pictures that can be read, with (height, width) as stored and EXIF tags."""
    if not files:
        raise DataError(
            f"{folder}: no picture that is named in the release. Get its archives again."
        )
    sizes, tags, problems = look_at(files)
    found = zip(files, sizes.tolist(), tags, problems, strict=True)
    return [(path, size, tag) for path, size, tag, problem in found if not problem]


def _rows(path: Path, separator: str, width: int) -> list[list[str]]:
    """The lines of a table; a `DataError` names the first that has more or fewer fields."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, delimiter=separator))
    for number, row in enumerate(rows, start=1):
        if len(row) != width:
            words = f"line {number} has {len(row)} fields, not {width}. Get it again"
            raise DataError(f"{path}: {words}.")
    return rows


# --- sets with boxes -----------------------------------------------------------------------------


class _Picture(msgspec.Struct):
    id: Id
    file_name: str
    height: Integer
    width: Integer


class _Object(msgspec.Struct):
    id: Integer
    image_id: Id
    category_id: Integer
    bbox: Box
    area: float
    iscrowd: int = 0


class _CocoFile(msgspec.Struct):
    images: list[_Picture]
    annotations: list[_Object]
    categories: list[Category]

    def write(self, path: Path) -> str:
        write_own(path, msgspec.json.encode(self))
        return f"{path}: {len(self.images):,} pictures, {len(self.annotations):,} boxes"


class _VgPicture(msgspec.Struct):
    image_id: Integer
    height: Integer
    width: Integer


class _VgObject(msgspec.Struct):
    names: Annotated[list[str], msgspec.Meta(min_length=1)]
    x: float
    y: float
    w: float
    h: float


class _VgScene(msgspec.Struct):
    image_id: Integer
    objects: list[_VgObject]


def _lvis(root: Path, raw: Path, split: str) -> str:
    unpack(raw / f"lvis/{split}/lvis_v1_{split}.json.zip", root)
    return str(root / f"lvis_v1_{split}.json")


def _coco(root: Path, raw: Path, split: str) -> str:
    unpack(raw / f"coco/{split}/{split}2017.zip", root)
    folder = root / f"{split}2017"
    return f"{folder}: {len(os.listdir(folder)):,} pictures"


def _objects365(root: Path, raw: Path, split: str) -> str:
    """Version 2, with Detic's corrections of names; pictures that no archive has are left out."""
    folder, raw = root / "object365", raw / "object365"
    _unpack_all((raw / split).glob("patch*.tar.gz"), folder / split)
    _unpack_all((raw / split).glob("zhiyuan_*.tar.gz"), raw / split)
    file, _ = read(raw / split / f"zhiyuan_objv2_{split}.json", _CocoFile)
    right = {number: name for number, _, name in _rows(raw / "Objects365_names_fix.csv", ",", 3)}
    file.categories = [
        msgspec.structs.replace(category, name=right.get(str(category.id), category.name))
        for category in file.categories
    ]
    for picture in file.images:  # "images/v1/patch8/NAME" is patch8/NAME in its archive
        picture.file_name = "/".join(picture.file_name.split("/")[-2:])
    there, number = on_disk(folder / split), len(file.images)
    file.images = [picture for picture in file.images if there(picture.file_name)]
    kept = {picture.id for picture in file.images}
    file.annotations = [box for box in file.annotations if box.image_id in kept]
    words = file.write(folder / f"objects365_{split}.json")
    return f"{words}; left out without a picture: {number - len(kept):,}"


def _visual_genome(root: Path, raw: Path, split: str) -> str:
    """The 1,600 classes of bottom-up attention; a box has the class of its first name."""
    folder, raw = root / "visual_genome", raw / "visual_genome"
    _unpack_all(raw.glob("images*.zip"), folder / "images")
    _unpack_all(raw.glob("*.json.zip"), raw)
    sizes = {own.image_id: own for own in read(raw / "image_data.json", list[_VgPicture])[0]}
    scenes = {own.image_id: own for own in read(next(raw.glob("objects*.json")), list[_VgScene])[0]}
    lines = (raw / "objects_vocab.txt").read_text(encoding="utf-8").lower().splitlines()
    names = [[name.strip() for name in line.split(",")] for line in lines]
    class_of = {name: number for number, own in enumerate(names, 1) for name in own}
    file = _CocoFile([], [], [Category(id=i, name=own[0]) for i, own in enumerate(names, 1)])
    for name, _ in _rows(raw / f"{split}/{split}.txt", " ", 2):
        key = int(Path(name).stem)
        if key not in sizes or key not in scenes:
            raise DataError(f"{raw}: {split}.txt names picture {key}, which no .json file has.")
        boxes = [(class_of.get(_plain(box.names[0])), box) for box in scenes[key].objects]
        boxes = [(label, box) for label, box in boxes if label]
        if boxes:
            file.images.append(_Picture(key, name, sizes[key].height, sizes[key].width))
        for label, box in boxes:
            place, number = (box.x, box.y, box.w, box.h), len(file.annotations) + 1
            file.annotations.append(_Object(number, key, label, place, box.w * box.h))
    return file.write(folder / "annotations" / f"visual_genome_{split}.json")


def _plain(name: str) -> str:
    text = name.lower().strip().removesuffix(".").strip()
    described = re.fullmatch(rf"(?:(?:{ADJECTIVE})\s+)+(\S+)", text)
    return described[1] if described else text


def _openimages(root: Path, raw: Path, split: str) -> str:
    """Boxes as annotated, groups as crowds; pictures that cannot be read are left out."""
    folder, raw = root / "openimages", raw / "openimages"
    _unpack_all((raw / split).glob("*.tar.gz"), folder / split)
    classes = dict(_rows(raw / "challenge-2019-classes-description-500.csv", ",", 2))
    table = _openimages_table(next((raw / split).glob("*-bbox.csv")), list(classes))
    wanted = set(table["ImageID"])
    files = [path for path in sorted((folder / split).glob("*/*.jpg")) if path.stem in wanted]
    size_of = {
        path.stem: _Picture(path.stem, f"{path.parent.name}/{path.name}", *size)
        for path, size, _ in _readable(files, folder / split)
    }
    file = _CocoFile(list(size_of.values()), [], [])
    file.categories = [Category(id=i, name=name) for i, name in enumerate(classes.values(), 1)]
    for row in table[table["ImageID"].isin(size_of)].itertuples():
        image = size_of[row.ImageID]
        x, y = row.XMin * image.width, row.YMin * image.height
        w, h = row.XMax * image.width - x, row.YMax * image.height - y
        key, box = len(file.annotations) + 1, (round(x, 2), round(y, 2), round(w, 2), round(h, 2))
        file.annotations.append(_Object(key, image.id, row.label, box, w * h, row.IsGroupOf))
    words = file.write(folder / f"openimages_challenge_2019_{split}_bbox.json")
    return f"{words}; left out without a picture: {len(wanted) - len(size_of):,}"


def _openimages_table(path: Path, classes: list[str]) -> pd.DataFrame:
    """The boxes of a csv file, relative to their pictures, with `label` from 1 on."""
    try:
        table = pd.read_csv(path, usecols=list(OPENIMAGES), dtype=OPENIMAGES)
    except ValueError as error:
        raise DataError(f"{path}: {error}. Get it again.") from error
    table["label"] = table["LabelName"].map({key: i for i, key in enumerate(classes, 1)})
    if unknown := set(table["LabelName"][table["label"].isna()]):
        raise DataError(f"{path}: no class is called {first_few(unknown)}. Get it again.")
    return table.astype({"label": int})


# --- sets of pictures ----------------------------------------------------------------------------


def wordnet_synsets(index: Path) -> dict[str, str]:
    """Senses of WordNet's index.noun, "bow.n.04", and what ImageNet calls them, "n02879718"."""
    lines = re.findall(r"^(\S+) n .*?((?: \d{8})+) *$", index.read_text("ascii"), re.MULTILINE)
    return {
        f"{lemma}.n.{sense:02}": f"n{offset}"
        for lemma, offsets in lines
        for sense, offset in enumerate(offsets.split(), start=1)
    }


def _inet_lvis(root: Path, raw: Path, _: str) -> str:
    """One label per picture: the class of LVIS whose synset it was collected for."""
    folder, own = root / "imagenet-lvis", raw / "imagenet-lvis"
    categories = read_categories(locate(dataset_spec("lvis"), root, "train")[0])
    unpack(own / "WNdb-3.0.tar.gz", own)
    synset_of = wordnet_synsets(own / "dict" / "index.noun")
    id_of = {synset_of.get(category.synset): category.id for category in categories}
    listed = (own / "imagenet_lvis_wnid.txt").read_text(encoding="utf-8").split()
    if strange := [synset for synset in listed if synset not in id_of]:
        words = f"{len(strange)} synsets are of no class of LVIS v1 ({first_few(strange)})"
        raise DataError(f"{own / 'imagenet_lvis_wnid.txt'}: {words}. Get the files again.")
    tars = (path for path in (raw / "imagenet-21k").rglob("n*.tar") if path.stem in set(listed))
    _unpack_all(tars, folder / "images", apart=True)
    files = sorted((folder / "images").glob("n*/n*"))
    images = []
    for path, size, tag in _readable(files, folder / "images"):
        synset, (height, width) = path.parent.name, size[:: -1 if tag >= ON_ITS_SIDE else 1]
        record = {"id": len(images) + 1, "file_name": f"{synset}/{path.name}"}
        record |= {"width": width, "height": height, "pos_category_ids": [id_of[synset]]}
        images.append(record)
    counts = Counter(image["pos_category_ids"][0] for image in images)
    counted = [msgspec.structs.replace(c, image_count=counts[c.id]) for c in categories]
    content = {"images": images, "categories": counted, "annotations": []}
    write_own(folder / "imagenet_lvis_image_info.json", msgspec.json.encode(content))
    words = f"{folder}: {len(images):,} pictures of {len(counts)} of the {len(listed)} synsets"
    return f"{words}; left out that cannot be read: {len(files) - len(images):,}"


def _inet_unl(root: Path, raw: Path, _: str) -> str:
    """The archives stay as they are: 14 million single files are more than most disks bear."""
    index, folder = root / "imagenet-21k" / "images.npz", raw / "imagenet-21k"
    archives = sorted(folder.rglob("n*.tar"))
    places, left_out = [], 0
    for path in tqdm(archives, desc="opening pictures of archives", delay=1):
        files = _members(path)
        sound = [(first, length) for _, first, length in _sound(path, files)]
        left_out += len(files) - len(sound)
        places.append(np.array(sound, dtype=np.int64).reshape(-1, 2))
    columns = {
        "archives": np.array([path.relative_to(folder).as_posix() for path in archives]),
        "archive": np.repeat(np.arange(len(places), dtype=np.int32), [*map(len, places)]),
    }
    together = np.concatenate(places)
    columns |= {"offset": together[:, 0], "length": together[:, 1].astype(np.int32)}
    np.savez(buffer := io.BytesIO(), **columns)
    write_own(index, buffer.getvalue())
    words = f"{index}: {len(together):,} pictures, which stay in {len(places):,} archives"
    return f"{words}; left out that cannot be read: {left_out:,}"


def _members(archive: Path) -> list[_Member]:
    """Name, first byte and length of each file in a tar file."""
    try:
        with tarfile.open(archive, "r:") as tar:
            return [(one.name, one.offset_data, one.size) for one in tar if one.isreg()]
    except DAMAGED as error:
        words = "cannot be read, delete it and get it again"
        raise DataError(f"{archive}: {words} ({error})") from error


def _sound(archive: Path, files: list[_Member]) -> list[_Member]:
    """Those that are pictures and can be read: one that cannot would end a training days later."""
    names = [Path(f"{archive}@{first}+{length}") for _, first, length in files]
    problems = look_at(names)[2] if names else []
    return [file for file, problem in zip(files, problems, strict=True) if not problem]


def _cc3m(root: Path, raw: Path, _: str) -> str:
    """Pictures stay in img2dataset's tar files, as KEY.jpg beside KEY.txt; captions are read."""
    index, folder = root / "gcc" / "CC3M" / "cc3m_shards.json", raw / "cc3m"
    archives, records, absent, left_out = sorted(folder.rglob("[0-9]*.tar")), [], [], 0
    for path in tqdm(archives, desc="opening pictures of archives", delay=1):
        files = _members(path)
        texts = {name: place for name, *place in files if name.endswith(".txt")}
        pictures = [file for file in files if file[0].endswith(".jpg")]
        sound, own = _sound(path, pictures), path.relative_to(folder).as_posix()
        left_out += len(pictures) - len(sound)
        with path.open("rb") as shard:
            for name, *place in sound:
                if not (text := texts.get(f"{name.removesuffix('jpg')}txt")):
                    absent.append(f"{path}: {name}")
                    continue
                shard.seek(text[0])
                caption = shard.read(text[1]).decode("utf-8", "replace").strip()
                records.append({"caption": caption, "image": "{}@{}+{}".format(own, *place)})
    if absent:
        words = "captions are absent: tell img2dataset of them by --caption_col"
        raise DataError(f"{len(absent)} {words} ({first_few(absent, 2)})")
    write_own(index, msgspec.json.encode(records))
    words = f"{index}: {len(records):,} pictures, which stay in {len(archives):,} archives"
    return f"{words}; left out that cannot be read: {left_out:,}"


_PREPARE = {
    "lvis": _lvis,
    "coco": _coco,
    "visual_genome": _visual_genome,
    "openimages": _openimages,
    "o365": _objects365,
    "inet_lvis": _inet_lvis,
    "inet_unl": _inet_unl,
    "cc3m": _cc3m,
}
