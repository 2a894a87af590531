"""Annotation files, damaged at random: each loads, or one clear error says why it does not.

`python tests/damage.py 10000` damages so many files and prints what became of them.
"""

import gzip
import json
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from richsem.data.box_sets import BoxDataset, read_annotations
from richsem.data.image_sets import read_captions, read_image_labels, read_image_list
from richsem.data.reading import DataError, DataWarning
from richsem.evaluation import Detections, GroundTruth

LISTS = {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
CATEGORIES = [
    {"id": 1, "name": "cat", "frequency": "r", "synonyms": ["cat", "tom"], "image_count": 3},
    {"id": 2, "name": "d\u00f6g", "frequency": "f", "synset": "dog.n.01", "def": "a \U0001f415"},
]
PLAIN = {
    "info": {"year": 2020},
    "images": [
        {"id": i, "file_name": f"{i}.jpg", "width": 60, "height": 50, "license": i}
        for i in range(1, 5)
    ],
    "annotations": [
        {"id": n, "image_id": 1 + n % 4, "category_id": 1 + n % 2, "bbox": [n, 2.5, 20, 10 + n],
         "area": 180.5, "iscrowd": int(n == 3), "segmentation": [[1, 2, 3, 4, 5, 6]]}
        for n in range(1, 9)
    ],
    "categories": CATEGORIES,
}  # fmt: skip
FEDERATED = PLAIN | {"images": [image | LISTS for image in PLAIN["images"]]}
NAMED = PLAIN | {
    "images": [i | {"id": f"a{i['id']}", "neg_category_ids": []} for i in PLAIN["images"]],
    "annotations": [box | {"image_id": f"a{box['image_id']}"} for box in PLAIN["annotations"]],
}
LABELS = {
    "images": [
        {"id": i, "file_name": f"{i}.jpg", "width": 9, "height": 8, "pos_category_ids": [1]}
        for i in range(3)
    ],
    "categories": CATEGORIES,
}
BOXES = [PLAIN, FEDERATED, NAMED]
OTHERS = [
    (LABELS, read_image_labels),
    ([["a/b.jpg", -1], ["c.jpg", 3]], read_image_list),
    ([{"caption": "a cat", "image": "a.jpg"}, {"caption": "", "image": "b.jpg"}], read_captions),
]
VALUES = [
    None, "", "7", "x", True, False, 0, -1, -3, 1.0, 2.5, 2**31, 2**62, 2**63, 2**80, 1e300, -1e300,
    float("nan"), float("inf"), [], {}, [[]], [None], [1, 2, 3, 4], {"id": 1}, "\0", "../x",
    [float("nan")] * 4, [1e308] * 4, [1, 2, 3, "4"], "@half", "@deep", "@deeper", "@digits",
    "@twice",
]  # fmt: skip
# What Python's writer does not write.
TEXTS = {
    "@half": r'"\ud800"', "@deep": "[" * 800 + "]" * 800, "@digits": "9" * 5000,
    "@deeper": '{"a":' * 30_000 + "1" + "}" * 30_000, "@twice": '{"id": 1, "id": 2}',
}  # fmt: skip


class Pairs(list):
    """An object as a list of [key, value], so that it may have a key twice."""


def damaged(content, rng):
    """The bytes of a file after one or two accidents."""
    tree = _as_pairs(content)
    kinds = rng.choice(["value", "key", "bytes"], size=rng.integers(1, 3), p=[0.5, 0.25, 0.25])
    for kind in kinds[kinds != "bytes"]:
        (_other_value if kind == "value" else _other_key)(tree, rng)
    raw = _text(tree).encode()
    for _ in kinds[kinds == "bytes"]:
        raw = other_bytes(raw, rng)
    return _other_encoding(raw, rng) if rng.random() < 0.08 else raw


def _as_pairs(value):
    if isinstance(value, dict):
        return Pairs([key, _as_pairs(own)] for key, own in value.items())
    return [_as_pairs(own) for own in value] if isinstance(value, list) else value


def _text(value):
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(key)}: {_text(own)}" for key, own in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return TEXTS.get(value) if isinstance(value, str) and value in TEXTS else json.dumps(value)


def _lists(value):
    """All lists and objects of a tree."""
    inner = [own[1] for own in value] if isinstance(value, Pairs) else value
    return [value, *(one for own in inner if isinstance(own, list) for one in _lists(own))]


def _pick(tree, rng, kind=list):
    """A list of a tree (or an object) that is not empty, and a position in it."""
    full = [one for one in _lists(tree) if isinstance(one, kind) and one] or [["lost"]]
    holder = full[rng.integers(len(full))]
    return holder, int(rng.integers(len(holder)))


def _other_value(tree, rng):
    """Something else, or the value of another place, such as another record's id."""
    holder, at = _pick(tree, rng)
    value = VALUES[rng.integers(len(VALUES))]
    if rng.random() < 0.3:
        others, place = _pick(tree, rng, Pairs)
        value = others[place][1] if not isinstance(others[place][1], list) else value
    if isinstance(holder, Pairs):
        holder[at] = [holder[at][0], _as_pairs(value)]
    else:
        holder[at] = _as_pairs(value)


