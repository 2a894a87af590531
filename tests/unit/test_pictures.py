"""What picture files mean: orientation, depth, transparency, size, and what is no picture."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from tiny_files import annotation_file

import richsem
from richsem.data.box_sets import BoxDataset
from richsem.data.pictures import measure, open_rgb, to_rgb
from richsem.data.reading import DataError, DataWarning

GREY = np.add.outer(np.arange(40) * 5, np.arange(30)).astype(np.uint8)  # [height, width]
COLOUR = np.dstack([GREY, GREY[::-1], 255 - GREY])
UPRIGHT = Image.fromarray(COLOUR)
# EXIF orientation -> how a camera that writes it has stored the upright picture.
STORED = {
    1: lambda picture: picture,
    2: ImageOps.mirror,
    3: lambda picture: picture.rotate(180),
    4: ImageOps.flip,
    5: lambda picture: ImageOps.mirror(picture.rotate(-90, expand=True)),
    6: lambda picture: picture.rotate(90, expand=True),
    7: lambda picture: ImageOps.mirror(picture.rotate(90, expand=True)),
    8: lambda picture: picture.rotate(-90, expand=True),
}
TURNED = [tag for tag in STORED if tag > 1]


def save_turned(path, tag, upright=UPRIGHT):
    exif = Image.Exif()
    exif[0x0112] = tag
    STORED[tag](upright).save(path, exif=exif, lossless=True)  # of which only WebP hears
    return path


def pixels(picture):
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


# --- orientation --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "tif", "webp"])
@pytest.mark.parametrize("tag", STORED)
def test_a_picture_is_what_a_viewer_shows(tmp_path, tag, kind):
    path = save_turned(tmp_path / f"phone.{kind}", tag)
    np.testing.assert_array_equal(pixels(open_rgb(path, "the picture")), COLOUR)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(pixels(to_rgb(opened)), COLOUR)


def test_detections_of_a_phone_picture_are_those_of_the_upright_one(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    upright = Image.fromarray(noise).resize((128, 96), Image.Resampling.NEAREST)
    detector = richsem.load("small")
    want, file = detector.detect(upright, 0.05), save_turned(tmp_path / "phone.png", 6, upright)
    for picture in (file, open_rgb(file, "the picture"), np.asarray(upright.convert("RGBA"))):
        found = detector.detect(picture, 0.05)
        assert len(want) and found.names == want.names
        np.testing.assert_allclose(found.boxes_xyxy, want.boxes_xyxy)


def phone_set(folder, record, *tags, upright=UPRIGHT):
    """Pictures with these orientations, and a file that says they are `record` (width, height)."""
    size = dict(zip(("width", "height"), record, strict=True))
    images = {i: {"file_name": f"{i}.png"} | size for i in range(1, len(tags) + 1)}
    for i, tag in enumerate(tags, start=1):
        save_turned(folder / f"{i}.png", tag, upright)
    boxes = [(i, 3, (1, 2, 5, 6)) for i in images]
    return BoxDataset.load(annotation_file(folder / "set.json", images, boxes), folder)


@pytest.mark.parametrize("tag", TURNED)
def test_the_orientation_of_which_the_record_has_the_size_is_taken(tmp_path, tag):
    keeps_size = tag < 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if keeps_size else "error")
        found = phone_set(tmp_path, (30, 40), tag).image(0)
    np.testing.assert_array_equal(pixels(found), COLOUR)
    if not keeps_size:  # and where it is that of the stored pixels, these
        with pytest.warns(DataWarning, match="EXIF orientation, and sizes that fit"):
            found = phone_set(tmp_path, (40, 30), tag).image(0)
        np.testing.assert_array_equal(pixels(found), pixels(STORED[tag](UPRIGHT)))
    with pytest.raises(DataError, match=r"1\.png: image id 1 is 30 x 40 pixels, .* says 31 x 40"):
        phone_set(tmp_path, (31, 40), tag).image(0)


def test_squares_are_turned_with_a_warning_and_damaged_exif_is_passed_over(tmp_path):
    square = UPRIGHT.crop((0, 0, 30, 30))
    dataset = phone_set(tmp_path, (30, 30), 6, 1, 6, 3, upright=square)
    with pytest.warns(DataWarning, match=r"set\.json: pictures have an EXIF orient") as caught:
        for i in range(4):
            np.testing.assert_array_equal(pixels(dataset.image(i)), COLOUR[:30])
    assert len({str(one.message) for one in caught}) == 1  # Python shows it once
    UPRIGHT.save(tmp_path / "odd.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert open_rgb(tmp_path / "odd.png", "the picture").size == (30, 40)


# --- colours ------------------------------------------------------------------------------------

DEEP = GREY.astype(np.uint16) * 257
ALPHA = np.where(np.arange(40)[:, None] < 20, 255, 0).astype(np.uint8) * np.ones((1, 30), np.uint8)
ON_WHITE = np.where(ALPHA[..., None] == 255, COLOUR, 255)
GREYS = np.repeat(GREY[..., None].astype(int), 3, axis=2)
PALETTE = UPRIGHT.quantize(200)
CLEAR = np.where(np.asarray(PALETTE)[..., None] == 7, 255, np.asarray(PALETTE.convert("RGB")))
BITS = Image.fromarray(GREY).convert("1")
FRAMES = {"save_all": True, "append_images": [BITS.convert("L")]}


@pytest.mark.parametrize(
    ("name", "picture", "options", "expected"),
    [
        ("grey.png", Image.fromarray(GREY), {}, GREYS),
        ("deep.png", Image.fromarray(DEEP), {}, GREYS),
        ("deep.tif", Image.fromarray(DEEP), {}, GREYS),
        ("motorola.tif", Image.fromarray(DEEP.astype(">u2")), {}, GREYS),
        ("deep.pgm", Image.fromarray(DEEP), {}, GREYS),
        ("white is 0.tif", Image.fromarray(DEEP), {"tiffinfo": {262: 0}}, 255 - GREYS),
        ("ten bits.png", Image.fromarray(DEEP >> 6), {}, (GREYS * 257 // 64 * 255 + 511) // 1023),
        ("eight bits.png", Image.fromarray(GREY.astype(np.uint16)), {}, GREYS),
        ("dim.png", Image.fromarray(DEEP // (8 * 257) * 257), {}, GREYS // 8),
        ("dim.tif", Image.fromarray(DEEP // (8 * 257) * 256), {}, GREYS // 8),
        ("deep clear.png", Image.fromarray(DEEP), {"transparency": int(DEEP[5, 5])},
         np.where(GREY[5, 5] == GREYS, 255, GREYS)),
        ("bits.png", BITS, {}, np.asarray(BITS.convert("RGB"))),
        ("half clear.png", Image.fromarray(np.dstack([COLOUR, ALPHA])), {}, ON_WHITE),
        ("grey clear.png", Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), {},
         np.where(ALPHA[..., None] == 255, GREYS, 255)),
        ("palette.png", PALETTE, {}, np.asarray(PALETTE.convert("RGB"))),
        ("one clear.png", PALETTE, {"transparency": 7}, CLEAR),
        ("one clear.gif", PALETTE, {"transparency": 7}, CLEAR),
        ("ink.tif", UPRIGHT.convert("CMYK"), {}, COLOUR),
        ("ink.jpg", UPRIGHT.convert("CMYK"), {"quality": 100, "subsampling": 0}, COLOUR),
        ("views.mpo", UPRIGHT, {"quality": 100, "subsampling": 0, "save_all": True,
                                "append_images": [UPRIGHT]}, COLOUR),
    ],
)  # fmt: skip
def test_values_of_other_kinds_become_rgb(tmp_path, name, picture, options, expected):
    picture.save(tmp_path / name, **options)
    found = pixels(open_rgb(tmp_path / name, "the picture"))
    assert np.abs(found - expected).max() <= (3 if "ink" in name or "views" in name else 0)


@pytest.mark.parametrize("name", ["moves.gif", "pages.tif", "moves apart.png"])
def test_of_several_frames_the_first_is_used(tmp_path, name):
    frames, grey = FRAMES, Image.fromarray(GREY)
    if "apart" in name:  # what viewers show that know no animation is none of its frames
        frames, grey = FRAMES | {"append_images": [grey], "default_image": True}, UPRIGHT
    grey.save(tmp_path / name, **frames)
    with pytest.warns(DataWarning, match=f"{name[-4:]} files hold several frames or pages"):
        np.testing.assert_array_equal(pixels(open_rgb(tmp_path / name, "the picture")), GREYS)


# --- what is refused ----------------------------------------------------------------------------


def png_header(width, height, depth=8, colour=0, *more):
    """A file that claims to be so large, and ends there or with some chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *(more or [(b"IDAT", b"")])]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("depth", "colour", "clear", "row", "red"),
    [
        (2, 0, "0001", "1b", [0, 255, 170, 255]),
        (4, 0, "0003", "34", [255, 68]),
        (16, 2, "123456789abc", "123456789abc3478bc000000", [255, 0x34]),
    ],
)
def test_the_transparent_value_of_a_png_has_its_depth(tmp_path, depth, colour, clear, row, red):
    row = zlib.compress(b"\0" + bytes.fromhex(row))
    body = [(b"tRNS", bytes.fromhex(clear)), (b"IDAT", row), (b"IEND", b"")]
    (tmp_path / "deep.png").write_bytes(png_header(len(red), 1, depth, colour, *body))
    assert pixels(open_rgb(tmp_path / "deep.png", "the picture"))[0, :, 0].tolist() == red


