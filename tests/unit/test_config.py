import json
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest

from richsem.config import (
    ConfigError,
    Profile,
    config_hash,
    from_params,
    read_kept,
    to_json,
    with_settings,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Paint:
    colour: Colour = Colour.RED
    layers: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, kw_only=True)
class House:
    name: str
    floors: int = 1
    mode: Literal[0, 1] = 0
    profile: Profile = "demo"
    rate: float = 0.5
    plan: Path | None = None
    size: tuple[int, int] = (1, 2)
    names: list[str] = field(default_factory=list)
    limit: int | float = 1
    outside: Paint | None = None
    inside: Paint = field(default_factory=Paint)


def test_plain_values_become_a_config_survive_json_and_settings_change_them():
    params = {"name": "x", "rate": 1, "plan": "data/real", "size": [3, 4], "names": ["cat"]}
    house = from_params(House, params | {"outside": {"colour": "blue", "layers": [0, 0.5]}})
    values = params | {"rate": 1.0, "plan": Path("data/real"), "size": (3, 4)}
    assert house == House(**values, outside=Paint(colour=Colour.BLUE, layers=(0.0, 0.5)))
    assert type(house.rate) is float
    assert type(house.limit) is int
    assert isinstance(house.outside.colour, Colour)
    assert from_params(House, json.loads(to_json(house))) == house
    with pytest.raises(ConfigError, match=r"needs a value for \['name'\]; valid fields: name"):
        from_params(House, {})
    settings = ["inside.layers=[2, 3]", "name=a=b", "inside.colour=blue", "outside=null"]
    house = with_settings(House(name="x", outside=Paint()), settings)
    assert house == House(name="a=b", inside=Paint(colour=Colour.BLUE, layers=(2.0, 3.0)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"nam": 1}, r"no field 'nam'; valid fields: name: str, floors: int, mode: 0 \| 1"),
        ({"name": None}, r"House.name must be str, got None \(NoneType\)"),
        ({"floors": "0"}, r"House.floors must be int, got '0' \(str\)"),
        ({"floors": True}, r"floors must be int, got True"),
        ({"mode": True}, r"mode must be 0 \| 1, got True"),
        ({"rate": "fast"}, "rate must be float"),
        ({"profile": "full"}, r'must be "smoke" \| "demo" \| "rehearsal" \| "paper", got \'full\''),
        ({"names": "cat"}, r"names must be list\[str\]"),
        ({"names": [1]}, r"names\[0\] must be str"),
        ({"size": [1, 2, 3]}, "size must have 2 values, got 3"),
        ({"plan": 5}, "plan must be"),
        ({"name": "\udcff"}, r"House\.name is '\\udcff', which is not UTF-8; rename it"),
        ({"inside": {"layer": []}}, "Paint has no field 'layer'"),
        ({"outside": {"color": "red"}}, "Paint has no field 'color'"),
        ({"inside": {"colour": "green"}}, r'must be "red" \| "blue", got \'green\''),
    ],
)
def test_mistakes_are_named(params, message):
    with pytest.raises(ConfigError, match=message):
        from_params(House, {"name": "x"} | params)


def grown(cls, **fields):
    """The class with more fields, under its own name."""
    members = {"__annotations__": {name: type(value) for name, value in fields.items()}, **fields}
    return dataclass(frozen=True, kw_only=True)(type(cls.__name__, (cls,), members))


def test_hashes_depend_on_values_and_class_and_not_on_new_fields_with_a_default():
    more, paint = grown(House, speed=3, key="x"), grown(Paint, depth=2)
    assert config_hash(more(name="x", rate=0.1)) == config_hash(House(name="x", rate=0.1))
    assert config_hash(more(name="x", speed=4)) != config_hash(House(name="x"))
    thick = (0.5,)
    changed = config_hash(House(name="x", inside=Paint(layers=thick)))
    assert changed == config_hash(House(name="x", inside=paint(layers=thick)))
    assert changed != config_hash(House(name="x"))
    assert changed != config_hash(House(name="x", inside=paint(layers=thick, depth=3)))
    house = House(name="x", plan=Path("a") / "b")
    assert '"plan": "a/b"' in to_json(house)
    assert config_hash(house) == config_hash(replace(house))
    assert config_hash(house) != config_hash(replace(house, floors=2))
    other = dataclass(frozen=True, kw_only=True)(type("Other", (House,), {}))
    assert config_hash(other(name="x")) != config_hash(House(name="x"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(House(name="x", rate=float("nan")))


def test_what_earlier_code_wrote_is_read_without_the_fields_that_are_gone():
    values = {"name": "x", "height": 3, "inside": {"layers": [2], "gloss": True}, "outside": None}
    with pytest.warns(UserWarning, match=r"run\.json: dropped .* House\.height, Paint\.gloss"):
        house = read_kept(House, values, "run.json")
    assert house == House(name="x", inside=Paint(layers=(2.0,)))
    with pytest.warns(UserWarning, match=r"Paint\.gloss"):  # of a union, the class that fits best
        kept = read_kept(House | Paint, {"layers": [2], "gloss": 1}, "a")
    assert kept == Paint(layers=(2.0,))
    for wrong in ({"height": 3}, {"name": 7}, "x", None):
        with pytest.raises(ConfigError, match=r"run\.json cannot be read by today's code"):
            read_kept(House, wrong, "run.json")


def test_a_field_is_set_once():
    with pytest.raises(ConfigError, match="rate is set twice: leave one out"):
        with_settings(House(name="x"), ["rate=1.0", "rate =2.0"])
    with pytest.raises(ConfigError, match=r"inside=.* 'colour' is given twice: leave one out"):
        with_settings(House(name="x"), ['inside={"colour": "red", "colour": "blue"}'])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("inside.size=3", "valid there: colour, layers"),
        ("name", "expected FIELD.FIELD=VALUE"),
        ("outside.colour=red", "'outside.colour=red' sets nothing"),
        ("inside.layers=many", "must be tuple"),
        *((f"rate={text}", "rate must be float") for text in ("[" * 10_000, "9" * 10_000)),
        *((f"rate={text}", r"House\.rate must be a finite number, got")
          for text in ("Infinity", "-Infinity", "NaN", "1e999")),
    ],
)  # fmt: skip
def test_settings_that_set_nothing_or_no_finite_number_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        with_settings(House(name="x"), [setting])
