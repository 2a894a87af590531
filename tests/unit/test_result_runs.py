"""Every run that a notebook asks the store for is known before the notebook is executed."""

import ast
from collections.abc import Iterator

import pytest

from richsem import paths
from richsem.workbook import judging, notebook_source
from richsem.workbook.result_runs import runs_of

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
TRAINING = {"07", "08", "09", "10", "11", "13"}
ASKS = {"finish", "finished", "detections_to_judge"}  # functions that give runs to the store


def names(node: ast.AST, context: type) -> set[str]:
    found = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
    return {part.id for part in found if isinstance(part.ctx, context)}


def asks(statement: ast.stmt) -> bool:
    calls = (part.func for part in ast.walk(statement) if isinstance(part, ast.Call))
    return any(isinstance(call, ast.Attribute) and call.attr in ASKS for call in calls)


def statements_behind(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that ask for runs, and those that assign what they read, in order."""
    needed: set[str] = set()
    kept = []
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
    cells = [cell for cell in notebook_source.read(path).cells if cell.cell_type == "code"]
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
    parameters = notebook_source.parameters(notebook_source.read(path), path.stem)
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
