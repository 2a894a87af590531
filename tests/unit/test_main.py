"""The data commands; the notebook commands are tested with their runner."""

import json
from pathlib import Path

import pytest
from PIL import Image

from richsem.__main__ import main
from richsem.data import minilvis, plans


@pytest.fixture
def annotations(tmp_path):
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 8, "height": 6} for i in (1, 2, 3, 4, 5)
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3]}],
        "categories": [
            {"id": 1, "name": "cat", "frequency": "r"},
            {"id": 2, "name": "dog", "frequency": "f"},
        ],
    }
    path = tmp_path / "some.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    Image.new("RGB", (8, 6)).save(tmp_path / "1.jpg")
    return path


def check(annotations, folder):
    return main(["data", "check", "--annotations", str(annotations), "--images", str(folder)])


def test_check_counts_images_boxes_categories_and_files(annotations, capsys):
    assert check(annotations, annotations.parent) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:5] == [
        "images 5",
        "boxes 1 and 0 crowd regions",
        "categories 2",
        "1 rare, 0 common, 1 frequent",
        "files 1 found, 4 missing",
    ]
    assert [Path(line.split(": ")[1]).name for line in lines[5:]] == ["2.jpg", "3.jpg", "4.jpg"]


def test_check_without_any_image_still_counts(annotations, tmp_path, capsys):
    assert check(annotations, tmp_path / "nowhere") == 0
    assert "0 found, 5 missing" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", '{"images": [', "[]", '{"images": []}'])
def test_check_of_a_bad_file_is_one_error_with_its_name(tmp_path, content, capsys):
    path = tmp_path / "bad.json"
    path.write_text(content, encoding="utf-8")
    assert check(path, tmp_path) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "bad.json" in captured.err


def test_check_of_a_missing_file(tmp_path, capsys):
    assert check(tmp_path / "none.json", tmp_path) == 2
    assert "none.json: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "config"),
    [([], plans.DEMO), (["--profile", "smoke"], plans.SMOKE)],
)
def test_render_builds_the_profile_and_names_older_renders(
    arguments, config, tmp_path, monkeypatch, capsys
):
    built = []
    monkeypatch.setattr(minilvis, "build_minilvis", lambda c: built.append(c) or tmp_path / "new")
    monkeypatch.setattr(minilvis, "other_renders", lambda c: [tmp_path / "old"])
    assert main(["data", "render", *arguments]) == 0
    assert built == [config]
    new, old = capsys.readouterr().out.splitlines()
    assert new == str(tmp_path / "new")
    assert old.endswith(f"may be deleted: {tmp_path / 'old'}")


def test_a_failed_render_is_an_error_message(monkeypatch, capsys):
    def fail(config):
        raise minilvis.RenderError("cannot write there")

    monkeypatch.setattr(minilvis, "build_minilvis", fail)
    assert main(["data", "render"]) == 2
    assert capsys.readouterr().err == "error: cannot write there\n"


@pytest.mark.parametrize(
    "arguments", [["data"], ["data", "check"], ["data", "render", "--profile", "paper"]]
)
def test_wrong_usage_exits_with_two(arguments):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
