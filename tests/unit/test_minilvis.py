"""The rendered benchmark: formats, honesty of its annotations, and what happens when it goes wrong.

All tests share one smoke render. What is painted anew is compared with it to the byte.
"""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from lvis import LVIS
from PIL import Image

from richsem import kept, paths
from richsem.data import catalog
from richsem.data.drawn import SMOKE
from richsem.minilvis import plans, render
from richsem.minilvis.render import RenderError, build_minilvis, other_renders
from richsem.minilvis.scenes import Thing

BUILD = (
    # Where the tests themselves run in the background, Ctrl-C is ignored and that is inherited.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from richsem.minilvis.render import build_minilvis\n"
    "from richsem.data.drawn import SMOKE\n"
    "build_minilvis(SMOKE, workers=2)"
)


def start(cache, shards):
    """A render in a process of its own, after it has finished this many shards."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"RICHSEM_CACHE": str(cache)},
    )  # fmt: skip
    while len(list(cache.rglob("shards/**/*.json"))) < shards:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


@pytest.fixture(scope="session")
def root():
    """The smoke render of the cache that all tests share."""
    return build_minilvis(SMOKE)


@pytest.fixture
def copy(root, tmp_path, monkeypatch):
    """A cache with a copy of the render's annotations and shards that a test may damage."""
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    return shutil.copytree(root, tmp_path / root.name)


def load(root, name):
    return json.loads((root / "annotations" / f"{name}.json").read_bytes())


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".tmp" and path.parent.name != "locks"
    }


# --- interruptions and failures ------------------------------------------------------------------


def test_an_interrupted_render_goes_on_to_the_bytes_of_another_one(root, tmp_path, monkeypatch):
    # Painting six of the shards is enough to be interrupted twice, politely and by force.
    left = shutil.ignore_patterns("objects365*", "visual_genome*", "openimages*")
    for part in ("images", "shards"):
        shutil.copytree(root / part, tmp_path / root.name / part, ignore=left)
    there = len(list(tmp_path.rglob("shards/**/*.json")))
    process = start(tmp_path, there + 1)
    polite = sys.platform != "win32"
    process.send_signal(signal.SIGINT if polite else signal.SIGTERM)
    _, message = process.communicate(timeout=5)
    assert not polite or "finished shards are kept" in message
    process = start(tmp_path, there + 3)
    process.kill()
    process.communicate()
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    resumed = build_minilvis(SMOKE, workers=2)
    assert digests(resumed) == digests(root)
    assert {path.stat().st_mtime_ns for path in resumed.rglob("*.jpg")} == {kept.DRAWN_AT}


def test_images_are_those_of_the_manifest(root):
    manifest, sums = json.loads((root / "manifest.json").read_bytes()), digests(root)
    for folder, entry in manifest["images"].items():
        own = sorted(name for name in sums if name.startswith(f"images/{folder}/"))
        joined = "".join(sums[name] for name in own)
        assert len(own) == entry["count"]
        assert hashlib.sha256(joined.encode()).hexdigest() == entry["sha256"]


def test_what_was_lost_is_made_again_and_renders_of_other_code_are_left_alone(copy, monkeypatch):
    before = digests(copy)
    picture = next((copy / "images" / "lvis" / "val").glob("*.jpg"))
    for lost in (copy / "annotations" / "lvis_v1_val.json", copy / "manifest.json", picture):
        lost.unlink()
        build_minilvis(SMOKE)
    assert digests(copy) == before
    manifest = json.loads((copy / "manifest.json").read_bytes())
    del manifest["config"]["anew"]  # a field that came after the render has its default there
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    monkeypatch.setattr(render, "_painted", None)
    assert build_minilvis(SMOKE) == copy
    assert other_renders(SMOKE) == []
    old = copy.rename(copy.with_name(copy.name[:-8] + "0" * 8))
    assert other_renders(SMOKE) == [old]


