"""Nothing stays that nobody uses: public names, parameters with a default, fields that are set."""

import ast
import json
from collections import defaultdict

from test_architecture import MODULES, TREES, functions, relative

from richsem import paths

# Used in a way that names do not show; each with its reason.
USED_ELSEWHERE = {
    # frameworks call these by name
    "reset_classifier", "lite0_hypercolumn", "num_features", "default_cfg",
}  # fmt: skip
# Parameters that no caller in the repository passes, but users do.
FOR_USERS: dict[str, str] = {
    "__init__.py: load(device)": "machines with several accelerators",
    "models/published/dino_weights.py: load_official(heads)": "checkpoints with other heads",
}
# Fields of configurations that only users set (`--set`, or in Python); METHOD names them.
SET_BY_USERS: dict[str, str] = {}


def notebook_tree(path):
    cells = json.loads(path.read_bytes())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return ast.parse("\n".join(code))


def callers():
    """Everything that may use the library: itself, notebooks, benchmarks and scripts."""
    yield from TREES.items()
    for folder in ("benchmarks", "scripts"):
        for path in sorted((paths.ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text("utf-8"))
    for path in sorted((paths.ROOT / "notebooks").glob("*.ipynb")):
        yield path, notebook_tree(path)


CALLERS = dict(callers())


def words(tree):
    """Every name and attribute that a file reads or passes on, words in text annotations too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.alias):
            yield node.asname or node.name
        elif isinstance(node, ast.Constant) and str(node.value).isidentifier():
            yield node.value  # forward references, getattr, column names


def defined(body):
    """Public functions, classes and constants of a module, and the methods of its classes."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
            if isinstance(node, ast.ClassDef):
                yield from defined(n for n in node.body if isinstance(n, ast.FunctionDef))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_every_public_name_is_used():
    uses = defaultdict(int)
    for tree in CALLERS.values():
        for word in words(tree):
            uses[word] += 1
    unused = []
    for path, tree in TREES.items():
        for name in defined(tree.body):
            # A constant is read by its own assignment once.
            own = sum(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
                      for n in ast.walk(tree))  # fmt: skip
            if not name.startswith("_") and uses[name] - own < 1 and name not in USED_ELSEWHERE:
                unused.append(f"{relative(path)}: {name}")
    assert not unused, "\n".join(["used by nothing:", *unused])


def calls():
    """Name of what is called -> (number of positional values, names of keywords) of each call."""
    found = defaultdict(list)
    for tree in CALLERS.values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            function, values = node.func, node.args
            name = getattr(function, "attr", getattr(function, "id", ""))
            if name == "partial" and values:
                name = getattr(values[0], "attr", getattr(values[0], "id", ""))
                values = values[1:]
            starred = any(isinstance(value, ast.Starred) for value in values)
            keywords = {keyword.arg for keyword in node.keywords}  # None stands for **values
            found[name].append((99 if starred else len(values), keywords))
    return found


def handed_on():
    """Names that are used as values, so that somebody else may call them in any way."""
    called = {id(n.func) for tree in CALLERS.values() for n in ast.walk(tree)
              if isinstance(n, ast.Call)}  # fmt: skip
    names = set()
    for tree in CALLERS.values():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in called:
                names.add(getattr(node, "attr", getattr(node, "id", "")))
    return names


def with_default(function):
    """Parameters with a default: (name, place among the positional ones or None)."""
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    first = len(positional) - len(args.defaults)
    is_method = bool(positional) and positional[0].arg in ("self", "cls")
    for place in range(first, len(positional)):
        yield positional[place].arg, place - is_method
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        if default is not None:
            yield arg.arg, None


def test_every_parameter_with_a_default_is_passed_by_somebody():
    made, values = calls(), handed_on()
    never = []
    for path, tree in TREES.items():
        for function in functions(tree):
            if function.name.startswith("__") or function.name in values:
                continue
            for name, place in with_default(function):
                passed = any(
                    name in keywords or None in keywords or (place is not None and number > place)
                    for number, keywords in made[function.name]
                )
                where = f"{relative(path)}: {function.name}({name})"
                if not passed and where not in FOR_USERS:
                    never.append(where)
    assert not never, "\n".join(["passed by nobody:", *never])


def config_fields():
    """`Class.field` of every configuration field that has a default."""
    for path in MODULES:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                for line in node.body:
                    if isinstance(line, ast.AnnAssign) and line.value is not None:
                        yield f"{node.name}.{line.target.id}"


def test_every_field_of_a_configuration_is_set_by_somebody():
    given = {keyword for uses in calls().values() for _, keywords in uses for keyword in keywords}
    given |= {
        key.value
        for tree in CALLERS.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    never = [name for name in config_fields() if name.split(".")[1] not in given]
    unset = [name for name in never if name not in SET_BY_USERS]
    assert not unset, "\n".join(["set by nobody:", *unset])
    assert [name for name in SET_BY_USERS if name not in never] == [], "no exception without need"
