"""Files of one's own: which pictures are learnt from, and which are held out."""

import shutil

import numpy as np
import pytest
from tiny_files import write_set

from richsem.config import ConfigError
from richsem.data.box_sets import BoxDataset
from richsem.data.own import OwnConfig, held_out, open_own
from richsem.data.reading import DataError, DataWarning


def drawn(seed):
    """Classes of 5 to 150 images of a long-tailed set; one in five shows nothing."""
    rng = np.random.default_rng(seed)
    size, classes = rng.integers(5, 150), rng.integers(2, 50)
    odds = 1 / np.arange(1, classes + 1)
    numbers = np.minimum(rng.integers(0, 5, size), classes)
    return [rng.choice(classes, n, False, odds / odds.sum()).tolist() for n in numbers]


def opened(folder, **options):
    own = OwnConfig(annotations=str(folder / "set.json"), images=str(folder), **options)
    return [open_own(own, part) for part in ("train", "val")]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(8))
def test_every_class_that_can_be_is_in_both_parts(tmp_path, seed, share):
    path = write_set(tmp_path, drawn(seed), pictures=False)
    whole = BoxDataset.load(path, tmp_path)
    held = held_out(whole, share)
    rest = np.setdiff1d(np.arange(len(whole)), held)
    images = whole.image_counts()
    learnt, judged = whole.select(rest).image_counts(), whole.select(held).image_counts()
    assert (learnt[images > 1] > 0).all() and (judged[images > 1] > 0).all()
    frequent = images > 20
    np.testing.assert_allclose(judged[frequent], share * images[frequent], atol=10)
    assert set(held) == set(held_out(BoxDataset.load(path, tmp_path / "elsewhere"), share))


def test_the_rest_is_learnt_where_classes_cannot_be_shared_out(tmp_path):
    triangle = [[0, 1], [1, 2], [0, 2], [3]]  # two of three images are alike to some class
    learnt, judged = opened(write_set(tmp_path, triangle).parent)
    assert (learnt.image_counts() > 0).all()
    assert len(judged) == 1 and (judged.image_counts() > 0).sum() == 2
    assert (learnt.frequency_groups() == "r").all()


def test_pictures_with_the_same_bytes_stay_together(tmp_path):
    write_set(tmp_path, [[0]] * 6 + [[1]] * 2)
    for i in (8, 15, 22):
        shutil.copy(tmp_path / "1.jpg", tmp_path / f"{i}.jpg")
    shutil.copy(tmp_path / "43.jpg", tmp_path / "50.jpg")
    ids = [set(part.image_ids.tolist()) for part in opened(tmp_path)]
    assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == 8
    for same in ({1, 8, 15, 22}, {43, 50}):
        assert same <= ids[0] or same <= ids[1]
    assert 43 in ids[0]  # the class has one picture, which is learnt from


def test_a_file_of_its_own_to_judge_by(tmp_path):
    write_set(tmp_path, [[0], [1], [0, 1]])
    val = write_set(tmp_path / "val", [[0], [1]], seed=1, federated=True)
    files = {"val_annotations": str(val), "val_images": str(val.parent)}
    learnt, judged = opened(tmp_path, **files)
    assert (len(learnt), len(judged), judged.is_federated) == (3, 2, True)
    shutil.copy(tmp_path / "15.jpg", val.parent / "8.jpg")
    with pytest.warns(DataWarning, match=r"set\.json: 1 of 3 pictures .* left out \(15\.jpg\)"):
        learnt, judged = opened(tmp_path, **files)
    assert learnt.file_names == ("1.jpg", "8.jpg") and len(judged) == 2
    with pytest.raises(DataError, match="3 of 3 pictures are judged by, too"):
        opened(tmp_path, val_annotations=str(tmp_path / "set.json"))


@pytest.mark.parametrize("has_own", [False, True])
def test_what_is_judged_by_knows_how_frequent_classes_are_in_training(tmp_path, has_own):
    write_set(tmp_path, [[0]] * 15 + [[1]] * 3)
    val = write_set(tmp_path / "val", [[0], [1]], seed=1)
    files = {"val_annotations": str(val), "val_images": str(val.parent)} if has_own else {}
    learnt, judged = opened(tmp_path, **files)
    for part in (learnt, judged):
        assert part.frequency_groups().tolist() == ["c", "r"]
    stated = [category.image_count for category in judged.categories]
    assert stated == learnt.image_counts().tolist() == ([15, 3] if has_own else [12, 2])


@pytest.mark.parametrize(
    ("shows", "words"),
    [
        ([[0], [1]], r"2 images.*'val' have no box|'val'"),
        ([[0], [], []], r"its 1 pictures for 'val' have no box"),
    ],
)
def test_a_part_without_boxes_is_refused(tmp_path, shows, words):
    write_set(tmp_path, shows)
    with pytest.raises(DataError, match=words):
        opened(tmp_path)


def test_what_cannot_be_opened(tmp_path):
    for share in (0.0, 1.0, -0.2, float("nan")):
        with pytest.raises(ConfigError, match="holdout is a share of the pictures"):
            OwnConfig(annotations="a", images="b", holdout=share)
    own = OwnConfig(annotations=str(tmp_path / "no.json"), images=str(tmp_path))
    with pytest.raises(DataError, match=r"no\.json: cannot be read"):
        open_own(own, "train")
    with pytest.raises(DataError, match=r"no split 'dev'; there are train, val"):
        open_own(own, "dev")
