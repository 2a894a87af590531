"""pyproject.toml, environment.yml, constraints.txt, Makefile and README tell the same story."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from itertools import chain

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from test_house import project_files

from richsem import paths
from richsem.__main__ import parser

SETUP = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETUP["project"]
README = (paths.ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands(beginning):
    lines = "".join(code_blocks("sh")).splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.startswith(beginning)]


def tree():
    """Relative paths in the README's tree: two more spaces of indent mean one folder deeper."""
    (block,) = code_blocks("text")
    found, parents = [], []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], line.split()[0].rstrip("/")]
        found.append("/".join(parents))
    return found


def test_conda_installs_nothing_but_python_and_this_project():
    environment = yaml.safe_load((paths.ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    python = [entry for entry in conda if entry.startswith("python")]
    assert set(conda) == {*python, "pip"}
    assert pip == {"pip": ["-e .[test]"]}
    minimum = re.search(r">=([\d.]+)", PROJECT["requires-python"]).group(1)
    assert python == [f"python={minimum}"]
    assert environment["name"] == PROJECT["name"]


def test_an_installed_package_has_all_its_data():
    patterns = SETUP["tool"]["setuptools"]["package-data"]["richsem"]
    shipped = {path for pattern in patterns for path in (paths.ROOT / "richsem").glob(pattern)}
    own = [paths.ROOT / name for name in project_files() if name.startswith("richsem/")]
    assert [path for path in own if path.suffix != ".py" and path not in shipped] == []


def test_constraints_are_plain_versions_of_every_dependency():
    lines = (paths.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", pin), pin
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    wanted = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    words = [re.match(r"[A-Za-z0-9._-]+", entry).group() for entry in wanted]
    names = {word.lower().replace("_", "-") for word in words}
    assert names <= pinned
    # These exist for one platform only.
    assert not [name for name in pinned if name.startswith(("nvidia", "cuda", "triton"))]


def test_tested_versions_run_on_every_python_that_the_project_allows():
    oldest = SpecifierSet(PROJECT["requires-python"])
    (least,) = (f"{one.version}.0" for one in oldest if one.operator == ">=")
    lines = (paths.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    asked = {}
    for pin in lines:
        name = pin.partition("==")[0]
        with contextlib.suppress(PackageNotFoundError):  # of an extra that is not installed
            asked[name] = metadata(name)["Requires-Python"] or ""
    assert len(asked) > 100
    assert [name for name, words in asked.items() if least not in SpecifierSet(words)] == []


def test_readme_shows_the_two_commands_and_the_way_without_make():
    assert commands("make figures") and commands("make test")
    assert 'pip install -e ".[test]"' in commands("pip install")
    assert "environment.yml" in README


@pytest.mark.parametrize("command", commands("python -m richsem"))
def test_commands_of_the_readme_are_understood(command):
    words = shlex.split(command.replace("python -m richsem", "", 1))
    assert callable(parser().parse_args(words).run)


@pytest.mark.parametrize("command", commands("make"))
def test_make_targets_of_the_readme_exist(command):
    makefile = (paths.ROOT / "Makefile").read_text(encoding="utf-8")
    _, target, *settings = shlex.split(command)
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    for setting in settings:
        assert re.search(rf"^{setting.split('=')[0]} \?=", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize("command", commands("papermill"))
def test_papermill_commands_of_the_readme_name_notebooks(command):
    assert (paths.ROOT / shlex.split(command)[1]).is_file()


def test_the_tree_in_the_readme_is_on_the_disk():
    assert [name for name in tree() if not (paths.ROOT / name).exists()] == []


def test_every_module_and_notebook_is_in_the_tree():
    pattern = re.compile(r"richsem/.*(?<!__init__)\.py|notebooks/\d\d_[^/]*\.ipynb")
    files = filter(pattern.fullmatch, project_files())
    assert set(files) - set(tree()) == set()


def sections_of_the_method():
    """Numbers of METHOD.md: headings, bold beginnings of paragraphs, items of numbered lists."""
    found, chapter = set(), ""
    for line in (paths.ROOT / "METHOD.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"#+ (\d[\d.]*?)\.? ", line):
            chapter = heading[1]
            found.add(chapter)
        elif paragraph := re.match(r"(?:- )?\*\*(\d\.\d+)[ .]", line):
            found.add(paragraph[1])
        elif item := re.match(r"(\d+)\. ", line):
            found.add(f"{chapter}.{item[1]}")
    return found


def test_docstrings_cite_sections_that_the_method_has():
    number = r"\d(?:\.\d+)?"
    cited = re.compile(rf"METHOD ({number}(?:(?:, | and |-){number})*)")
    known, missing = sections_of_the_method(), []
    sources = chain(*(paths.ROOT.glob(f"{top}/**/*.py") for top in ("richsem", "tests")))
    for path in chain(sources, paths.NOTEBOOKS.glob("*.ipynb"), [paths.ROOT / "LOG.md"]):
        for citation in cited.findall(path.read_text(encoding="utf-8")):
            numbers = re.findall(number, citation)
            missing += [(path.name, n) for n in numbers if n not in known]
    assert len(known) > 40 and missing == []


LOOK = """
from richsem.workbook import notebook_files, results
print(len(notebook_files.sources()), *results.find("table4_versus_detic", "demo"))
"""


@pytest.mark.parametrize("site", ["lib/python3/site-packages", "."], ids=["prefix", "target"])
def test_an_installed_package_brings_notebooks_and_what_they_show(site, tmp_path):
    unused = shutil.ignore_patterns("__pycache__")
    shutil.copytree(paths.ROOT / "richsem", tmp_path / site / "richsem", ignore=unused)
    for folder, patterns in SETUP["tool"]["setuptools"]["data-files"].items():
        (tmp_path / folder).mkdir(parents=True)
        for file in chain(*map(paths.ROOT.glob, patterns)):
            shutil.copy(file, tmp_path / folder)
    command, own = [sys.executable, "-c", LOOK], {"PYTHONPATH": str(tmp_path / site)}
    look = subprocess.run(
        command, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, check=False
    )
    assert look.stdout.split() == ["20", "shipped"], look.stderr
