"""The commands; those for notebooks are tested with their runner."""

import errno
import json
import os
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image
from toys import small_run, write_root

from richsem.__main__ import main
from richsem.data import drawn
from richsem.minilvis import render
from richsem.operations import store
from richsem.paths import ROOT, only_one
from richsem.recipes.dino_recipes import MINI_START, baseline
from richsem.training.runs import open_trained, run
from richsem.workbook.results import writers
from richsem.workbook.studies import STUDIES, runs_behind


def check(annotations, folder):
    return main(["data", "check", "--annotations", str(annotations), "--images", str(folder)])


@pytest.mark.parametrize("content", [None, "", '{"images": [', "[]", '{"images": []}'])
def test_check_of_a_bad_file_is_one_error_with_its_name(tmp_path, content, capsys):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert check(path, tmp_path) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert ("bad.json: cannot be read" if content is None else "bad.json") in captured.err


@pytest.mark.parametrize(
    ("arguments", "config"), [([], drawn.DEMO), (["--profile", "smoke"], drawn.SMOKE)]
)
def test_render_builds_the_profile_and_names_older_renders(
    arguments, config, tmp_path, monkeypatch, capsys
):
    built = []
    monkeypatch.setattr(render, "build_minilvis", lambda c: built.append(c) or tmp_path / "new")
    monkeypatch.setattr(render, "other_renders", lambda c: [tmp_path / "old"])
    assert main(["data", "render", *arguments]) == 0
    assert built == [config]
    new, old = capsys.readouterr().out.splitlines()
    assert new == str(tmp_path / "new")
    assert old.endswith(f"may be deleted: {tmp_path / 'old'}")
    monkeypatch.setattr(render, "other_renders", mock.Mock(side_effect=render.RenderError("full")))
    assert main(["data", "render", *arguments]) == 2
    assert capsys.readouterr().err == "error: full\n"


@pytest.mark.parametrize("command", ["data", "data get", "data render --profile paper"])
def test_wrong_usage_exits_with_two(command):
    with pytest.raises(SystemExit, match="2"):
        main(command.split())


# --- training, evaluation, detection -------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data root and folder of a run of two steps."""
    torch.set_num_threads(1)
    root = write_root(tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("richsem.paths.CACHE", folder / "cache")
        run(small_run(root, steps=2), folder)
        yield root, folder


def test_training_goes_on_from_a_folder_with_other_settings(trained, tmp_path, capsys):
    _, folder = trained
    command = ["train", str(folder), "--set", "optim.lr=3e-4", "train.seed=5", "--steps", "3"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path)
    recipe = open_trained(tmp_path).recipe
    assert (recipe.optim.lr, recipe.train.seed, recipe.train.steps) == (3e-4, 5, 3)


OUT_OF_RANGE = """
--steps 0; --steps -3; --seed -1; train.checkpoint_every=0; train.log_every=0; train.batch_size=0
train.accumulation=0; train.judge_every=-1; train.workers=-1; train.extra_until=2; train.average=2
optim.lr=-1; optim.lr=NaN; optim.decay_start=1.5; optim.warmup=-1; data.drop=1.5; data.box_noise=-1
data.repeat_threshold=-1; data.features.views=0; data.features.images=-1; data.teacher.short_side=0
data.extra.wrong_labels=3; data.teacher_sharpness=-1; detector.queries=0; detector.heads=-1
"""


@pytest.mark.parametrize("change", re.split("[;\n] ?", OUT_OF_RANGE.strip()))
def test_numbers_out_of_range_are_refused_before_any_work(change, tmp_path, capsys):
    words = change.split() if change.startswith("--") else ["--set", change]
    out = tmp_path / "out"
    assert main(["train", "richsem", "--profile", "smoke", *words, "--out", str(out)]) == 2
    field, value = re.search(r"(\w+)[ =](\S+)$", change).groups()
    what = r"(a finite number|(int|float) [<>]= [\d.]+)"
    expected = rf"error: \w+Config\.{field} must be {what}, got {value.lower()}"
    assert re.match(expected, capsys.readouterr().err) and not out.exists()


def test_a_dry_run_tells_and_leaves_nothing(trained, tmp_path, capsys):
    out = tmp_path / "nothing"
    assert main(["train", str(trained[1]), "--dry-run", "--out", str(out)]) == 0
    lines = dict(
        line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if line[0] not in " {}"
    )
    assert lines["detection set"].strip() == "LVIS v1 train: 6 images, 9 boxes, 3 classes"
    assert lines["extra set"].strip() == "inet_lvis, image labels"
    assert re.fullmatch(r"2 of 2 images, 0\.\d epochs of the detection set", lines["steps"].strip())
    assert lines["folder"].strip() == str(out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "nothing"], "no recipe 'nothing'; there are baseline,"),
        (["evaluate", "nothing"], "name a folder that training wrote"),
        (["detect", "nothing.jpg"], "nothing.jpg"),
        (["detect", "LICENSE", "--weights", "nothing"], "name a folder that training wrote"),
        (["train", "baseline", "--set", "optim.speed=3"], "valid there: lr, backbone_lr"),
        (["runs", "show", "no-such-run"], "no run of the store begins like this"),
        (["train", "no-such-run"], "no run of the store begins like this"),
        (["runs", "delete"], "name runs to delete, as `runs list` shows them"),
        (["runs", "register", "fig1_noise"], "'fig1_noise' has no runs of its own"),
        (["runs", "register", "table3_other_datasets", "--seeds", "0"], "at least one is needed"),
    ],
)
def test_mistakes_are_one_line(command, message, capsys):
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error


