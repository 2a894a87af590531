"""Nothing stays that nobody uses: public names, parameters with a default, fields that are set."""

import ast
import json
import tomllib
from collections import Counter, defaultdict

from test_house import TREES, nodes, relative

from richsem import paths

# Used in ways that are not seen here: names, parameters with a default, fields, with their reasons.
OTHERS = tomllib.loads((paths.ROOT / "tests" / "used_by_others.toml").read_text(encoding="utf-8"))


def callers():
    """Everything that may use the library: itself, notebooks, benchmarks and scripts."""
    yield from TREES.values()
    for folder in ("benchmarks", "scripts"):
        for path in sorted((paths.ROOT / folder).rglob("*.py")):
            yield ast.parse(path.read_text("utf-8"))
    for path in sorted((paths.ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_bytes())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        yield ast.parse("\n".join(code))


NODES = [node for tree in callers() for node in ast.walk(tree)]


def word(node):
    """The name that a node reads or passes on, words in text annotations too; None without."""
    if isinstance(node, ast.alias):
        return node.asname or node.name
    if isinstance(node, ast.Constant) and str(node.value).isidentifier():
        return node.value  # forward references, getattr, column names
    return name_of(node) or (node.arg if isinstance(node, ast.keyword) else None)


def name_of(node):
    """`b` of the expressions `b` and `a.b`, "" of others."""
    return getattr(node, "attr", getattr(node, "id", ""))


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
    uses, unused = Counter(map(word, NODES)), []
    for path, tree in TREES.items():
        # A constant is read by its own assignment once.
        stored = Counter(
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )
        for name in defined(tree.body):
            used = uses[name] > stored[name] or name in OTHERS["names"]
            if not name.startswith("_") and not used:
                unused.append(f"{relative(path)}: {name}")
    assert not unused, "\n".join(["used by nothing:", *unused])


def calls():
    """Name of what is called -> (number of positional values, names of keywords) of each call."""
    found = defaultdict(list)
    for node in NODES:
        if isinstance(node, ast.Call):
            name, values = name_of(node.func), node.args
            if name == "partial" and values:
                name, values = name_of(values[0]), values[1:]
            starred = any(isinstance(value, ast.Starred) for value in values)
            keywords = {keyword.arg for keyword in node.keywords}  # None stands for **values
            found[name].append((99 if starred else len(values), keywords))
    return found


def handed_on():
    """Names that are used as values, so that somebody else may call them in any way."""
    called = {id(node.func) for node in NODES if isinstance(node, ast.Call)}
    return {name_of(node) for node in NODES if id(node) not in called}


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
    made, values, never = calls(), handed_on(), []
    for file, function in nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        if function.name.startswith("__") or function.name in values:
            continue
        for name, place in with_default(function):
            passed = any(
                name in keywords or None in keywords or (place is not None and number > place)
                for number, keywords in made[function.name]
            )
            where = f"{file}: {function.name}({name})"
            if not passed and where not in OTHERS["parameters"]:
                never.append(where)
    assert not never, "\n".join(["passed by nobody:", *never])


def test_every_field_of_a_configuration_is_set_by_somebody():
    given = {keyword for uses in calls().values() for _, keywords in uses for keyword in keywords}
    keys = (key for node in NODES if isinstance(node, ast.Dict) for key in node.keys)
    given |= {key.value for key in keys if isinstance(key, ast.Constant)}
    never = [
        f"{config.name}.{line.target.id}"
        for _, config in nodes(ast.ClassDef)
        if config.name.endswith("Config")
        for line in config.body
        if isinstance(line, ast.AnnAssign) and line.value and line.target.id not in given
    ]
    unset = [name for name in never if name not in OTHERS["fields"]]
    assert not unset, "\n".join(["set by nobody:", *unset])
    assert set(OTHERS["fields"]) <= set(never), "no exception without need"