def tiff(bands, apart=False, **tags):
    """A TIFF of bands [n, height, width], one after the other or pixel by pixel."""
    number, height, width = bands.shape
    parts = [part.tobytes() for part in (bands if apart else [np.moveaxis(bands, 0, 2)])]
    parts = [zlib.compress(part) for part in parts] if tags.get("t259") == 8 else parts
    content, sizes = b"".join(parts), [len(part) for part in parts]
    starts = [8 + sum(sizes[:k]) for k in range(len(parts))]
    entries = {256: [width], 257: [height], 258: [8 * bands.itemsize] * number, 259: [1], 262: [2],
               273: starts, 277: [number], 278: [height], 279: sizes, 284: [1 + apart]}  # fmt: skip
    entries |= {int(key[1:]): [value] for key, value in tags.items()}
    place, more = 8 + len(content) + 2 + 12 * len(entries) + 4, b""
    table = struct.pack("<H", len(entries))
    for tag, values in sorted(entries.items()):
        raw = struct.pack(f"<{len(values)}I", *values)
        table += struct.pack("<HHI", tag, 4, len(values))
        table += raw if len(raw) == 4 else struct.pack("<I", place + len(more))
        more += raw if len(raw) > 4 else b""
    return struct.pack("<2sHI", b"II", 42, 8 + len(content)) + content + table + bytes(4) + more


