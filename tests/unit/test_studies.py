"""Which runs a study has, and that every run that a notebook asks for is known beforehand."""

import ast
from dataclasses import replace

import pandas as pd
import pytest

from richsem import paths
from richsem.structures import Supervision
from richsem.workbook import judging, notebook_files, studies, supplement
from richsem.workbook.studies import runs_of

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
TRAINING = {"07", "08", "09", "10", "11", "13", "16", "17", "18", "19"}
ASKS = {"finish", "finished", "detections_to_judge"}  # functions that give runs to the store


def names(node, context):
    found = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
    return {part.id for part in found if isinstance(part.ctx, context)}


def asks(statement):
    calls = (part.func for part in ast.walk(statement) if isinstance(part, ast.Call))
    return any(isinstance(call, ast.Attribute) and call.attr in ASKS for call in calls)


def statements_behind(statements):
    """Statements that ask for runs, and those that assign what they read, in order."""
    needed, kept = set(), []
    for statement in reversed(statements):
        writes = names(statement, ast.Store)
        if asks(statement) or writes & needed:
            # What asked for runs gives results, which no later run may depend on.
            needed = (needed - writes) | names(statement, ast.Load)
            kept.append(statement)
    return reversed(kept)


def runs_asked_for(path, values, monkeypatch):
    """Executes the imports and what the calls to the store need, with a store that only listens."""
    asked = []

    def listen(configs, *_, **__):
        asked.extend(configs.values() if isinstance(configs, dict) else configs)
        return {}

    monkeypatch.setattr("richsem.operations.store.finish", listen)
    monkeypatch.setattr("richsem.operations.store.finished", listen)
    monkeypatch.setattr(
        judging, "detections_to_judge", lambda c: (None, [] if c.detections else listen([c.run]))
    )
    cells = [cell for cell in notebook_files.read(path).cells if cell.cell_type == "code"]
    plain = [cell for cell in cells if "parameters" not in cell.metadata.get("tags", [])]
    body = [line for cell in plain for line in ast.parse(cell.source).body]
    imports = [line for line in body if isinstance(line, (ast.Import, ast.ImportFrom))]
    chosen = [line for line in statements_behind(body) if line not in imports]
    if chosen:
        module = ast.Module(body=imports + chosen, type_ignores=[])
        exec(compile(module, str(path), "exec"), dict(values))
    return list(dict.fromkeys(asked))


