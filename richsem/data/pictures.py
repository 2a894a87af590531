"""What a picture on disk means: the one place that opens them, and sets of them.

A picture is what a viewer shows, as RGB of 8 bits: turned as its EXIF orientation says, grey values
of more bits scaled, transparent parts on white, the first frame of several. What has no such
meaning (32-bit integers, floats) is refused with the reason. A fourth band is transparency where
the file says so and something is to be seen.
"""

import hashlib
import io
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL import TiffImagePlugin as TiffTags

from richsem import foreign, kept
from richsem.data import jpegs
from richsem.data.reading import DataError, DataWarning, first_few

# Of larger sets every so many-th picture is looked at: on a network disk each look takes its time.
MOST_PICTURES = 1_000_000

# 16,384 x 16,384 take 1 GB. Pillow's own limit, a third of it, would be a traceback; it stays as a
# guard further up.
MOST_PIXELS = 2**28
Image.MAX_IMAGE_PIXELS = 2 * MOST_PIXELS

# EXIF orientation -> what has to be done to the stored pixels.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UPRIGHT, ON_ITS_SIDE = 1, 5  # no tag, and the first that swaps width and height

# A picture inside of a tar file is called ARCHIVE@OFFSET+LENGTH, in bytes.
_ARCHIVED = re.compile(r"(.+\.tar)@(\d+)\+(\d+)$")


# --- one picture --------------------------------------------------------------------------------


def open_rgb(path: Path, owner: str) -> Image.Image:
    """Decode a picture to RGB, upright; messages call it `owner`."""
    return open_fitting(path, owner, None)[0]


def open_fitting(path: Path, owner: str, size: tuple[int, int] | None) -> tuple[Image.Image, bool]:
    """The same for a picture whose record states its (width, height), which may be as stored.

    If only the stored pixels have this size, they are left as they are. Where they have it, alone
    or as the upright picture has, it does not say what boxes refer to: this is told beside it.
    """
    with _decoded(path, owner) as image:
        # The second frame of an MPO is another view of the same, as phones take it.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            warnings.warn(
                f"{path.parent}: {path.suffix} files hold several frames or pages; the first "
                "of each is used.",
                DataWarning,
                stacklevel=3,
            )
        return _turned(image, size)


def measure(path: Path, owner: str) -> tuple[tuple[int, int], int]:
    """(width, height) of a picture as it is stored, and its EXIF orientation.

    It is decoded to see whether it can be, JPEG at an eighth of its sides, which is quicker; errors
    are those of `open_rgb`.
    """
    with _decoded(path, owner) as image:
        size = image.size
        image.draft("RGB", (1, 1))
        _colours(image)
        return size, _orientation(image)


@contextmanager
def _decoded(path: Path, owner: str) -> Iterator[Image.Image]:
    """An opened picture; whatever goes wrong with it is a `DataError`."""
    try:
        if what := foreign.irregular(_file_of(path)):
            raise ValueError(f"this is {what}")
        with _opened(path) as file:
            content = file.read() if file.read(2) == jpegs.START else b""
        watched = jpegs.Watched(jpegs.START + content) if content else None
        with watched or _opened(path) as file, Image.open(file) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(
                    f"{image.width:,} x {image.height:,} pixels; at most {MOST_PIXELS:,} are read. "
                    "Make it smaller or cut it"
                )
            if watched and watched.ends_in_zeros:
                raise ValueError("its end is full of zeros, as unfinished downloads are")
            if getattr(image, "default_image", False):  # for viewers that know no animated PNG
                image.seek(1)
            yield image
            if watched and watched.is_damaged():
                raise ValueError("bytes of its pixels are lost or changed, as by a copy as text")
    except (FileNotFoundError, PermissionError) as error:
        state = "is not on disk" if isinstance(error, FileNotFoundError) else "may not be read"
        raise DataError(f"{path}: {owner} {state}. Check the image folder and the name.") from error
    # A decoder that meets arbitrary bytes may raise anything (SyntaxError, struct.error, ...).
    except Exception as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            with _opened(path) as file:  # what lies there instead
                kind = foreign.what_it_is(file.read(foreign.BYTES))
            reason = f"it is {kind or 'of a kind that is unknown here'}"
        raise DataError(
            f"{path}: {owner} cannot be read ({reason}). Fetch it again, or save it as JPEG or PNG "
            "of 8 bits."
        ) from error


def _file_of(path: Path) -> Path:
    """The file that a picture lies in: itself, or an archive."""
    archived = _ARCHIVED.fullmatch(str(path))
    return Path(archived[1]) if archived else path


def _opened(path: Path) -> IO[bytes]:
    """A picture to read from, which may lie in an archive."""
    archived = _ARCHIVED.fullmatch(str(path))
    if not archived:
        return path.open("rb")
    with open(archived[1], "rb") as file:
        file.seek(int(archived[2]))
        return io.BytesIO(file.read(int(archived[3])))


