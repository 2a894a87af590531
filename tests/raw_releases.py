"""Every real release in small: the same archives, names and fields, with pictures of noise."""

import csv
import functools
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from richsem.data.releases import RELEASES

SIZE = {"width": 40, "height": 30}
# As LVIS v1 and WordNet 3.0 have them; the last one is in no WordNet.
CLASSES = [("bow_(weapon)", "bow.n.04"), ("cat", "cat.n.01"), ("stop_sign", "stop_sign.n.01")]
INDEX = "".join(
    f"{line}  \n"  # as in the original
    for line in (
        "  1 This software and database is being provided to you, the LICENSEE, by",
        "bow n 9 5 @ ~ #p %p + 9 4 02880189 02879517 02880008 02879718 13896100 07274425 07229341 "
        "02880308 00547765",
        "cat n 8 5 @ ~ #m + ; 8 1 02121620 10153414 09900153 03608870 02985606 02983507 02127808 "
        "00901476",
    )
)


def picture(seed=0, size=(SIZE["width"], SIZE["height"])):
    """A JPEG of noise."""
    file, rng = io.BytesIO(), np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def zipped(files):
    """A zip archive of name -> bytes, or what becomes JSON."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content)
            archive.writestr(zipfile.ZipInfo(name), data)  # without the time
    return file.getvalue()


def tarred(files, *, plain=False):
    """The same as a tar archive, compressed or not."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue() if plain else gzip.compress(file.getvalue(), mtime=0)


def table(*rows, separator=","):
    """Lines of a csv file."""
    file = io.StringIO()
    csv.writer(file, delimiter=separator, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()


def _lvis(split):
    categories = [
        {"id": i, "name": name, "synset": synset, "synonyms": [name], "frequency": "rcf"[i - 1]}
        | {"def": "a thing", "image_count": 5 * i, "instance_count": 9 * i}
        for i, (name, synset) in enumerate(CLASSES, 1)
    ]
    images = [
        {"id": i, **SIZE, "coco_url": f"http://images.cocodataset.org/{folder}2017/{i:012}.jpg"}
        | {"neg_category_ids": [3], "not_exhaustive_category_ids": [], "license": 1}
        | {"flickr_url": "", "date_captured": "2013-11-14 17:02:52"}
        for i, folder in enumerate(("val", "train", "val", "val") * 3, 1)
    ]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1 + (i % 5 == 0), "bbox": [4.0, 4.0, 9.5, 8.0]}
        | {"area": 60.2, "segmentation": [[4.0, 4.0, 13.5, 4.0, 13.5, 12.0]]}
        for i in range(1, 13)
    ]
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    return zipped({f"lvis_v1_{split}.json": content | {"categories": categories}})


def _coco(split):
    names = {"val": (1, 3, 4, 5, 7, 8, 9, 11, 12), "train": (2, 6, 10)}[split]
    return zipped({f"{split}2017/{i:012}.jpg": picture(i) for i in names})