@pytest.mark.parametrize("profile", ["smoke", "demo"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_of_a_notebook_are_those_that_it_asks_for(path, profile, monkeypatch):
    parameters = notebook_files.parameters(notebook_files.read(path), path.stem)
    values = {name: one.default for name, one in parameters.items()} | {"PROFILE": profile}
    changes = {"SEED": 1, "SEEDS": 2, "STEPS": 7, "HARD_LABELS": True, "DROPS": [0.0, 0.7]}
    changed = values | {name: value for name, value in changes.items() if name in values}
    for chosen in (values, changed):
        found = runs_of(path.stem, chosen)
        assert set(found) == set(runs_asked_for(path, chosen, monkeypatch))
        assert bool(found) == (path.stem[:2] in TRAINING)


def test_detections_of_your_own_need_no_run():
    known = {"PROFILE": "smoke", "SEED": 0, "DATA_ROOT": ""}
    assert runs_of("08_evaluation", known | {"DETECTIONS": "mine.json"}) == []


def test_runs_of_figure_2_are_its_points_and_share_those_of_table_4():
    configs = studies.figure2("demo", (0.0, 0.5)).runs(range(2))
    assert len(configs) == 3 * 2 * 2 + 2
    same = {
        "baseline": supplement.table4_run("dino", "baseline", seed=1),
        "RichSem": supplement.table4_run("dino", "richsem", seed=1),
        "soft labels": supplement.control("soft labels alone", seed=1),
        "long baseline": supplement.control("long baseline", seed=1),
    }
    assert {name: configs[(name, 0.0), 1] for name in same} == same
    for wrong in ((0.5,), (0.0, 1.0)):
        with pytest.raises(ValueError, match=r"DROPS is .* and 0 among them"):
            studies.figure2("demo", wrong)
    half = configs[("baseline", 0.5), 1].data
    assert (half.drop, half.drop_seed) == (0.5, 1)
    hard = studies.figure2("demo", (0.0,), hard=True).arms
    assert hard["hard labels", 0.0](0) == supplement.control("hard labels")
    smoke, demo, rehearsal, paper = studies.DEFAULT_DROPS.values()
    assert rehearsal == smoke == (0.0, 0.5)
    assert set(smoke) < set(demo) < set(paper) and len(paper) == 5
    assert {drop for _, drop in studies.figure2("demo").arms} == set(demo)


def test_runs_of_table_3_are_unlabelled_and_by_the_coco_protocol():
    configs = studies.table3("demo").runs((0, 1))
    assert len(configs) == 12
    for key in ("visual_genome", "openimages"):
        names = ("richsem", "long baseline", "baseline")
        config, long, short = (configs[f"{key}: {name}", 1] for name in names)
        assert config.data.key == key and config.train.seed == 1
        assert config.data.extra.supervision is Supervision.UNLABELLED
        assert short.data.extra is None and config.train.steps == 2 * short.train.steps
        assert config.data.repeat_threshold == 0 and config.loss.federated_classes == 0
        assert long.train.steps == 1.6 * short.train.steps
        assert replace(long, name=short.name, train=short.train) == short


def test_kinds_share_the_runs_of_table_4_and_claims_name_the_sets_that_were_used():
    kinds = studies.kinds("demo")
    configs = kinds.runs((3,))
    assert [arm for arm, _ in configs] == [*studies.BASELINES, *supplement.KINDS]
    assert configs["long baseline", 3] == supplement.control("long baseline", seed=3)
    assert configs["baseline", 3] == supplement.table4_run("dino", "baseline", seed=3)
    assert configs["inet_lvis", 3] == supplement.table4_run("dino", "richsem", seed=3)
    assert all("Mini" in claim.words for claim in kinds.claims[:-1])
    real = [claim.words for claim in studies.kinds("paper", root="data").claims]
    assert not any("Mini" in line for line in real)


def test_shares_that_are_dropped_rise_in_whatever_order_they_are_given():
    arms = studies.figure2("smoke", [0.9, 0.0, 0.5, 0.9]).arms
    assert [drop for arm, drop in arms if arm == studies.RICHSEM] == [0.0, 0.5, 0.9]


def test_arms_of_a_detector_are_those_that_can_be_trained():
    arms = studies.table4("paper", root="data", controls=supplement.CONTROLS).arms
    everything = [*supplement.METHODS, *supplement.CONTROLS]
    left_out = {name for name in everything if f"dino: {name}" not in arms}
    assert left_out == {"shuffled teacher"}
    other = [name for name in everything if f"centernet2: {name}" in arms]
    assert other == [*supplement.METHODS, "long baseline"]
    long, short = (arms[f"centernet2: {name}"](0).train for name in ("long baseline", "baseline"))
    assert long.steps == 2 * short.steps
    with pytest.raises(ValueError, match=r'DETECTORS\[0\] must be "dino" \| .*, got .dion'):
        studies.table4("paper", detectors=["dion"])
    with pytest.raises(ValueError, match=r'CONTROLS\[0\] must be "long baseline" \| .*, got .long'):
        studies.table4("paper", controls=["long"])
    with pytest.raises(ValueError, match="DETECTORS is empty; there are dino, centernet2"):
        studies.table4("smoke", detectors=[])
    once, twice = (studies.table4("smoke", detectors=["dino"] * n) for n in (1, 2))
    assert once.claims == twice.claims  # intervals are corrected for their number


def test_mask_ap_is_compared_with_the_papers_numbers_and_box_ap_is_not():
    study = studies.table4("paper", detectors=["centernet2"])
    values = {"AP": 30.0, "mask AP": 28.0}
    rows = [("centernet2: richsem", 0, metric, value) for metric, value in values.items()]
    frame = pd.DataFrame(rows, columns=["arm", "seed", "metric", "value"])
    table = study.rows(frame, "paper").set_index("metric")
    assert table["paper"].tolist() == [33.5, 33.5]
    assert table.loc["mask AP", "status"] == "reproduced" != table.loc["AP", "status"]
    assert {"mask AP": "mask AP", "mask APr": "mask AP_r"}.items() <= study.metrics.items()
