"""The three wings of the house: how large each may be, who may import whom, names said once."""

import ast
import functools
import io
import tokenize
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

import pytest
from test_architecture import MODULES, TREES, definitions, imported, relative

from richsem import paths

# Name -> places (files, or folders that end in "/"; the longest that fits a file counts), lines,
# files. Raise a number only in a change that needs it, and say why beside it.
WINGS = {
    "method on DINO": (
        "config.py structures.py boxes.py evaluation.py __init__.py "
        "data/ models/ losses/ training/ recipes/",
        (7600, 47),
    ),
    "second detector": (
        "models/centernet2/ losses/centers.py losses/centernet2_criterion.py "
        "recipes/centernet2_recipes.py",
        (1100, 8),
    ),
    "published checkpoints": ("models/published/", (520, 4)),
    "operations": (
        "__main__.py kept.py paths.py processes.py provenance.py shards.py operations/",
        (1350, 10),
    ),
    "drawn benchmark": ("minilvis/", (1850, 9)),
    "workbook": ("workbook/", (6700, 28)),
}
BENCHMARKS, TESTS, TOGETHER = 600, 14_500, 19_000

METHOD = ("data", "models", "losses", "training", "recipes")
# What the parts of the package may not import; "base" is what lies at the top, but for __main__.
WALLS = {
    "method": ("minilvis", "operations", "workbook"),
    "minilvis": ("operations", "workbook"),
    "operations": ("workbook",),
    "base": (*METHOD, "minilvis", "operations", "workbook"),
    "data": ("models", "losses", "training", "recipes"),
    "models": ("data", "losses", "training", "recipes"),
    "losses": ("data", "models", "training", "recipes"),
    "training": ("recipes",),
}
# Evaluation reads annotation files; the front door opens what was trained.
NOT_BASE = ("__main__.py", "__init__.py", "evaluation.py")
COMMENTED = ("models/", "losses/", "training/loop.py")
COMMENTS_PER_100 = 6


def wing_of(name):
    """The wing whose place fits a file best."""
    fits = {
        place: wing
        for wing, (places, _) in WINGS.items()
        for place in places.split()
        if name == place or (place.endswith("/") and name.startswith(place))
    }
    return fits[max(fits, key=len)]


def lines(path):
    return path.read_bytes().count(b"\n")


@functools.cache
def sizes():
    found = {wing: [0, 0] for wing in WINGS}
    for path in MODULES:
        size = found[wing_of(relative(path))]
        size[0] += lines(path)
        # A file that holds one sentence is not a room.
        size[1] += path.name != "__init__.py"
    return found


def report():
    rows = [f"{wing}: {n} lines in {f} files" for wing, (n, f) in sizes().items()]
    return "\n".join(["", *rows, f"together: {sum(n for n, _ in sizes().values())} lines"])


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_keeps_to_its_budget(wing):
    (size, files), (most_lines, most_files) = sizes()[wing], WINGS[wing][1]
    print(f"{wing}: {size} of {most_lines} lines in {files} of {most_files} files")
    assert size <= most_lines and files <= most_files, report()


def test_the_package_the_benchmarks_and_the_tests_keep_to_their_budgets():
    print(report())
    benchmarks = sum(lines(path) for path in (paths.ROOT / "benchmarks").rglob("*.py"))
    tests = sum(lines(path) for path in (paths.ROOT / "tests").rglob("*.py"))
    print(f"benchmarks: {benchmarks} of {BENCHMARKS} lines, tests: {tests} of {TESTS}")
    assert sum(n for n, _ in sizes().values()) <= TOGETHER, report()
    assert benchmarks <= BENCHMARKS
    assert tests <= TESTS


def test_every_file_belongs_to_a_wing():
    assert {wing_of(relative(path)) for path in MODULES} == set(WINGS)


# --- imports -----------------------------------------------------------------------------------


@functools.cache
def module_graph():
    """File -> the files of the package that it imports, wherever in it."""
    files = {}
    for path in MODULES:
        name = relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        files["richsem" if name == "__init__" else f"richsem.{name}"] = relative(path)
    graph = {}
    for path, tree in TREES.items():
        names = [n for name in imported(tree) for n in (name, name.rpartition(".")[0])]
        found = {files[name] for name in names if name in files}
        # `from richsem import x` is about x: the front of a folder imports nothing by itself.
        graph[relative(path)] = {f for f in found - {relative(path)} if f != "__init__.py"}
    return graph


def part_of(name):
    if "/" not in name:
        return "base" if name not in NOT_BASE else name
    return name.split("/")[0]


def folder_of(name):
    """Folder of a file; each file at the top is a place of its own."""
    return name.rpartition("/")[0] or name


def assert_no_circle(graph):
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(f"imports go round: {' <- '.join(error.args[1])}") from None


def test_no_file_imports_in_a_circle():
    assert_no_circle(module_graph())


def test_no_folder_imports_in_a_circle():
    graph = defaultdict(set)
    for name, others in module_graph().items():
        folders = {folder_of(other) for other in others} - {folder_of(name)}
        # A folder's front may gather what lies below it.
        if name.endswith("__init__.py"):
            folders = {f for f in folders if not f.startswith(folder_of(name))}
        graph[folder_of(name)] |= folders
    assert_no_circle(graph)


@pytest.mark.parametrize("part", WALLS)
def test_walls_have_no_holes(part):
    wrong = [
        f"{name} imports {other}"
        for name, others in module_graph().items()
        if part_of(name) == part or (part == "method" and part_of(name) in METHOD)
        for other in others
        if part_of(other) in WALLS[part]
    ]
    assert wrong == []


# --- names and words ---------------------------------------------------------------------------


def repeated(names):
    """Names that stand in more than one place, with the places."""
    places = defaultdict(list)
    for name, place in names:
        places[name].append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def test_a_module_is_named_once():
    assert repeated((p.stem, relative(p)) for p in MODULES if p.stem != "__init__") == {}


def test_a_public_class_is_named_once():
    classes = (
        (node.name, relative(path))
        for path, tree in TREES.items()
        for node in definitions(tree.body)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert repeated(classes) == {}


def test_fields_are_explained_where_they_stand():
    wrong = [
        f"{relative(path)}: {node.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config")
        if "Attributes:" in (ast.get_docstring(node) or "")
    ]
    assert wrong == []


def comments_and_code(path):
    """Number of lines with a comment and of lines of code, docstrings left out."""
    comments, code, docstrings = set(), set(), set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings |= set(range(node.lineno, node.end_lineno + 1))
    blank = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in blank:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(comments), len(code - docstrings)


@pytest.mark.parametrize("place", COMMENTED)
def test_reasons_and_shapes_stand_beside_the_lines(place):
    counts = [comments_and_code(path) for path in MODULES if relative(path).startswith(place)]
    comments, code = map(sum, zip(*counts, strict=True))
    print(f"{place}: {comments} comments for {code} lines of code")
    assert 100 * comments >= COMMENTS_PER_100 * code
