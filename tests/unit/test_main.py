"""The commands; those for notebooks are tested with their runner."""

import errno
import json
import os
import re
import shlex
import shutil
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


@pytest.mark.parametrize(
    ("arguments", "config"), [([], drawn.DEMO), (["--profile", "smoke"], drawn.SMOKE)]
)
def test_render_builds_the_profile_and_names_older_renders(arguments, config, monkeypatch, cli):
    build = mock.Mock(return_value="new")
    monkeypatch.setattr(render, "build_minilvis", build)
    monkeypatch.setattr(render, "other_renders", mock.Mock(return_value=["old"]))
    new, old = cli("data", "render", *arguments).out.splitlines()
    build.assert_called_once_with(config)
    assert new == "new" and old.endswith("may be deleted: old")
    monkeypatch.setattr(render, "other_renders", mock.Mock(side_effect=render.RenderError("full")))
    assert cli("data", "render", *arguments, code=2).err == "error: full\n"


REFUSED = dict.fromkeys(  # by the parser alone
    [
        "data", "data get", "data render --profile paper", "train baseline --out=",
        "detect a.jpg --weights=", "evaluate small --split=", "train baseline --time-limit 0:00",
        "train baseline --time-limit 1:60", "bench paper --device=", "notebooks --only=",
        "course --edition student --out a --only=",
    ],
    "usage: ",
)  # fmt: skip
REFUSED |= {  # for what is not there, said twice, or not meant
    "train nothing": "no recipe 'nothing'; there are baseline,",
    "evaluate nothing": "name a folder that training wrote",
    "detect nothing.jpg": "nothing.jpg",
    "detect LICENSE --weights nothing": "name a folder that training wrote",
    "train baseline --set optim.speed=3": "valid there: lr, backbone_lr",
    "train baseline --set name=a/b": "expected what a folder can be called",
    "train baseline --set 'name=a\nb'": "expected what a folder can be called",
    "train baseline --set name=..": "expected what a folder can be called",
    "train baseline --set data.extra=None": "write values as JSON has them",
    "train baseline --set optim.lr=.5": "such as true, null, 0.5",
    "evaluate /dev/null --annotations a.json": "a.json: cannot be read",
    "evaluate small --annotations a --out /": "Is a directory; name another",
    "runs show no-such-run": "no run of the store begins like this",
    "train /no-such-run": "no run of the store begins like this",
    "runs delete ''": "'': no run of the store begins like this",
    "runs delete": "name runs to delete, as `runs list` shows them",
    "runs register fig1_noise": "'fig1_noise' has no runs of its own",
    "runs register table3_other_datasets --seeds 0": "at least one is needed",
    "bench paper --size inf": "--size is inf; a number above 0 is needed",
    "bench evaluators --images -3": "--images is -3; a number above 0",
    "train baseline --steps 3 --set train.steps=7 --dry-run": "train.steps is set twice",
    "train baseline --set train.seed=1 train.seed=2 --dry-run": "train.seed is set twice",
    """train richsem --set 'data.extra={"draw":1,"draw":2}' --dry-run""": "'draw' is given twice",
    "train baseline --annotations a --set data.own.images=b --dry-run": "images=b': files",
    "notebooks --only 01 -p SEED 1 -p SEED 2": "-p SEED is given twice",
    "notebooks --copy a --only 01": "--copy copies all notebooks as they are: leave out --only",
    "notebooks --copy a -p SEED 1": "as they are: leave out --parameter",
    "notebooks --copy a --profile smoke": "as they are: leave out --profile",
    "notebooks --copy a --keep-going": "as they are: leave out --keep-going",
    "notebooks --copy a --jobs 3": "as they are: leave out --jobs",
    "train baseline --set optim.lr=1 optim={}": "optim is set twice: leave one out",
    "data check lvis --annotations a.json": "name a real set and its --root, or",
    "data check --annotations a.json --annotations b.json": "--annotations: is given twice",
    "detect a.jpg --names cat --names dog": "--names: is given twice",
    "export a --out b --size 1 2 --size 3 4": "--size: is given twice",
}


@pytest.mark.parametrize("command", REFUSED)
def test_mistakes_are_told_in_one_line(command, capsys):
    try:
        code = main(shlex.split(command))
    except SystemExit as end:  # the parser's, behind its usage
        code = end.code
    error = capsys.readouterr().err
    assert code == 2 and REFUSED[command] in error
    assert re.fullmatch("error: .*\n", error) or error.startswith("usage: ")


