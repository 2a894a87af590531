"""Every configuration field and default, frozen: kept runs are found by what differs from them."""

import dataclasses
import importlib
import json
import pkgutil
import sys
from pathlib import Path

import richsem
from richsem.config import _plain, default_of

SURFACE = Path(__file__).parents[1] / "config_surface.json"
REASON = (
    "the configurations are not those of tests/config_surface.json. Kept runs are found by what "
    "differs from the defaults, so changing a default changes the meaning of kept runs: give the "
    "new value in the recipes instead. A field that is new, or gone while nothing set it, moves no "
    "run: write the file anew by `python tests/unit/test_config_surface.py`"
)


def surface():
    """Class -> field -> default of all configurations of the package."""
    for module in pkgutil.walk_packages(richsem.__path__, "richsem."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = {}
    for name, module in sorted(sys.modules.items()):
        for cls in vars(module).values() if name.startswith("richsem") else ():
            if isinstance(cls, type) and cls.__name__.endswith("Config"):
                fields = dataclasses.fields(cls)
                found[cls.__name__] = {field.name: _default(field) for field in fields}
    return dict(sorted(found.items()))


def _default(field):
    default = default_of(field)
    if default is dataclasses.MISSING:
        return "(required)"
    if dataclasses.is_dataclass(default):
        default = {"class": type(default).__name__, **dataclasses.asdict(default)}
    return _plain(default)


def test_no_default_moves_unnoticed():
    assert surface() == json.loads(SURFACE.read_text(encoding="utf-8")), REASON


if __name__ == "__main__":
    lines = [
        f'  "{cls}": {{\n'
        + ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in own.items())
        + "\n  }"
        for cls, own in surface().items()
    ]
    SURFACE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