@pytest.mark.parametrize("content", ['{"config": {"seed": 9}, "annotations": {}}', '{"con', "[]"])
def test_a_foreign_manifest_is_refused(copy, content):
    (copy / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(RenderError, match=r"manifest\.json does not belong .* Delete"):
        build_minilvis(SMOKE)


def test_errors_of_workers_and_of_the_disk_name_set_and_image_or_a_remedy(tmp_path, monkeypatch):
    specs = plans.plan_captioned(SMOKE)[:6]
    specs[5] = plans.SceneSpec(things=(Thing(stem="NOPE", group="animal"),), scene="wood")
    with pytest.raises(RenderError, match=r"lvis.train.000000000006\.jpg: ValueError: .*'NOPE'"):
        render._painted(SMOKE, render._pieces(tmp_path, "lvis/train", specs), 1)
    assert not list(tmp_path.rglob("shards/**/*.json"))
    monkeypatch.setattr(paths, "CACHE", tmp_path / "file")
    paths.CACHE.write_text("in the way", encoding="utf-8")
    with pytest.raises(RenderError, match=r"cannot write .*file.* set RICHSEM_CACHE"):
        build_minilvis(SMOKE)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(render, "write_atomic", full)
    piece = render._pieces(tmp_path, "cc3m", plans.plan_captioned(SMOKE))[0]
    with pytest.raises(RenderError, match=r"cc3m.*000000000001\.jpg: No space .* RICHSEM_CACHE"):
        render._paint_shard(SMOKE, piece)


# --- annotation files ----------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "dev", "val"])
def test_fields_and_lists_of_classes_are_those_of_lvis_v1(root, split):
    content = load(root, f"lvis_v1_{split}")
    assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
    image, annotation, category = (content[k][0] for k in ("images", "annotations", "categories"))
    fields = "id height width coco_url flickr_url license date_captured"
    assert set(image) == {*fields.split(), "neg_category_ids", "not_exhaustive_category_ids"}
    assert set(annotation) == {"id", "image_id", "category_id", "bbox", "area", "segmentation"}
    fields = "id name synset synonyms def frequency image_count instance_count"
    assert set(category) == set(fields.split())
    for key in ("images", "annotations", "categories"):
        assert [record["id"] for record in content[key]] == [*range(1, len(content[key]) + 1)]
    for image in content["images"]:
        assert image["coco_url"].endswith(f"/{split}/{image['id']:012d}.jpg")
        assert image["height"] == image["width"] == SMOKE.size
    # Federated lists fit the annotations.
    positive = {(a["image_id"], a["category_id"]) for a in content["annotations"]}
    for image in content["images"]:
        shown = {c for i, c in positive if i == image["id"]}
        assert not shown & set(image["neg_category_ids"])
        assert set(image["not_exhaustive_category_ids"]) <= shown
    negatives = sum(len(image["neg_category_ids"]) for image in content["images"])
    assert negatives > len(content["images"])
    # Some crowd of the many training images is not exhaustively annotated.
    assert split != "train" or any(i["not_exhaustive_category_ids"] for i in content["images"])


def test_frequencies_and_counts_are_those_of_the_training_annotations(root):
    train = load(root, "lvis_v1_train")
    pairs = [(a["image_id"], a["category_id"]) for a in train["annotations"]]
    instances, images = (Counter(c for _, c in some) for some in (pairs, set(pairs)))
    planned = [c.frequency for c in plans.detection_classes(SMOKE)]
    for category, group in zip(train["categories"], planned, strict=True):
        known = ("instance_count", "image_count", "frequency")
        counted = (instances[category["id"]], images[category["id"]], group)
        assert tuple(category[name] for name in known) == counted
    for split in ("dev", "val"):
        assert load(root, f"lvis_v1_{split}")["categories"] == train["categories"]


def test_boxes_and_outlines_are_tight_and_inside(root):
    for annotation in load(root, "lvis_v1_val")["annotations"]:
        assert all(len(outline) >= 6 for outline in annotation["segmentation"])
        points = np.concatenate([np.reshape(p, (-1, 2)) for p in annotation["segmentation"]])
        corner, sides = np.reshape(annotation["bbox"], (2, 2))
        assert (corner >= 0).all() and (sides > 0).all() and (corner + sides <= SMOKE.size).all()
        assert 12 <= annotation["area"] <= sides.prod()
        assert points.min(0) == pytest.approx(corner, abs=1.01)
        assert points.max(0) == pytest.approx(corner + sides, abs=1.01)
        assert ((points >= 0) & (points <= SMOKE.size)).all()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_the_official_reader_takes_the_file(root):
    official = LVIS(str(root / "annotations" / "lvis_v1_val.json"))
    annotations = official.load_anns(official.get_ann_ids())
    assert len(annotations) > 30
    ratio = [official.ann_to_mask(a).sum() / a["area"] for a in annotations]
    assert ratio == pytest.approx(np.ones(len(ratio)), abs=0.1)


def test_a_scene_is_drawn_larger_with_its_objects_where_they_were(root, monkeypatch):
    pictures = [*map(Image.open, sorted((root / "images/lvis/val").glob("*.jpg"))[:8])]
    for index, image in enumerate(pictures):
        larger = render.drawn_larger(SMOKE, "val", index, image)
        assert larger.size == (2 * image.width, 2 * image.height)
        shrunk = np.asarray(larger.resize(image.size, Image.Resampling.BOX), dtype=float)
        assert np.abs(shrunk - np.asarray(image)).mean() < 12
    monkeypatch.setattr(render, "_OTHER_PLACE", 0)  # then every object is in another place
    stretched = render.drawn_larger(SMOKE, "val", 0, pictures[0])
    expected = pictures[0].resize(stretched.size, Image.Resampling.BICUBIC)
    assert stretched.tobytes() == expected.tobytes()


@pytest.mark.parametrize("key", catalog.BOX_KEYS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_set_of_boxes_is_read_without_a_warning(root, key, split):
    dataset = catalog.open_boxes(key, split, root=root)  # warnings are errors in these tests
    assert dataset.missing_images() == () and dataset.is_federated == (key == "lvis")
    assert len(dataset.labels) >= len(dataset) > 8
    for name in dataset.file_names[:20]:
        with Image.open(dataset.image_root / name) as photo:
            assert (photo.size, photo.mode) == ((SMOKE.size, SMOKE.size), "RGB")


@pytest.mark.parametrize("key", catalog.IMAGE_KEYS)
def test_every_set_of_images_is_read(root, key):
    images = catalog.open_images(key, root=root)
    assert images.missing_images() == ()
    side = SMOKE.size if key in ("cc3m", "cc_unl") else SMOKE.portrait_size
    assert images.image(len(images) - 1).size == (side, side)
    if key == "inet_lvis":
        assert set(images.image_counts()) == {SMOKE.portraits}
        assert [c.image_count for c in images.categories] == images.image_counts().tolist()