STARTS = {  # how weights to start from are spoilt -> what is said
    "nowhere": "does not exist; name a folder that training wrote",
    "unfinished": r"weights\.safetensors does not exist; .* A stopped run goes on",
    "published": r"published\.pth is a checkpoint of torch; .*convert FILE --annotations",
    "pointer": r"pointer\.safetensors is a pointer of Git LFS",
    "cut": r"cut\.safetensors is damaged or not complete",
    "other": r"2 of 101 tensors of .*minidino\.safetensors fit, 2 of \d+ .*of another detector",
}
BESIDE = {"backbone": "detector.backbone.weights", "teacher": "data.teacher.weights"}
BESIDE |= {"absent.pt": BESIDE["teacher"]}
STARTS |= dict.fromkeys(BESIDE, STARTS["pointer"]) | {"absent.pt": r"absent\.pt: no checkpoint"}


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("start", STARTS)
def test_weights_to_start_from_are_looked_at_first(
    start, dry, trained, tmp_path, monkeypatch, capsys
):
    weights = (trained[1] / "weights.safetensors").read_bytes()
    torch.save({"model": {"class_embed.0.weight": torch.ones(1)}}, tmp_path / "published.pth")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "cut.safetensors").write_bytes(weights[:-100])
    (tmp_path / "unfinished").mkdir()
    files = {path.stem: path for path in tmp_path.iterdir()} | {"other": ROOT / MINI_START}
    for name in ("open_split", "FrozenClip"):  # no data, no texts
        monkeypatch.setattr(f"richsem.training.build.{name}", mock.Mock(side_effect=AssertionError))
    files |= {"backbone": files["pointer"], "teacher": files["pointer"]}
    path, field = files.get(start, tmp_path / start), BESIDE.get(start, "init")
    command = ["train", str(trained[1]), "--set", f"{field}={path}", "--out", str(tmp_path / "out")]
    assert main([*command, *["--dry-run"] * dry]) == 2
    captured = capsys.readouterr()
    assert not captured.out and re.match(f"error: .*{STARTS[start]}", captured.err)
    assert captured.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_how_much_of_a_start_fits_is_said(trained, tmp_path, capsys):
    command = ["train", str(trained[1]), "--set", f"init={trained[1]}", "--steps", "1"]
    assert main([*command, "--dry-run"]) == 0
    (line,) = re.findall("^start +(.*)$", capsys.readouterr().out, re.M)
    assert re.fullmatch(r"(\d+) of \1 tensors of .*weights\.safetensors fit", line)
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert f"start: {line}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "below"),
    [
        *[("evaluate RUN", ""), ("evaluate RUN", "/name")],
        *[("train RUN", ""), ("train RUN", "/name"), ("detect PICTURE --weights RUN", "/name")],
    ],
)
def test_a_place_for_results_that_cannot_be_is_one_line_before_any_work(
    command, below, trained, tmp_path, monkeypatch, capsys
):
    root, folder = trained
    taken = tmp_path / "taken"
    taken.mkdir() if command[0] != "t" and not below else taken.write_text("kept")
    monkeypatch.setattr("richsem.training.runs.run", None)  # nothing is begun
    monkeypatch.setattr("richsem.training.runs.Trained.detect", None)
    monkeypatch.setattr("richsem.training.runs.on_split", None)
    words = command.replace("RUN", str(folder))
    words = words.replace("PICTURE", str(root / "train2017" / "val1.jpg"))
    assert main([*words.split(), "--out", f"{taken}{below}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: {taken}.* name another (place|file or folder)", line)
    assert taken.is_dir() or taken.read_text() == "kept"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; free some space, what is complete is kept"),
        (errno.EACCES, "Permission denied; name another file or folder"),
        (errno.EROFS, "Read-only file system; name another file or folder"),
    ],
)
def test_errors_of_the_disk_are_one_line(number, words, trained, tmp_path, monkeypatch, capsys):
    out, write = tmp_path / "found.json", Path.write_bytes

    def refuse(self, content):
        if self.parent == tmp_path:
            raise OSError(number, os.strerror(number))
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert main(["evaluate", str(trained[1]), "--out", str(out)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {out}: {words}"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_one_run_and_one_process_at_a_time(trained, tmp_path, monkeypatch, capsys):
    command = ["train", str(trained[1]), "--out", str(tmp_path)]
    with only_one(tmp_path / "training"):
        assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}: another process is training there")
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
    assert main(command) == 0
    monkeypatch.setattr("richsem.training.runs.run", None)  # nothing is begun
    assert main([*command, "--set", "optim.lr=3e-4", "data.drop=0.5"]) == 2
    said = f"error: {tmp_path} holds small, a run with another data.drop, optim.lr; name another"
    assert said in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "detector.json").write_text("{}")
    assert main([*command[:3], str(tmp_path / "mine")]) == 2
    assert "mine has a detector.json of no run; name another" in capsys.readouterr().err
    assert main(["train", str(tmp_path), *command[2:]]) == main(["train", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count(f"error: {tmp_path} is a finished run: `evaluate") == 2


def test_evaluation_prints_and_writes(trained, tmp_path, capsys):
    root, folder = trained
    assert main(["evaluate", str(folder), "--out", str(tmp_path / "found.json")]) == 0
    split = capsys.readouterr().out
    assert "lvis_v1_val.json: 6 images, lvis protocol" in split
    assert re.search(r"^APr +\d+\.\d\d$", split, flags=re.MULTILINE)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found[0].keys() == {"image_id", "category_id", "bbox", "score"}
    file = ["--annotations", str(root / "lvis_v1_val.json"), "--images", str(root)]
    assert main(["evaluate", str(folder), *file]) == 0
    assert capsys.readouterr().out == split


def test_detection_writes_a_picture_and_boxes(trained, tmp_path, capsys):
    root, folder = trained
    out = tmp_path / "seen.png"
    command = ["detect", str(root / "train2017" / "val1.jpg"), "--weights", str(folder)]
    assert main([*command, "--threshold", "0", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    with Image.open(out) as picture:
        assert picture.width >= 512
    rows = json.loads(out.with_suffix(".json").read_text())
    assert len(rows) == 18 and {row["category"] for row in rows} == {"dog", "cat", "red_boat"}
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_runs_behind_a_result_are_put_on_the_list(own_cache, capsys):
    assert main(["runs"]) == main(["runs", "delete", "--outdated"]) == 0
    assert re.match("the run store is empty.*\nno run is outdated\n$", capsys.readouterr().out)
    command = ["runs", "register", "table3_other_datasets", "--profile", "smoke"]
    assert main([*command, "--seeds", "2"]) == 0
    names = capsys.readouterr().out.split()
    assert len(names) == 12 and any(name.startswith("openimages-richsem") for name in names)
    assert main(["runs"]) == 0  # lists them
    listed = capsys.readouterr().out
    assert all(name in listed for name in names) and "step 0 of" in listed


@pytest.mark.parametrize("result", STUDIES)
def test_results_with_runs_have_two_seeds_of_each(result, capsys):
    assert result in writers()
    runs = runs_behind(result, "smoke", all_seeds=(0, 1))
    assert len(runs) == len(set(runs)) > 4
    assert [run.train.seed for run in runs].count(1) == len(runs) / 2
    assert main(["runs", "register", result, "--profile", "paper"]) == 2
    assert "name its folder by --root" in capsys.readouterr().err


def test_a_run_of_the_store_is_shown_and_trained_by_its_name(own_cache, capsys):
    name = store.register(baseline("smoke")).name
    assert main(["runs", "show", name[:16]]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == name
    assert main(["train", name[:16], "--dry-run", "--set", "train.steps=3"]) == 0
    assert '"steps": 3' in capsys.readouterr().out