def _other_key(tree, rng):
    """A key or a record is lost, there twice, or called otherwise."""
    holder, at = _pick(tree, rng, Pairs if isinstance(tree, Pairs) else list)
    kind = rng.choice(["lost", "twice", "other"])
    if kind == "lost":
        del holder[at]
    elif kind == "twice":
        holder.append(holder[at])
    elif isinstance(holder, Pairs):
        holder[at] = ["Id", holder[at][1]]


def other_bytes(raw, rng):
    """Bits are turned, near an end as often as anywhere; a part is lost, there twice, or noise."""
    start, end = sorted(rng.integers(0, len(raw) + 1, 2).tolist())
    kind = rng.choice(["flip", "cut", "headless", "lost", "twice", "noise"])
    if kind == "flip":
        flipped = bytearray(raw)
        for _ in range(rng.choice([1, 1, 5, 60])):
            at = rng.integers(min(len(raw), rng.choice([16, 256, len(raw)])))
            flipped[at if rng.random() < 0.5 else -at - 1] ^= 1 << rng.integers(8)
        return bytes(flipped)
    noise = rng.bytes(int(rng.integers(1, 30)))
    near = start + min(end - start, int(2 ** rng.uniform(0, rng.choice([6, 16]))))
    return {
        "cut": raw[:end],
        "headless": raw[start:],
        "lost": raw[:start] + raw[near:],
        "twice": raw[:near] + raw[start:],
        "noise": raw[:start] + noise + raw[near:],
    }[kind] or b" "


def _other_encoding(raw, rng):
    text = raw.decode(errors="replace")
    ways = [
        lambda: b"\xef\xbb\xbf" + raw, lambda: gzip.compress(raw), lambda: text.encode("utf-16"),
        lambda: text.encode("utf-16-le"), lambda: text.encode("utf-32"), lambda: raw * 2,
        lambda: text.encode("latin-1", "replace"), lambda: raw + b"\0" * 9, lambda: b"",
    ]  # fmt: skip
    return ways[rng.integers(len(ways))]()


# --- what becomes of them -----------------------------------------------------------------------


def listed(raw, key):
    """All entries under a key of the top level, also where it is there twice, as Python reads."""
    text = raw.decode("utf-8-sig", "replace")
    pairs = json.loads(text, object_pairs_hook=Pairs, parse_int=lambda digits: int(digits[:99]))
    return [entry for name, entries in pairs if name == key for entry in entries]


def outcome(path, content):
    """ "loads" or "refused"; an `AssertionError` where something was lost without a word."""
    reader = next((read for other, read in OTHERS if other is content), None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = reader(path, path.parent) if reader else BoxDataset.load(path, path.parent)
            found.fingerprint, found.missing_images(), repr(found)
            if not reader:
                _account(found, path, " ".join(str(one.message) for one in caught))
                _judge(found, path)
        except DataError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error), error
            return "refused"
        assert all(one.category is DataWarning for one in caught), caught[0]
    return "loads"


def _account(dataset, path, said):
    raw = path.read_bytes()
    dropped = re.search(r"(\d+) boxes dropped", said)
    total = len(dataset.labels) + dataset.num_crowd + int(dropped[1] if dropped else 0)
    boxes = [[own for key, own in box if key == "bbox"][-1] for box in listed(raw, "annotations")]
    assert total == len(boxes), f"{len(boxes) - total} boxes are lost"
    assert len(dataset) == len(listed(raw, "images")), "images are lost"
    read = read_annotations(path).boxes_xywh
    np.testing.assert_array_equal(read, np.array(boxes, dtype=float).reshape(-1, 4))


def _judge(dataset, path):
    """Both backends and what is drawn agree on which files they take."""
    ids = dataset.image_ids[:3], [category.id for category in dataset.categories] * 3
    boxes = [[n, 2.5, 20, 10 + n] for n in range(len(ids[0]))]
    found = Detections(
        image_id=ids[0], category_id=ids[1][: len(boxes)], bbox_xywh=boxes, score=[0.5] * len(boxes)
    )
    for protocol in ("coco", "lvis") if dataset.is_federated else ("coco",):
        truth = GroundTruth.read(path, protocol)
        metrics = [truth.judge(found, backend).metrics for backend in ("official", "fast")]
        np.testing.assert_allclose(*(list(one.values()) for one in metrics), atol=1e-9)


def main(number, first=0):
    """Damages so many files; prints and returns how many load and how many are refused."""
    counts, slowest = Counter(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "set.json")
        for seed in range(first, first + number):
            rng = np.random.default_rng(seed)
            contents = [*BOXES, *BOXES, *(other for other, _ in OTHERS)]
            content = contents[rng.integers(len(contents))]
            path.write_bytes(damaged(content, rng))
            start = time.process_time()
            try:
                counts[outcome(path, content)] += 1
            except Exception as error:
                counts["failed"] += 1
                print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
            slowest = max(slowest, time.process_time() - start)
    print(f"{number} files: {dict(counts)}, the slowest took {slowest:.2f} CPU-s")
    return counts


if __name__ == "__main__":
    main(int(sys.argv[1]))
