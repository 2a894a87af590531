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


@dataclass(frozen=True, kw_only=True)
class Noise:
    scales: tuple[float, ...] = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Probe:
    seed: int
    profile: Profile = "demo"
    rate: float = 0.5
    data_root: Path | None = None
    box: tuple[int, int] = (1, 2)
    names: list[str] = field(default_factory=list)
    noise: Noise = Noise()
    limit: int | float = 1


def test_plain_values_become_a_config():
    params = {"seed": 3, "rate": 1, "data_root": "data/real", "box": [3, 4], "names": ["cat"]}
    probe = from_params(Probe, {**params, "noise": {"scales": [0, 0.5]}})
    values = {**params, "rate": 1.0, "data_root": Path("data/real"), "box": (3, 4)}
    assert probe == Probe(**values, noise=Noise(scales=(0.0, 0.5)))
    assert type(probe.rate) is float
    assert type(probe.limit) is int


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"seed": 0, "sed": 1}, r"no field 'sed'; valid fields: seed: int, profile: \"smoke\""),
        ({}, r"needs a value for \['seed'\]"),
        ({"seed": "0"}, r"Probe.seed must be int, got '0' \(str\)"),
        ({"seed": True}, r"seed must be int, got True"),
        ({"seed": 0, "rate": "fast"}, "rate must be float"),
        ({"seed": 0, "profile": "full"}, r'must be "smoke" \| "demo" \| "paper", got \'full\''),
        ({"seed": 0, "names": "cat"}, r"names must be list\[str\]"),
        ({"seed": 0, "names": [1]}, r"names\[0\] must be str"),
        ({"seed": 0, "box": [1, 2, 3]}, "box must have 2 values, got 3"),
        ({"seed": 0, "data_root": 5}, "data_root must be"),
        ({"seed": 0, "noise": {"scale": []}}, "Noise has no field 'scale'"),
    ],
)
def test_mistakes_are_named(params, message):
    with pytest.raises(ConfigError, match=message):
        from_params(Probe, params)


def test_literals_are_compared_with_their_type():
    @dataclass(frozen=True, kw_only=True)
    class Switch:
        mode: Literal[0, 1]

    assert from_params(Switch, {"mode": 1}).mode == 1
    with pytest.raises(ConfigError):
        from_params(Switch, {"mode": True})


def test_json_and_hash_depend_on_values_and_class_only():
    probe = Probe(seed=1, data_root=Path("a") / "b")
    assert '"data_root": "a/b"' in to_json(probe)
    assert config_hash(probe) == config_hash(replace(probe))
    assert config_hash(probe) != config_hash(replace(probe, seed=2))
    other = dataclass(frozen=True, kw_only=True)(type("Other", (Probe,), {}))
    assert config_hash(other(seed=1)) != config_hash(Probe(seed=1))
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(Probe(seed=1, rate=float("nan")))


def grown(cls, **fields):
    """The class with more fields, under its own name."""
    members = {"__annotations__": {name: type(value) for name, value in fields.items()}, **fields}
    return dataclass(frozen=True, kw_only=True)(type(cls.__name__, (cls,), members))


def test_a_new_field_with_a_default_moves_no_hash():
    more, noise = grown(Probe, speed=3, name="x"), grown(Noise, depth=2)
    assert config_hash(more(seed=1, rate=0.1)) == config_hash(Probe(seed=1, rate=0.1))
    assert config_hash(more(seed=1, speed=4)) != config_hash(Probe(seed=1))
    louder = Noise(scales=(0.5,))
    changed = config_hash(Probe(seed=1, noise=louder))
    assert changed == config_hash(Probe(seed=1, noise=noise(scales=(0.5,))))
    assert changed != config_hash(Probe(seed=1))
    assert changed != config_hash(Probe(seed=1, noise=noise(scales=(0.5,), depth=3)))


def test_what_earlier_code_wrote_is_read_without_the_fields_that_are_gone():
    values = {"name": "x", "height": 3, "inside": {"layers": [2], "gloss": True}, "outside": None}
    with pytest.warns(UserWarning, match=r"run\.json: dropped .* House\.height, Paint\.gloss"):
        house = read_kept(House, values, "run.json")
    assert house == House(name="x", inside=Paint(layers=(2,)))
    with pytest.warns(UserWarning, match=r"Paint\.gloss"):  # of a union, the class that fits best
        assert read_kept(Noise | Paint, {"layers": [2], "gloss": 1}, "a") == Paint(layers=(2,))
    for wrong in ({"height": 3}, {"name": 7}, "x", None):
        with pytest.raises(ConfigError, match=r"run\.json cannot be read by today's code"):
            read_kept(House, wrong, "run.json")


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Paint:
    colour: Colour = Colour.RED
    layers: tuple[int, ...] = (1,)


@dataclass(frozen=True, kw_only=True)
class House:
    name: str
    outside: Paint | None = None
    inside: Paint = field(default_factory=Paint)


def test_nested_records_and_choices_survive_json():
    house = House(name="x", outside=Paint(colour=Colour.BLUE))
    again = from_params(House, json.loads(to_json(house)))
    assert again == house
    assert isinstance(again.outside.colour, Colour)
    with pytest.raises(ConfigError, match="Paint has no field 'color'"):
        from_params(House, {"name": "x", "outside": {"color": "red"}})
    with pytest.raises(ConfigError, match=r"must be .red. . .blue., got 'green'"):
        from_params(Paint, {"colour": "green"})


def test_settings_change_single_values():
    settings = ["inside.layers=[2, 3]", "name=a=b", "inside.colour=blue", "outside=null"]
    house = with_settings(House(name="x", outside=Paint()), settings)
    assert house == House(name="a=b", inside=Paint(colour=Colour.BLUE, layers=(2, 3)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("inside.size=3", "valid there: colour, layers"),
        ("name", "expected FIELD.FIELD=VALUE"),
        ("outside.colour=red", "'outside.colour=red' sets nothing"),
        ("inside.layers=many", "must be tuple"),
    ],
)
def test_settings_that_set_nothing_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        with_settings(House(name="x"), [setting])