BANDS = np.moveaxis(COLOUR, 2, 0).astype(np.uint8)
FOUR = np.concatenate([BANDS, ALPHA[None]])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(FOUR, t338=2), ON_WHITE),
        (tiff(FOUR), COLOUR),  # infrared, perhaps: nothing says that it is transparency
        (tiff(FOUR, t338=0), COLOUR),
        (tiff(FOUR, apart=True), COLOUR),
        (tiff(BANDS, apart=True, t259=8), COLOUR),
        (tiff(FOUR, apart=True, t259=8), "does not say what the fourth is"),
        (tiff(FOUR, apart=True, t259=8, t338=2), ON_WHITE),
        (tiff(np.concatenate([BANDS, BANDS[:1] * 0]), t338=2), COLOUR),  # left empty
        (tiff(BANDS.astype(np.uint16) * 257), COLOUR),
        (tiff(BANDS.astype(np.uint16) * 64), "14 bits or fewer"),
        (tiff(FOUR.astype(np.uint16) * 16, t338=2), "14 bits or fewer"),
        (tiff(BANDS.astype(np.uint16) * 257, apart=True), "16 bits are kept apart"),
    ],
)
def test_bands_of_a_tiff_are_what_it_says_of_them(tmp_path, content, expected):
    (tmp_path / "bands.tif").write_bytes(content)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            open_rgb(tmp_path / "bands.tif", "the picture")
    else:
        found = pixels(open_rgb(tmp_path / "bands.tif", "the picture"))
        np.testing.assert_array_equal(found, expected)


