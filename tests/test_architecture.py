"""Rules that keep the package readable: who may import what, how long a function may be."""

import ast
import re
import statistics
import subprocess
import sys

import pytest

from richsem import paths

PACKAGE = paths.ROOT / "richsem"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
MAX_FUNCTION, MAX_MEDIAN, MAX_FILE = 80, 14, 450

# A package (left) may be imported only in these parts of richsem.
ONLY_IN = {
    "timm": ("models/",),
    "open_clip": ("models/",),
    "matplotlib": ("workbook/figures/", "workbook/results.py"),
    "seaborn": ("workbook/figures/",),
    "ipywidgets": ("workbook/figures/",),
    "IPython": ("workbook/figures/", "workbook/results.py"),
    "papermill": ("workbook/runner.py",),
    "accelerate": ("training/", "operations/"),
}


def relative(path):
    return path.relative_to(PACKAGE).as_posix()


def imported(tree):
    """Full names of everything imported, also inside functions: `a.b` for `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(tree):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def length(function):
    return function.end_lineno - function.lineno + 1


def text_files():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    for name in done.stdout.splitlines():
        path = paths.ROOT / name
        if path.is_file():
            content = path.read_bytes()
            if b"\0" not in content:
                yield name, content.decode("utf-8")


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, richsem, richsem.paths, richsem.config, richsem.__main__\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'papermill'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_library_is_used_in_its_place_only(package):
    users = [
        relative(path)
        for path, tree in TREES.items()
        if any(name.split(".")[0] == package for name in imported(tree))
    ]
    assert [user for user in users if not user.startswith(ONLY_IN[package])] == []


def test_functions_are_short():
    sizes = {
        f"{relative(path)}:{node.name}": length(node)
        for path, tree in TREES.items()
        for node in functions(tree)
    }
    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION} == {}
    assert statistics.median(sizes.values()) <= MAX_MEDIAN


def test_files_are_short():
    sizes = {relative(path): path.read_bytes().count(b"\n") for path in MODULES}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE} == {}


def definitions(body):
    """Functions and classes of a module and of its classes; a function inside one is private."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from definitions(node.body)


def test_everything_public_is_documented():
    missing = []
    for path, tree in TREES.items():
        public = [node for node in definitions(tree.body) if not node.name.startswith("_")]
        missing += [f"{relative(path)}:{n.name}" for n in public if not ast.get_docstring(n)]
        missing += [relative(path)] * (not ast.get_docstring(tree))
    assert missing == []


def test_configurations_are_frozen_and_keyword_only():
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                marks = [ast.unparse(mark) for mark in node.decorator_list]
                good = any("frozen=True" in mark and "kw_only=True" in mark for mark in marks)
                wrong += [] if good else [f"{relative(path)}:{node.name}"]
    assert wrong == []


def test_no_device_is_hard_wired():
    users = [relative(path) for path in MODULES if ".cuda(" in path.read_text(encoding="utf-8")]
    assert users == []


def test_no_current_directory_and_no_bare_except():
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            bare = isinstance(node, ast.ExceptHandler) and node.type is None
            cwd = isinstance(node, ast.Attribute) and node.attr in ("cwd", "getcwd")
            if bare or cwd:
                wrong.append(f"{relative(path)}:{node.lineno}")
    assert wrong == []


def test_no_file_names_this_machine_or_a_package_registry():
    # Written in pieces so that this file does not find itself.
    machine = r"(?<![\w.~/>-])/(ho" + r"me|Us" + r"ers|ro" + r"ot|wo" + r"rk)/\w"
    registry = "py" + r"pi\.org|python" + r"hosted\.org|registry\.npm" + "js"
    pattern = re.compile(f"{machine}|{registry}")
    found = [
        f"{name}: {match.group()}"
        for name, text in text_files()
        for match in pattern.finditer(text)
    ]
    assert found == []


def test_library_text_is_ascii():
    texts = {relative(path): path.read_text(encoding="utf-8") for path in MODULES}
    assert [name for name, text in texts.items() if not text.isascii()] == []
