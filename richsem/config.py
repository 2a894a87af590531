"""Strict configuration: frozen keyword-only dataclasses that are built from plain values.

A notebook parameter that is misspelt or of the wrong type must stop the run, not be ignored, and
every result carries the hash of the configuration that made it. What earlier code wrote is read
with tolerance: fields that are gone since then are named and passed over.
"""

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import msgspec

Profile = Literal["smoke", "demo", "rehearsal", "paper"]
PROFILES: tuple[Profile, ...] = typing.get_args(Profile)
REAL: tuple[Profile, ...] = ("rehearsal", "paper")  # published modules, on real data

ConfigType = TypeVar("ConfigType")
Dropped = list[str] | None  # collects the unknown fields; None refuses them

# Numbers with a range, which is checked when a configuration is built from plain values.
_MOST = 2**63 - 1  # as NumPy and torch keep them
Natural = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Factor = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sides = Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)]  # lengths in pixels


class ConfigError(ValueError):
    """A configuration has an unknown or missing field, or a value that its field cannot have."""


def from_params(
    cls: type[ConfigType], params: Mapping[str, Any], dropped: Dropped = None
) -> ConfigType:
    """Build a configuration dataclass from plain values.

    Lists become tuples, integers become floats, text becomes a path and mappings become nested
    configurations where the field asks for it; nothing else is converted. A `ConfigError` names
    what is unknown, missing, of the wrong type or out of range, and the valid fields.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: default_of(field) for field in dataclasses.fields(cls) if field.init}
    valid = ", ".join(f"{name}: {type_name(hints[name])}" for name in fields)
    unknown = sorted(set(params) - set(fields))
    if dropped is not None:
        dropped += [f"{cls.__name__}.{name}" for name in unknown]
    elif unknown:
        raise ConfigError(f"{cls.__name__} has no field {unknown[0]!r}; valid fields: {valid}")
    missing = [n for n, own in fields.items() if own is dataclasses.MISSING and n not in params]
    if missing:
        raise ConfigError(f"{cls.__name__} needs a value for {missing}; valid fields: {valid}")
    values = {
        key: convert(value, hints[key], f"{cls.__name__}.{key}", dropped)
        for key, value in params.items()
        if key in fields
    }
    return cls(**values)


def read_kept(expected: Any, values: Any, where: Path | str) -> Any:
    """What earlier code wrote to the file `where`, as today's class or union of classes.

    Fields that are gone are dropped with a warning; a `ConfigError` says why it cannot be read.
    """
    dropped: list[str] = []
    try:
        config = convert(values, expected, "the content", dropped)
    except ConfigError as error:
        raise ConfigError(f"{where} cannot be read by today's code: {error}") from error
    if dropped:
        names = ", ".join(dropped)
        warnings.warn(f"{where}: dropped what today's code does not know: {names}", stacklevel=2)
    return config


def with_settings(config: ConfigType, settings: Sequence[str]) -> ConfigType:
    """The configuration with values changed from text, such as `optim.lr=2e-4`.

    A value is read as JSON where it is JSON (`true`, `[4, 8]`, `null`) and as text otherwise.
    """
    values, seen = to_dict(config), set()
    for setting in settings:
        path, equals, text = setting.partition("=")
        if any(f"{one}.".startswith(f"{path.strip()}.") for one in seen):  # by --steps, too
            raise ConfigError(f"{path.strip()} is set twice: leave one out")
        seen.add(path.strip())
        *parents, last = path.strip().split(".")
        place: Any = values
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict) or last not in place:
            valid = f"; valid there: {', '.join(place)}" if isinstance(place, dict) else ""
            raise ConfigError(f"{setting!r} sets nothing, expected FIELD.FIELD=VALUE{valid}")
        try:
            place[last] = json.loads(text, object_pairs_hook=_once)
        except ConfigError as error:
            raise ConfigError(f"{setting!r}: {error}") from None
        except (ValueError, RecursionError):  # endless digits, lists in lists
            if re.fullmatch(r"True|False|None|\+.*\d|[+-]?\.\d.*", text):
                words = "write values as JSON has them, such as true, null, 0.5"
                raise ConfigError(f"{setting!r}: {words}") from None
            place[last] = text
    return from_params(type(config), values)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{twice[0]!r} is given twice: leave one out")
    return dict(pairs)


def convert(value: Any, expected: Any, name: str, dropped: Dropped = None) -> Any:
    """Return the value as the expected type; a `ConfigError` says by `name` whose value it is."""
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if origin is Annotated:
        try:
            return msgspec.convert(convert(value, args[0], name, dropped), expected)
        except msgspec.ValidationError as error:
            words = str(error).replace("`", "").replace("Expected", "must be")
            raise ConfigError(f"{name} {words}, got {value!r}") from error
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, expected, name, dropped)
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        return _convert_items(value, origin, args, name, dropped)
    if dataclasses.is_dataclass(expected) and isinstance(value, Mapping):
        return from_params(expected, value, dropped)
    if expected is Path and isinstance(value, str):
        return Path(value)
    if isinstance(expected, type) and issubclass(expected, Enum) and value in list(expected):
        return expected(value)
    if expected is float and type(value) is int:
        value = float(value)
    if origin is Literal:
        fits = any(type(value) is type(choice) and value == choice for choice in args)
    elif expected in (int, float):  # True is an int for Python, not for a reader
        fits = type(value) is expected
    else:
        fits = expected is Any or isinstance(value, origin or expected)
    if not fits:
        raise _wrong(value, expected, name)
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # bytes of a file's name; no JSON file could hold them
            raise ConfigError(f"{name} is {value!r}, which is not UTF-8; rename it") from error
    if expected is float and not math.isfinite(value):  # no JSON file could hold it
        raise ConfigError(f"{name} must be a finite number, got {value!r}")
    return value


def type_name(expected: Any) -> str:
    """Readable name of a type: `int`, `"smoke" | "demo"`, `tuple[int, ...]`."""
    if typing.get_origin(expected) is Literal:
        return " | ".join(map(json.dumps, typing.get_args(expected)))
    if isinstance(expected, type) and issubclass(expected, Enum):
        return " | ".join(json.dumps(choice.value) for choice in expected)
    if isinstance(expected, type) and not typing.get_args(expected):
        return expected.__name__.replace("NoneType", "None")
    return re.sub(r"Annotated\[(\w+), .*?\)\]", r"\1", str(expected).replace("typing.", ""))


def to_dict(config: Any) -> dict[str, Any]:
    """Configuration dataclass as plain JSON values; paths are written with forward slashes."""
    return _plain(dataclasses.asdict(config))


def to_json(config: Any) -> str:
    """Configuration as readable JSON whose text depends on the values alone."""
    return json.dumps(to_dict(config), indent=2, sort_keys=True, allow_nan=False) + "\n"


def differences(configs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Fields in which configurations of one class differ: dotted name -> {key: value}."""
    flat = {key: dict(_leaves(to_dict(config))) for key, config in configs.items()}
    names = dict.fromkeys(name for leaves in flat.values() for name in leaves)
    values = {name: {key: leaves.get(name) for key, leaves in flat.items()} for name in names}
    return {name: row for name, row in values.items() if len({repr(v) for v in row.values()}) > 1}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def config_hash(config: Any) -> str:
    """First 12 hex digits of the SHA-256 of the class's name and what differs from its defaults.

    A field that comes with a default, or goes while every value was the default, moves no hash.
    Changing a default changes what kept hashes mean: `tests/config_surface.json` guards them.
    """
    text = json.dumps(_own(config), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def default_of(field: dataclasses.Field) -> Any:
    """Default of a field, `dataclasses.MISSING` if it needs a value."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _own(value: Any) -> Any:
    """Plain values; of a configuration, its class and the fields unlike that class's defaults."""
    if dataclasses.is_dataclass(value):
        pairs = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        own = {field.name: _own(item) for field, item in pairs if item != default_of(field)}
        return {"class": type(value).__name__, **own}
    if isinstance(value, (list, tuple)):
        return [_own(item) for item in value]
    return _plain(value)


def _convert_union(value: Any, args: tuple, expected: Any, name: str, dropped: Dropped) -> Any:
    records = [arg for arg in args if dataclasses.is_dataclass(arg)]
    if isinstance(value, Mapping) and records:
        # The one that knows most of the fields; its message names the field that is wrong.
        unknown = [len(set(value) - {f.name for f in dataclasses.fields(c)}) for c in records]
        return from_params(records[unknown.index(min(unknown))], value, dropped)
    exact = [arg for arg in args if type(value) is arg]  # int | float must not turn 1 into 1.0
    for arg in exact + list(args):
        try:
            return convert(value, arg, name, dropped)
        except ConfigError:
            continue
    raise _wrong(value, expected, name)


def _convert_items(value: Sequence, origin: type, args: tuple, name: str, dropped: Dropped) -> Any:
    fixed_length = origin is tuple and args and args[-1] is not Ellipsis
    if fixed_length and len(args) != len(value):
        raise ConfigError(f"{name} must have {len(args)} values, got {len(value)}: {value!r}")
    item_types = args if fixed_length else args[:1] * len(value) or (Any,) * len(value)
    items = enumerate(zip(value, item_types, strict=True))
    return origin(convert(item, kind, f"{name}[{i}]", dropped) for i, (item, kind) in items)


def _wrong(value: Any, expected: Any, name: str) -> ConfigError:
    got = f"{value!r} ({type(value).__name__})"
    return ConfigError(f"{name} must be {type_name(expected)}, got {got}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value.value if isinstance(value, Enum) else value