def to_rgb(picture: Image.Image | np.ndarray) -> Image.Image:
    """The same for a picture in memory; arrays are [height, width] or [height, width, channels]."""
    try:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        if 0 in image.size:
            raise ValueError("it has no pixels")
        return _turned(image, None)[0]
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise DataError(f"the picture cannot be used ({error}). Give it as uint8 RGB.") from error


def _orientation(image: Image.Image) -> int:
    try:
        tag = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF: viewers show such pictures as they are stored
        tag = None
    # Pillow turns TIFF by itself.
    return tag if tag in _TURNS and image.format != "TIFF" else UPRIGHT


def _turned(image: Image.Image, size: tuple[int, int] | None) -> tuple[Image.Image, bool]:
    """Colours and orientation of a picture, and what is in doubt, as `open_fitting` says."""
    picture, tag = _colours(image), _orientation(image)  # which would pass over broken pixels
    picture.info = {}  # with the tag left in it, the next who takes the picture would turn it again
    if tag == UPRIGHT:
        return picture, False
    fits = size == picture.size
    turned = picture.transpose(_TURNS[tag])
    return picture if fits and size != turned.size else turned, fits


def _colours(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _scaled(image).convert("RGB")
    tags = getattr(image, "tag_v2", {})
    if image.mode in ("I", "F") or 2 in tags.get(TiffTags.SAMPLEFORMAT, ()):
        kind = "floats" if image.mode == "F" else "integers with a sign or of 32 bits"
        raise ValueError(f"its values are {kind}, of which none is known to be white")
    if tags.get(ExifTags.Base.NewSubfileType, 0) & 1:
        raise ValueError("its first page is a small copy, as in raw photos and slides")
    kind = _stored(image)
    if max(tags.get(TiffTags.BITSPERSAMPLE, (8,))) > 8 and kind in ("R", "Y", "C"):
        raise ValueError("its colours of 16 bits are kept apart")  # Pillow takes bytes for values
    says = not tags or TiffTags.EXTRASAMPLES in tags
    if kind == "RGBA" and tags.get(TiffTags.PLANAR_CONFIGURATION) == 2 and not says:
        raise ValueError("it keeps four bands apart and does not say what the fourth is")
    # Of other such colours it drops the low byte: of 14 bits and fewer, little is left.
    if ";16" in kind and max(high for _, high in image.getextrema()[:3]) < 64:
        raise ValueError("its colours have 14 bits or fewer in 16, so they would be too dark")
    _narrow_clear(image, kind)
    is_clear = image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if is_clear and says:
        image = image.convert("RGBA")
        if image.getextrema()[3][1]:  # else programs left it empty, and colours are what was meant
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _stored(image: Image.Image) -> str:
    """How the pixels of a file are stored, in Pillow's words; empty where nothing tells."""
    tiles = getattr(image, "tile", None)
    kind = tiles[0][3] if tiles else ""
    return str(kind[0] if isinstance(kind, tuple) and kind else kind)


def _narrow_clear(image: Image.Image, kind: str) -> None:
    """Brings a PNG's transparent value of 2, 4 or 16 bits to 8, as Pillow does all others."""
    clear = image.info.get("transparency")
    if clear is not None and kind == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    elif clear is not None and kind in ("L;2", "L;4"):
        image.info["transparency"] = clear * {"L;2": 85, "L;4": 17}[kind]


def _scaled(image: Image.Image) -> Image.Image:
    """Grey values of up to 16 bits, in TIFF also with white as 0, in 8 bits.

    Cameras write 10, 12 or 14 bits into files of 16, and programs 8: as many count as the brightest
    value needs, unless programs have spread 8 bits over all 16.
    """
    values, tags = np.asarray(image).astype(np.uint32), getattr(image, "tag_v2", {})
    bits = tags.get(TiffTags.BITSPERSAMPLE, (16,))[0]
    if bits == 16 and (values % 256).any() and (values % 257).any():
        bits = next(own for own in (8, 10, 12, 14, 16) if values.max() < 2**own)
    white = 2**bits - 1
    grey = ((values * 255 + white // 2) // white).astype(np.uint8)
    grey[values == image.info.get("transparency", -1)] = 255
    is_inverted = tags.get(TiffTags.PHOTOMETRIC_INTERPRETATION) == 0
    return Image.fromarray(255 - grey if is_inverted else grey)


# --- sets of pictures ---------------------------------------------------------------------------


def on_disk(root: Path) -> Callable[[str], str]:
    """Finds relative names: as they are spelt on disk, or empty where they are not there.

    Case, spaces around a name and how umlauts are made up may differ, as cameras, tables and other
    systems change them, if one file alone is meant. Each folder is listed once, not each file.
    """

    @cache
    def listed(folder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(root / folder))
        except (OSError, ValueError) as error:  # absent, or a name that no file can have
            if isinstance(error, PermissionError) and not os.path.isabs(folder):
                raise  # nobody knows; a folder of another machine is not asked for
            return frozenset()

    @cache
    def alike(folder: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for own in listed(folder):
            found.setdefault(_plain(own), []).append(own)
        return found

    def find(name: str) -> str:
        file = _ARCHIVED.sub(r"\1", name)
        above, slash, own = file.rpartition("/")
        if own in listed(above):
            return name
        folder = find_folder(above) if above else ""
        if os.path.isabs(name) or (above and not folder) or file != name:
            return ""
        meant = alike(folder).get(_plain(own), ())
        return f"{folder}{slash}{meant[0]}" if len(meant) == 1 else ""

    find_folder = cache(find)  # of few; files are millions
    return find


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()


@dataclass(frozen=True, kw_only=True, eq=False)
class ArchivedNames(Sequence[str]):
    """Names of pictures that stay in tar files, as flat arrays: 16 bytes each, not 160.

    Processes share them, while Python's own texts are copied as soon as somebody looks at them.
    """

    archives: np.ndarray  # [K] names of tar files, text
    archive: np.ndarray  # [N] int32, positions in `archives`
    offset: np.ndarray  # [N] int64, first byte
    length: np.ndarray  # [N] int32, bytes

    def __len__(self) -> int:
        return len(self.archive)

    def __getitem__(self, i: Any) -> Any:
        """One name, or those of a slice or of positions [M]."""
        if isinstance(i, (slice, np.ndarray)):
            some = {name: getattr(self, name)[i] for name in ("archive", "offset", "length")}
            return replace(self, **some)
        return f"{self.archives[self.archive[i]]}@{self.offset[i]}+{self.length[i]}"


def flat_names(names: Sequence[str]) -> Sequence[str]:
    """The same names, as flat arrays if all are those of pictures in tar files."""
    found = [_ARCHIVED.fullmatch(name) for name in names]
    if not all(found):
        return tuple(names)
    archives, archive = np.unique([one[1] for one in found], return_inverse=True)
    places = np.array([(one[2], one[3]) for one in found]).astype(np.int64)
    columns = {"offset": places[:, 0], "length": places[:, 1].astype(np.int32)}
    return ArchivedNames(archives=archives, archive=archive.astype(np.int32), **columns)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PictureSet:
    """What all sets have: a file that describes them and a folder of pictures."""

    name: str
    path: Path
    image_root: Path
    file_names: Sequence[str]  # per image, relative to `image_root`
    content: str = ""  # hash of the file and of what was selected from it

    def __len__(self) -> int:
        return len(self.file_names)

    @cached_property
    def fingerprint(self) -> str:
        """What a set was made from, 16 hex digits: `content` and size and time of each picture.

        Where the pictures lie does not count, so a set that was moved stays the same set.
        """
        digest, names = hashlib.sha256(self.content.encode()), self.file_names
        if isinstance(names, ArchivedNames):  # millions of pictures in few files
            for column in (names.archive, names.offset, names.length):
                digest.update(column.tobytes())
            names = names.archives.tolist()
        else:
            for name in names:
                digest.update(f"\n{name}".encode(errors="surrogateescape"))
            names = names[:: max(1, -(-len(self) // MOST_PICTURES))]
        state = kept.files_state([self.image_root / name for name in names])
        digest.update(f"\n{state}".encode())
        return digest.hexdigest()[: kept.DIGITS]

    def missing_images(self) -> tuple[str, ...]:
        """Name the image files that are not on disk."""
        find, there = on_disk(self.image_root), os.path.exists  # as other spellings may open, too
        names = (name for name in self.file_names if find(name) != name)
        return tuple(name for name in names if not there(self.image_root / name))

    def subset_with_images(self) -> Self:
        """Restrict the set to images on disk; see `less`."""
        absent = set(self.missing_images())
        rows = [row for row, name in enumerate(self.file_names) if name in absent] if absent else []
        remedy = "Give the folder that holds them (--images, IMAGES)"
        return self.less(rows, f"are not under {self.image_root}", remedy)

    def less(self, rows: Sequence[int], what: str, remedy: str) -> Self:
        """The set without some images; a `DataWarning` says `what` they are, and names them."""
        if not rows:
            return self
        few = first_few((self.file_names[row] for row in rows), 3)
        message = f"{self.path}: {len(rows)} of {len(self)} pictures {what}"
        if len(rows) == len(self):
            raise DataError(f"{message} ({few}). {remedy}.")
        warnings.warn(f"{message}, and left out ({few})", DataWarning, stacklevel=3)
        return self.select(np.setdiff1d(np.arange(len(self)), rows))

    def select(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Return the set restricted to the images at these positions, in this order."""
        raise NotImplementedError
