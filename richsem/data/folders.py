"""A folder of pictures as extra images, with labels from sub-folders or a csv file, or bare."""

import csv
import hashlib
import unicodedata
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

from richsem.data.categories import Category
from richsem.data.image_sets import ImageSet
from richsem.data.reading import DataError, DataWarning, first_few
from richsem.data.samples import UNKNOWN, match_classes
from richsem.kept import PICTURES, pictures_below


def read_folder(
    root: Path, table: Path | None = None, categories: Sequence[Category] = ()
) -> ImageSet:
    """Reads a folder of pictures; without categories no labels are read.

    Labels are the names of the folders on the way to a picture, or what a csv file says in lines
    of `file,label[;label]`, files relative to the folder. A label is a name or synonym of one of
    the categories, whatever its case, spaces, hyphens and underscores; a `DataWarning` counts and
    names other labels, and pictures that are left without one.

    Raises:
        DataError: no pictures, a line that cannot be used, or no label that is known.
    """
    names = pictures_below(root)
    if not names:
        raise DataError(f"{root}: no pictures ({', '.join(PICTURES)}) below it. Check the folder.")
    said = [name.split("/")[:-1] for name in names]
    if categories and table:
        said = _read_table(table, root, names)
    known = _known({text for own in said for text in own}, categories, table or root)
    labels = [tuple(sorted({known[text] for text in own if text in known})) for own in said]
    if categories and not all(labels):
        message = (
            f"{table or root}: {labels.count(())} of {len(names)} pictures have no known label"
        )
        warnings.warn(f"{message} and are not learnt from", DataWarning, stacklevel=2)
    return ImageSet(
        name=root.name,
        path=table or root,
        image_root=root,
        file_names=tuple(names),
        categories=tuple(categories),
        labels=tuple(labels),
        content=hashlib.sha256(repr(labels).encode()).hexdigest()[:16],
    )


def _read_table(path: Path, root: Path, names: Sequence[str]) -> list[list[str]]:
    """The labels of each picture as they are written; a line of titles is passed over."""
    said: dict[str, list[str]] = {name: [] for name in names}
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a UTF-8 csv file ({error}).") from error
    absent = []
    for number, row in enumerate(rows, start=1):
        file = row[0].strip().replace("\\", "/").removeprefix("./") if row else ""
        if len(row) not in (0, 2):
            line = ",".join(row)
            raise DataError(f"{path}: line {number} is {line!r:.80}, expected FILE,LABEL[;LABEL].")
        if file in said:
            said[file] += [text.strip() for text in row[1].split(";") if text.strip()]
        elif row and (number > 1 or Path(file).suffix):
            absent.append(f"line {number}: {file}")
    if absent:
        raise DataError(
            f"{path}: {len(absent)} of {len(rows)} lines name no picture below {root} "
            f"({first_few(absent, 3)}). Correct or delete them."
        )
    return list(said.values())


def _known(texts: Collection[str], categories: Sequence[Category], source: Path) -> dict[str, int]:
    """The class of each text that names one."""
    if not categories:
        return {}
    texts = sorted(texts)
    own = [
        Category(id=c.id, name=_plain(c.name), synonyms=tuple(map(_plain, c.synonyms)))
        for c in categories
    ]
    asked = [Category(id=0, name=_plain(text)) for text in texts]
    found = dict(zip(texts, match_classes(asked, own), strict=True))
    unknown = [text for text, place in found.items() if place == UNKNOWN]
    counted = f"{len(unknown)} of {len(texts)} labels name no class, or several"
    message = f"{source}: {counted} ({first_few(unknown)})"
    if len(unknown) == len(texts):
        raise DataError(
            f"{message}. Use names or synonyms of the {len(own)} classes (such as "
            f"{first_few((c.name for c in categories), 3)}), or learn from the bare pictures: "
            "--set data.extra.supervision=unlabelled"
        )
    if unknown:
        warnings.warn(message, DataWarning, stacklevel=3)
    return {text: place for text, place in found.items() if place != UNKNOWN}


def _plain(name: str) -> str:
    """A name less what people write differently: case, spaces, hyphens, underscores."""
    text = unicodedata.normalize("NFC", name).casefold()
    return "".join(text.replace("_", " ").replace("-", " ").split())
