"""Image-level sets: labels, captions, nothing; and how classes are called."""

import numpy as np
import pytest
from PIL import Image
from tiny_files import write_json

from richsem.data import image_sets
from richsem.data.categories import Category, clean_name, spoken_names
from richsem.data.image_sets import read_captions, read_image_labels, read_image_list
from richsem.data.reading import DataError, DataWarning

INET = {
    "categories": [
        {"id": 4, "name": "dog", "image_count": 2},
        {"id": 2, "name": "bow_(weapon)", "image_count": 1},
    ],
    "images": [
        {"id": 1, "file_name": "n1/a.jpg", "pos_category_ids": [4], "width": 8, "height": 6},
        {"id": 2, "file_name": "n1/b.jpg", "pos_category_ids": [4, 2], "width": 8, "height": 6},
    ],
    "annotations": [],
}

CATEGORIES = (
    Category(id=1, name="dog", synonyms=("dog", "domestic_dog")),
    Category(id=2, name="hot_dog", synonyms=("hot_dog", "frank")),
    Category(id=3, name="bow_(weapon)"),
    Category(id=4, name="bow_(decorative_ribbons)", synonyms=("ribbon",)),
    Category(id=5, name="T-shirt", synonyms=("jersey",)),
    Category(id=6, name="brush"),
)


@pytest.fixture
def opened(tmp_path):
    return lambda read, content, *rest: read(
        write_json(tmp_path / "list.json", content), tmp_path, *rest
    )


def test_image_labels_image_lists_and_captions_are_read(opened):
    images = opened(read_image_labels, INET)
    assert images.file_names == ("n1/a.jpg", "n1/b.jpg")
    assert [category.id for category in images.categories] == [2, 4]
    assert (images.labels, images.captions) == (((1,), (1, 0)), ())
    assert images.image_sizes.tolist() == [[6, 8], [6, 8]]
    assert images.image_counts().tolist() == [1, 2]
    images = opened(read_image_list, [["x/a.jpg", -1], ["x/b.jpg", 17]])
    assert (images.file_names, images.labels) == (("x/a.jpg", "x/b.jpg"), ((), ()))
    assert images.image_counts().tolist() == []
    content = [{"caption": "Two dogs", "image": "a.jpg"}, {"caption": "", "image": "b.jpg"}]
    assert opened(read_captions, content).labels == ((), ())
    images = opened(read_captions, content, CATEGORIES)
    assert (images.labels, images.captions) == (((0,), ()), ("Two dogs", ""))
    assert clean_name("Bow_(decorative_ribbons)") == "bow"
    bare = images.without_labels()
    assert (bare.labels, bare.captions) == (((), ()), ())


@pytest.mark.parametrize(
    ("caption", "labels"),
    [
        ("a dog in the snow", (0,)), ("a hotdog stand", ()), ("eating a hot dog", (0, 1)),
        ("a domestic_dog", (0,)), ("dogma and frankness", ()), ("with a bow", (2, 3)),
        ("a red t-shirt", (4,)), ("T-shirts for sale", (4,)), ("paint brushes", (5,)),
        ("hot, dog", (0,)),
    ],
)  # fmt: skip
def test_names_are_found_as_whole_words(caption, labels):
    assert image_sets.caption_labels([caption], CATEGORIES) == (labels,)


def test_missing_images_are_counted_and_named_and_the_fingerprint_follows_them(opened, tmp_path):
    images = opened(read_image_labels, INET)
    before, first = images.fingerprint, images.select([0]).fingerprint
    (tmp_path / "n1").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "n1" / "b.jpg")
    with pytest.warns(DataWarning, match=r"1 of 2 pictures .*n1/a\.jpg"):
        subset = images.subset_with_images()
    assert (subset.file_names, subset.labels) == (("n1/b.jpg",), ((1, 0),))
    assert len(subset.image_sizes) == 1
    assert subset.image(0).size == (8, 6)
    with pytest.raises(DataError, match=r"a\.jpg: image of record 0 of list\.json is not on disk"):
        images.image(0)
    again = opened(read_image_labels, INET)
    assert again.fingerprint != before
    assert again.select([0]).fingerprint == first != again.select([1]).fingerprint


def edited(**fields):
    return {**INET, "images": [INET["images"][0], {**INET["images"][1], **fields}]}


UNKNOWN = r'images\[1\] \(id 2\): field "pos_category_ids"'
ANY, PAIR = "an object", r"\[relative path, number\]"


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_image_labels, {**INET, "images": []}, "images is empty"),
        (read_image_labels, {**INET, "categories": []}, "categories is empty"),
        (read_image_labels, edited(pos_category_ids=[9]), f"{UNKNOWN} names unknown category 9"),
        (read_image_labels, edited(pos_category_ids="4"), "is '4', expected list"),
        (read_image_labels, edited(id=1), r"images\[1\] \(id 1\): duplicate id"),
        (read_image_labels, edited(width=None), 'field "width" is None, expected a whole'),
        (read_image_list, [], "is empty"),
        (read_image_list, {}, f"is an object, expected a list, each entry {PAIR}"),
        (read_image_list, [["a.jpg", 1], ["b.jpg"]],
         rf"\[1\]: this is \['b\.jpg'\], expected {PAIR}"),
        (read_captions, [], "is empty"),
        (read_captions, {}, f"is an object, expected a list, each entry {ANY}"),
        (read_captions, [{"caption": "x"}], r'\[0\]: field "image" is missing'),
        (read_captions, [{"caption": 5, "image": "a"}], r'\[0\]: field "caption" is 5, .* text'),
    ],
)  # fmt: skip
def test_bad_content_names_file_record_and_field(opened, read, content, message):
    with pytest.raises(DataError, match=rf"list\.json.*{message}"):
        opened(read, content)


def test_forgotten_boxes_leave_their_classes_as_labels(tiny_set):
    images = image_sets.forget_boxes(tiny_set)
    assert images.labels == ((0, 1, 2), (3,), (), (0, 1), (0, 2))
    assert images.image(1).size == tiny_set.image(1).size
    assert images.categories == tiny_set.categories
    np.testing.assert_array_equal(images.image_sizes, tiny_set.image_sizes)
    # New captions bring their own labels.
    captions = ("two dogs", "", "a Red Boat and a cat", "a tree", "guitars")
    told = image_sets.recaptioned(images, captions)
    assert (told.labels, told.captions) == (((0,), (), (1, 2), (), (3,)), captions)
    with pytest.raises(ValueError, match="1 captions for 5 images"):
        image_sets.recaptioned(images, ["one"])


def test_names_are_spoken_without_signs_and_keep_brackets_that_tell_them_apart():
    for names, expected in (
        (("aerosol_can", "bow_(weapon)", "(dog)"), ["aerosol can", "bow", "(dog)"]),
        (("bow_(weapon)", "bow_(knot)", "dog_(animal)"), ["bow (weapon)", "bow (knot)", "dog"]),
    ):
        categories = tuple(Category(id=i, name=name) for i, name in enumerate(names))
        assert spoken_names(categories) == expected
