"""Published runs and their notebooks in short, on small releases of the very format.

They are those of `--profile rehearsal`, here with a few channels and random weights.
"""

from dataclasses import replace

import pytest
import raw_releases
from matplotlib import pyplot as plt
from tiny_files import rewritten

from richsem import paths
from richsem.config import differences, with_settings
from richsem.data.releases import RELEASES
from richsem.models.clip import MINI
from richsem.models.dino.dino import DinoConfig
from richsem.operations import store
from richsem.operations.prepare import prepare
from richsem.operations.recipe_book import recipe_names
from richsem.recipes import dino_recipes
from richsem.workbook import notebook_files, results, studies

DINO = {"heads": 4, "ffn": 32, "queries": 20, "encoder_layers": 2, "decoder_layers": 2}
CASCADE = {"tower": 2, "cascade.hidden": 64, "cascade.regions": 64, "cascade.image_regions": 16}
EVERY = {"dim": 32, "backbone.name": "test_resnet", "backbone.weights": ""}
EARLY = ("baseline", "richsem", "centernet2_detic")  # the others with the slow tests
NOTEBOOKS = ("07", "08", "09", "10", "11", "13")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All sets, laid out by the program."""
    root = tmp_path_factory.mktemp("real")
    for one in RELEASES.values():
        raw_releases.write(root, one.name)
        assert list(prepare(one, root, ""))

    def with_a_frequent_class(content):
        for box in content["annotations"][::3]:
            box["category_id"] = 3
        for image in content["images"]:
            image["neg_category_ids"] = []

    for split in ("train", "val"):
        rewritten(root / f"lvis_v1_{split}.json", with_a_frequent_class)
    return root


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The rehearsal with tiny modules and the embedded teacher; all else is as it is."""
    whole = dino_recipes.rehearsed

    def rehearsed(config, profile):
        config = whole(config, profile)
        own = EVERY | (DINO if isinstance(config.detector, DinoConfig) else CASCADE)
        own |= {"masks.dim": 8} if config.detector.masks else {}
        settings = [f"detector.{name}={value}" for name, value in own.items()]
        settings += ["train.batch_size=2", "train.workers=0"]
        settings += ["train.extra_batch_size=2"] if config.data.extra else []
        teacher = replace(MINI, short_side=config.data.teacher.short_side)
        config = with_settings(config, settings)
        return replace(config, data=replace(config.data, teacher=teacher))

    monkeypatch.setattr(dino_recipes, "rehearsed", rehearsed)
    small = replace(dino_recipes.FOCAL_HUGE, name="test_resnet", weights="")
    monkeypatch.setattr(dino_recipes, "FOCAL_HUGE", small)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in EARLY else pytest.mark.slow) for n in recipe_names()],
)
def test_every_recipe_trains_on_real_sets_by_its_line(name, data, tmp_path, own_cache, cli):
    line = ["--profile", "rehearsal", "--set", f"data.root={data}"]
    if name == "focal_huge":
        cli("train", "focal_huge_pretraining", *line, "--out", tmp_path / "first")
        line += [f"init={tmp_path / 'first'}"]
    if name in ("centernet2_detic", "centernet2_richsem"):  # the store finds the first run
        assert "train it first" in cli("train", name, *line, code=2).err
        cli("train", "centernet2", *line)
    cli("train", name, *line)
    (one,) = [run for run in store.entries() if run.known().name == name]
    assert one.state == "finished" and one.known().data.root == str(data)


def test_a_rehearsal_takes_the_published_modules_sets_and_losses():
    for name in recipe_names():
        paper, short = (recipe_names()[name](profile) for profile in ("paper", "rehearsal"))
        changed = {field.split(".")[0] for field in differences({"a": paper, "b": short})}
        assert changed <= {"data", "train", "detector", "init"}, name


# --- what notebooks ask for ----------------------------------------------------------------------


@pytest.mark.slow
def test_notebooks_read_their_runs_on_real_sets(data, tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(plt, "show", lambda: None)
    for number in NOTEBOOKS:
        (path,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
        notebook = notebook_files.read(path)
        given = {"PROFILE": "rehearsal", "DATA_ROOT": str(data)}
        known = notebook_files.parameters(notebook, path.stem)
        values = {name: known[name].default for name in known} | given
        store.finish_here(studies.runs_of(path.stem, values))
        names = {}
        for cell in notebook.cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, path.stem, "exec"), names)
                names |= given if "parameters" in cell.metadata.get("tags", ()) else {}
        plt.close("all")
        for result in results.NOTEBOOKS[path.stem].results:
            *_, record = results.output_paths(result, "rehearsal")
            assert record.is_file(), result
            said = record.read_text(encoding="utf-8")
            assert "rehearsal" in said and "reproduced" not in said