def _objects365_json(split):
    images = [
        {"id": i, **SIZE, "license": 5, "url": "", "file_name": f"images/v1/patch{p}/{name}"}
        for i, p, name in ((420917, 8, "objects365_v1_00420917.jpg"), (320532, 6, "absent.jpg"))
    ]
    annotations = [
        {"id": i, "image_id": image, "category_id": 57, "bbox": [1.5, 2.0, 10.0, 12.0]}
        | {"iscrowd": 0, "isfake": 0, "area": 120.0, "isreflected": 0}
        for i, image in enumerate((420917, 320532), 1)
    ]
    categories = [{"id": 57, "name": "Wild Bird"}, {"id": 351, "name": "Noddles"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _openimages_csv(split):
    image = {"train": "000002b66c9c498e", "val": "00001a21632de752"}[split]
    return table(
        ["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"],
        [image, "/m/01g317", "0.012500", "0.512500", "0.100000", "0.600000", 0],
        [image, "/m/011k07", "0.5", "1.0", "0.0", "1.0", 1],
        ["ffffffffffffffff", "/m/01g317", "0.1", "0.2", "0.1", "0.2", 0],
    )


def _visual_genome_objects():
    box = {"synsets": [], "merged_object_ids": [], "x": 3, "y": 2, "w": 20, "h": 10}
    names = ("Large red Ball.", "ball boy", "unheard of", "egg yolk")
    objects = [{**box, "object_id": i, "names": [name]} for i, name in enumerate(names)]
    return [
        {"image_id": 1, "objects": objects, "image_url": "https://x/VG_100K_2/1.jpg"},
        {"image_id": 2, "objects": objects[3:], "image_url": "https://x/VG_100K/2.jpg"},
        {"image_id": 3, "objects": objects[2:3], "image_url": "https://x/VG_100K/3.jpg"},
    ]


SPLIT_FILE = b"VG_100K_2/1.jpg xml/1.xml\nVG_100K/2.jpg xml/2.xml\nVG_100K/3.jpg xml/3.xml\n"


@functools.cache
def contents():
    """Place below `raw/` -> bytes, for every file of every release."""
    found = {
        "visual_genome/images.zip": zipped(
            {"VG_100K/2.jpg": picture(), "VG_100K/3.jpg": picture()}
        ),
        "visual_genome/images2.zip": zipped({"VG_100K_2/1.jpg": picture()}),
        "visual_genome/objects_v1_2.json.zip": zipped({"objects.json": _visual_genome_objects()}),
        "visual_genome/image_data.json.zip": zipped(
            {"image_data.json": [{"image_id": i, **SIZE, "coco_id": None} for i in (1, 2, 3)]}
        ),
        "visual_genome/objects_vocab.txt": b"ball,balls\nyolk,egg yolk\nball boy\n",
        "openimages/challenge-2019-classes-description-500.csv": table(
            ["/m/011k07", "Tortoise"], ["/m/01g317", "Person"]
        ),
        "openimages/val/validation.tar.gz": tarred({"validation/00001a21632de752.jpg": picture()}),
        "openimages/val/challenge-2019-validation-detection-bbox.csv": _openimages_csv("val"),
        "openimages/train/challenge-2019-train-detection-bbox.csv": _openimages_csv("train"),
        "object365/Objects365_names_fix.csv": b"57,Wild Bird,Bird\r\n351,Noddles,Noodles\r\n",
        "object365/train/zhiyuan_objv2_train.tar.gz": tarred(
            {"zhiyuan_objv2_train.json": _objects365_json("train")}
        ),
        "object365/val/zhiyuan_objv2_val.json": json.dumps(_objects365_json("val")).encode(),
        "imagenet-lvis/WNdb-3.0.tar.gz": tarred({"dict/index.noun": INDEX.encode()}),
        "imagenet-lvis/imagenet_lvis_wnid.txt": b"n02879718\nn02121620\n",
        "imagenet-21k/winter21_whole/n02879718.tar": tarred(
            {"n02879718_1.JPEG": picture(), "n02879718_2.JPEG": b"no picture"}, plain=True
        ),
        "imagenet-21k/winter21_whole/n02121620.tar": tarred(
            {"n02121620_7.JPEG": picture()}, plain=True
        ),
        "imagenet-21k/winter21_whole/n00004475.tar": tarred(
            {"n00004475_1.JPEG": picture()}, plain=True
        ),
        "cc3m/GCC-training.tsv": b"a very typical cat\thttp://x/1.jpg\n",
        "cc3m/00000.tar": tarred(
            {"000000000.jpg": picture(), "000000000.txt": b"a cat", "000000000.json": {"url": ""}},
            plain=True,
        ),
    }
    for split in ("train", "val"):
        found[f"lvis/{split}/lvis_v1_{split}.json.zip"] = _lvis(split)
        found[f"coco/{split}/{split}2017.zip"] = _coco(split)
        found[f"visual_genome/{split}/{split}.txt"] = SPLIT_FILE
    for place in [file.place for name in ("openimages", "o365") for file in RELEASES[name].files]:
        if place.startswith("openimages/train/train_"):
            names = {"train_0/000002b66c9c498e.jpg": picture()} if "train_0" in place else {}
            found[place] = tarred(names)
        elif "/patch" in place:  # Objects365: one picture in patch 8, and many empty archives
            name = "patch8/objects365_v1_00420917.jpg"
            found[place] = tarred({name: picture()} if "patch8." in place else {})
    return found


def write(root, name, split=""):
    """Puts the small release of a set below a data root; returns its `raw` folder."""
    for place, content in contents().items():
        for file in RELEASES[name].of(split):
            if Path(place).match(file.place.replace("**", "*")):
                path = root / "raw" / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    return root / "raw"


def shrunk(digest):
    """The releases with the sizes and digests of their small files, and what a server has to hold.

    Returns name -> release, and path below the server (host and path) -> bytes.
    """
    small, served, known = {}, {}, contents()
    for name, one in RELEASES.items():
        files = []
        for file in one.files:
            if not file.by_hand:
                content = known[file.place]
                served["/" + file.url.partition("://")[2]] = content
                size = {"bytes": len(content)} if file.bytes else {}
                size |= {"sha256": digest(content)} if file.sha256 else {}
                file = msgspec.structs.replace(file, **size)
            files.append(file)
        small[name] = msgspec.structs.replace(one, files=tuple(files), disk=1000)
    return small, served