def spoil(path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def lose_the_end(path):
    Image.effect_noise((60, 60), 99).save(path)
    content = path.read_bytes()
    path.write_bytes(content + bytes(999))  # a camera's filling
    open_rgb(path, "the picture")
    path.write_bytes(content[:-999] + bytes(999))


def photo(**form):
    noise, file = np.random.default_rng(0).integers(0, 256, (96, 96)), io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(file, "JPEG", **form)
    return file.getvalue()


PHOTO, SCANS = photo(), photo(progressive=True)
HALF = len(PHOTO) // 2


@pytest.mark.parametrize(
    ("content", "is_sound"),
    [
        (PHOTO.replace(b"\n", b"\r\n"), False),
        (PHOTO[:HALF] + b"\xff\xd9", False),
        (PHOTO[:HALF] + PHOTO[HALF + 300 :], False),
        (PHOTO[:HALF] + bytes(300) + PHOTO[HALF + 300 :], False),
        (PHOTO[:HALF] + b" " * HALF + b"\xff\xd9", False),
        (PHOTO[:-2] + b"\xff" * 40 + b"\xff\xd9", True),  # filled up
        (PHOTO[:20] + b"stray" + PHOTO[20:] + b"more" + PHOTO, True),  # such as a video
        (PHOTO[:2] + b"\xff\xfe\0\4\xff\xd8" + PHOTO[2:], True),
        (SCANS[:-200], False),
        (SCANS[:-202] + b"\xff\xd9", False),
        (SCANS[:2000] + SCANS[2200:], False),  # in a scan that others follow
        (SCANS[:-2] + bytes(40) + b"\xff\xd9more", True),
    ],
)
def test_a_jpeg_that_lost_bytes_is_told(tmp_path, content, is_sound):
    """Decoders say nothing: they take what is left for other pixels."""
    (tmp_path / "photo.jpg").write_bytes(content)
    if is_sound:
        found = pixels(open_rgb(tmp_path / "photo.jpg", "the picture"))
        whole = SCANS if content.startswith(SCANS[:-2]) else PHOTO
        expected = pixels(Image.open(io.BytesIO(whole)).convert("RGB"))
        np.testing.assert_array_equal(found, expected)
        return
    for read in (open_rgb, measure):
        with pytest.raises(DataError, match=r"photo\.jpg: the picture cannot be read \("):
            read(tmp_path / "photo.jpg", "the picture")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lose_the_end, "its end is full of zeros, as unfinished downloads are"),
        (lambda path: Image.fromarray(GREY.astype(np.int32)).save(path, "TIFF"), "32 bits, of wh"),
        (lambda path: Image.fromarray(GREY.astype(np.float32)).save(path, "TIFF"), "are floats"),
        (lambda path: Image.fromarray(GREY).save(path, "TIFF", tiffinfo={339: 2}), "with a sign"),
        (lambda path: UPRIGHT.save(path, "TIFF", tiffinfo={254: 1}), "first page is a small copy"),
        (spoil, "when reading image file"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (lambda path: path.write_bytes(b""), "it is empty; copy"),
        (lambda path: path.write_text("version https://git-lfs"), "it is a pointer of Git LFS"),
        (lambda path: path.write_text("bl\u00e4\nblub"), 'a text and begins with "bl\u00e4"'),
        (lambda path: path.write_bytes(bytes(range(256))), "of a kind that is unknown here"),
        (lambda path: path.write_bytes(b"\0\0\0 ftypisom\0\0\0\0"), "it is a video; save its"),
        (lambda path: path.write_bytes(b"\0\0\0 ftypavif\0\0"), "it is a damaged AVIF picture"),
        (lambda path: path.write_bytes(b"\0\0\0\x0cJXL \r\n"), "it is a HEIC .* or a raw or"),
        (lambda path: path.write_bytes(bytes(128) + b"DICM"), "it is a document or a scan; save"),
        (lambda path: path.mkdir(), "this is a folder, not a file"),
        (os.mkfifo, "this is a pipe or a device"),
        (lambda path: path.write_bytes(png_header(20_000, 20_000)), "20,000 x 20,000 pixels; at"),
        (lambda path: path.write_bytes(png_header(40_000, 40_000)), r"\(1600000000 pixels\)"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_reason(tmp_path, make, reason):
    make(tmp_path / "odd.jpg")
    with pytest.raises(DataError, match=rf"odd\.jpg: the picture cannot be read \(.*{reason}"):
        open_rgb(tmp_path / "odd.jpg", "the picture")


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4)), np.zeros((4, 4, 7), np.uint8), GREY.astype("i4"), GREY[:0], GREY.tolist()],
)
def test_arrays_that_are_no_pictures_are_refused(array):
    with pytest.raises(DataError, match="picture cannot be used"):
        to_rgb(array)


@pytest.mark.slow
def test_a_picture_of_14000_x_13000_is_read(tmp_path):
    Image.new("1", (14_000, 13_000)).save(tmp_path / "survey.png")
    assert open_rgb(tmp_path / "survey.png", "the picture").size == (14_000, 13_000)