# --- training, evaluation, detection -------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data root and folder of a run of two steps."""
    root = write_root(tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("richsem.paths.CACHE", folder / "cache")
        run(small_run(root, steps=2), folder)
        yield root, folder


def test_training_goes_on_from_a_folder_with_other_settings(trained, tmp_path, cli):
    settings = ["--set", "optim.lr=3e-4", "train.seed=5", "--steps", "3"]
    assert cli("train", trained[1], *settings, "--out", tmp_path).out.strip() == str(tmp_path)
    recipe = open_trained(tmp_path).recipe
    assert (recipe.optim.lr, recipe.train.seed, recipe.train.steps) == (3e-4, 5, 3)
    for option in ("--seed=1", "--profile=smoke"):
        said = cli("train", trained[1], option, "--dry-run", code=2).err
        assert f"are for recipes, {trained[1]} is a run" in said


def test_a_split_that_there_is_not_is_told_with_those_that_there_are(trained, cli):
    said = cli("evaluate", trained[1], "--split", "nothing", code=2).err
    assert re.search(r"LVIS v1 below .* has no split 'nothing'; there are train, val", said)


OUT_OF_RANGE = """
--steps 0; --steps -3; --seed -1; --seed 9223372036854775808; train.checkpoint_every=0
train.log_every=0; train.batch_size=0; train.accumulation=0; train.judge_every=-1; train.workers=-1
train.extra_until=2; train.average=2; optim.lr=-1; optim.lr=NaN; optim.decay_start=1.5
optim.warmup=-1; data.drop=1.5; data.box_noise=-1
data.repeat_threshold=-1; data.features.views=0; data.features.images=-1; data.teacher.short_side=0
data.extra.wrong_labels=3; data.teacher_sharpness=-1; detector.queries=0; detector.heads=-1
data.teacher_mode=rio; optim.schedule=cosin; detector.classifier=tekst; train.precision=bf17
data.extra.supervision=label; detector.scale=0; loss.federated_classes=-1
detector.backbone.frozen_stride=-4
"""


@pytest.mark.parametrize("change", re.split("[;\n] ?", OUT_OF_RANGE.strip()))
def test_values_out_of_range_are_refused_before_any_work(change, tmp_path, cli):
    words = change.split() if change.startswith("--") else ["--set", change]
    out = tmp_path / "out"
    said = cli("train", "richsem", "--profile", "smoke", *words, "--out", out, code=2).err
    field, value = re.search(r"(\w+)[ =](\S+)$", change).groups()
    what = r"(a finite number|(int|float) [<>]=? [\d.]+|\".*\" \| \".*\")"
    assert re.match(rf"error: \w+Config\.{field} must be {what}, got '?{value.lower()}", said)
    assert not out.exists()


def test_a_dry_run_tells_and_leaves_nothing(trained, tmp_path, cli):
    out = tmp_path / "nothing"
    said = cli("train", trained[1], "--dry-run", "--out", out).out.splitlines()
    lines = dict(re.split("  +", line, maxsplit=1) for line in said if line[0] not in " {}")
    assert lines["detection set"] == "LVIS v1 train: 6 images, 9 boxes, 3 classes"
    assert lines["extra set"] == "inet_lvis, image labels"
    assert re.fullmatch(r"2 of 2 images, 0\.\d epochs of the detection set", lines["steps"])
    assert lines["folder"] == str(out) and not out.exists()


def test_commands_bear_closed_outlets(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", None)
    assert main(["runs", "show", "nothing"]) == 2


STARTS = {  # how weights to start from are spoilt -> what is said
    "nowhere": "does not exist; name a folder that training wrote",
    "unfinished": r"weights\.safetensors does not exist; .* A stopped run goes on",
    "published": r"published\.pth is a checkpoint of torch; .*convert FILE --annotations",
    "pointer": r"pointer\.safetensors is a pointer of Git LFS",
    "cut": r"cut\.safetensors is damaged or not complete",
    "other": r"2 of 101 tensors of .*minidino\.safetensors fit, 2 of \d+ .*of another detector",
}
BESIDE = {"backbone": "detector.backbone.weights", "teacher": "data.teacher.weights"}
STARTS |= dict.fromkeys(BESIDE, STARTS["pointer"]) | {"absent.pt": r"absent\.pt: no checkpoint"}
BESIDE |= {"absent.pt": BESIDE["teacher"]}
for _text in ("prompts", "names"):
    STARTS[_text], BESIDE[_text] = f"no text file of {_text}", f"data.teacher.{_text}"


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("start", STARTS)
def test_weights_to_start_from_are_looked_at_first(start, dry, trained, tmp_path, monkeypatch, cli):
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
    more = ["--out", tmp_path / "out", *["--dry-run"] * dry]
    said = cli("train", trained[1], "--set", f"{field}={path}", *more, code=2)
    assert not said.out and re.match(f"error: .*{STARTS[start]}", said.err)
    assert said.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_how_much_of_a_start_fits_is_said(trained, tmp_path, cli):
    command = ["train", trained[1], "--set", f"init={trained[1]}", "--steps", "1"]
    (line,) = re.findall("^start +(.*)$", cli(*command, "--dry-run").out, re.M)
    assert re.fullmatch(r"(\d+) of \1 tensors of .*weights\.safetensors fit", line)
    assert f"start: {line}\n" in cli(*command, "--out", tmp_path).err


@pytest.mark.parametrize(
    ("command", "below"),
    [
        ("evaluate RUN", ""), ("evaluate RUN", "/name"), ("train RUN", ""), ("train RUN", "/name"),
        ("detect PICTURE --weights RUN", "/name"),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_is_told_first(command, below, trained, tmp_path, monkeypatch, cli):
    root, folder = trained
    taken = tmp_path / "taken"
    taken.mkdir() if command[0] != "t" and not below else taken.write_text("kept")
    for name in ("run", "Trained.detect", "on_split"):  # nothing is begun
        monkeypatch.setattr(f"richsem.training.runs.{name}", None)
    places = {"RUN": folder, "PICTURE": root / "train2017" / "val1.jpg"}
    words = [places.get(word, word) for word in command.split()]
    (line,) = cli(*words, "--out", f"{taken}{below}", code=2).err.splitlines()
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
def test_errors_of_the_disk_are_one_line(number, words, trained, tmp_path, monkeypatch, cli):
    out, write = tmp_path / "found.json", Path.write_bytes

    def refuse(self, content):
        if self.parent == tmp_path:
            raise OSError(number, os.strerror(number))
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    said = cli("evaluate", trained[1], "--out", out, code=2).err
    assert said.splitlines()[-1] == f"error: {out}: {words}"
    assert list(tmp_path.iterdir()) == []


def test_places_that_nobody_named_have_a_remedy_of_their_own(tmp_path, monkeypatch, cli):
    (here := tmp_path / "here").mkdir()
    monkeypatch.setattr("richsem.paths.CACHE", tmp_path / "cache")
    (tmp_path / "cache").touch()
    said = cli("detect", ROOT / "LICENSE", "--out", here / "a.png", code=2).err
    assert "Not a directory; set RICHSEM_CACHE to a folder" in said
    (tmp_path / "cache").unlink()
    (tmp_path / "cache").symlink_to("cache")
    said = cli("detect", ROOT / "LICENSE", "--out", here / "a.png", code=2).err
    assert "symbolic links; set RICHSEM_CACHE to a folder" in said
    monkeypatch.chdir(here)
    here.rmdir()
    assert "where you stand was removed" in cli("data", "list", code=2).err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r'"classes": \[{.*?}', '"classes": [1', r"classes\[0\]: this is 1, expected a class"),
        ('"name": "cat"', '"nme": 1', r'classes\[1\] \(id 8\): field "name" is missing'),
        ('"name": "dog"', '"name": 7', 'field "name" is 7, expected text'),
        ('"id": 3', '"id": 8', "duplicate id"),
        (r'"dim": \d+', '"dim": 7', r"describes no detector \(.*; mend it"),
        (r'"queries": \d+', '"queries": 10000000000', r"does not fit detector.json .*expected \["),
        (r'"pad_multiple": \d+', '"pad_multiple": 10000000', "not enough memory: take smaller"),
    ],
)
def test_descriptions_that_were_edited_are_one_line(old, new, words, trained, tmp_path, cli):
    root, folder = trained
    shutil.copy(folder / "weights.safetensors", tmp_path)
    text = json.dumps(json.loads((folder / "detector.json").read_text()))
    (tmp_path / "detector.json").write_text(re.sub(old, new, text, count=1))
    command = ["detect", root / "train2017" / "val1.jpg", "--weights", tmp_path]
    (line,) = cli(*command, "--out", tmp_path / "seen.png", code=2).err.splitlines()
    assert re.match(f"error: ({tmp_path}|not enough).*", line) and re.search(words, line)


def test_a_folder_takes_one_run_and_one_process_at_a_time(trained, tmp_path, monkeypatch, cli):
    command = ["train", trained[1], "--out"]
    with only_one(tmp_path / "training"):
        (line,) = cli(*command, tmp_path, code=2).err.splitlines()
    assert line.startswith(f"error: {tmp_path}: another process is training there")
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
    cli(*command, tmp_path)
    monkeypatch.setattr("richsem.training.runs.run", None)  # nothing is begun
    said = f"error: {tmp_path} holds small, a run with another data.drop, optim.lr; name another"
    changes = ["--set", "optim.lr=3e-4", "data.drop=0.5"]
    for dry in ([], ["--dry-run"]):
        assert said in cli(*command, tmp_path, *changes, *dry, code=2).err
    (tmp_path / "mine").mkdir()
    for name in ("start.safetensors", "detector.json"):
        (tmp_path / "mine" / name).touch()
        said = cli(*command, tmp_path / "mine", code=2).err
        assert f"mine has a {name} of no run; name another" in said
    for more in (["--out", tmp_path], []):
        said = cli("train", tmp_path, *more, code=2).err
        assert f"error: {tmp_path} is a finished run: `evaluate" in said


def test_evaluation_prints_and_writes(trained, tmp_path, cli):
    root, folder = trained
    split = cli("evaluate", folder, "--out", tmp_path / "found.json").out
    assert "lvis_v1_val.json: 6 images, lvis protocol" in split
    assert re.search(r"^APr +\d+\.\d\d$", split, flags=re.MULTILINE)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found[0].keys() == {"image_id", "category_id", "bbox", "score"}
    file = ["--annotations", root / "lvis_v1_val.json", "--images", root]
    assert cli("evaluate", folder, *file, "--out", tmp_path / "same.json").out == split
    assert json.loads((tmp_path / "same.json").read_text()) == found


def test_detection_writes_a_picture_and_boxes(trained, tmp_path, monkeypatch, cli):
    monkeypatch.setenv("HOME", str(tmp_path))
    root, folder = trained
    out = tmp_path / "seen.png"
    command = ["detect", root / "train2017" / "val1.jpg", "--weights", folder]
    said = cli(*command, "--threshold", "0", "--out=~/seen.png").out
    assert said.splitlines()[-1] == str(out)
    with Image.open(out) as picture:
        assert picture.width >= 512
    rows = json.loads(out.with_suffix(".json").read_text())
    assert len(rows) == 18 and {row["category"] for row in rows} == {"dog", "cat", "red_boat"}
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_runs_behind_a_result_are_put_on_the_list(own_cache, cli):
    assert cli("runs").out.startswith("the run store is empty")
    assert cli("runs", "delete", "--outdated").out == "no run is outdated\n"
    command = ["runs", "register", "table3_other_datasets", "--profile", "smoke"]
    names = cli(*command, "--seeds", "2").out.split()
    assert len(names) == 12 and any(name.startswith("openimages-richsem") for name in names)
    listed = cli("runs").out
    assert all(name in listed for name in names) and "step 0 of" in listed


@pytest.mark.parametrize("result", STUDIES)
def test_results_with_runs_have_two_seeds_of_each(result, cli):
    assert result in writers()
    runs = runs_behind(result, "smoke", all_seeds=(0, 1))
    assert len(runs) == len(set(runs)) > 4
    assert [run.train.seed for run in runs].count(1) == len(runs) / 2
    said = cli("runs", "register", result, "--profile", "paper", code=2).err
    assert "name its folder by --root" in said


def test_a_run_of_the_store_is_shown_and_trained_by_its_name(own_cache, cli):
    name = store.register(baseline("smoke")).name
    folder = own_cache / store.RUNS / name
    for spelt in (name[:16], f"{name}/", folder, f"{folder}/"):
        assert json.loads(cli("runs", "show", spelt).out)["id"] == name
    cli("runs", "show", "/", code=2)
    said = cli("train", name[:16], "--dry-run", "--set", "train.steps=3").out
    assert '"steps": 3' in said
