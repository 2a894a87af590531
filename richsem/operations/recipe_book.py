"""Recipes by their names, and the run that a command asks for."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from richsem.config import ConfigError, Profile, config_hash, read_kept, with_settings
from richsem.data.own import OwnConfig
from richsem.recipes import centernet2_recipes, dino_recipes
from richsem.recipes.own_data import on_own_data
from richsem.training.checkpoint import DESCRIPTION, read_description
from richsem.training.run_config import RUN, RunConfig

# What a file of one's own makes no sense without.
_NEEDS = dict.fromkeys(("images", "val_annotations", "holdout", "extra"), "annotations")
_NEEDS |= {"val_images": "val_annotations", "extra_labels": "extra"}


def recipe_names() -> dict[str, Callable[..., RunConfig]]:
    """The recipes by name: functions that make a run from a profile and a seed alone."""
    return {
        name: function
        for module in (dino_recipes, centernet2_recipes)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name[0] != "_" and {"profile", "seed"} <= inspect.signature(function).parameters.keys()
    }


def is_finished(recipe: str) -> bool:
    """Whether this is no recipe but the folder of a run that was finished."""
    return recipe not in recipe_names() and (Path(recipe) / DESCRIPTION).is_file()


def configure(
    recipe: str,  # name of a recipe, or the folder of an earlier run
    profile: Profile,  # size, for a recipe
    *,
    seed: int = 0,  # for a recipe
    settings: Sequence[str] = (),  # changes such as `optim.lr=2e-4`
    own: OwnConfig | None = None,  # files to learn from, instead of the recipe's sets
    extra: str = "",  # beside them, a folder of extra pictures
    extra_labels: str = "",  # and their labels (csv)
) -> RunConfig:
    """The run that a command asks for."""
    known = recipe_names()
    if recipe in known:
        make = partial(known[recipe], profile, seed=seed)
        config = make()
        # Where the sets lie also decides what a run starts from and which split judges it.
        if any(one.startswith("data.root=") for one in settings) and not own:
            root = with_settings(config, settings).data.root
            config = make(root=root) if "root" in inspect.signature(make).parameters else config
    elif is_finished(recipe):
        description = Path(recipe) / DESCRIPTION
        config = read_kept(RunConfig, read_description(recipe).get("recipe"), description)
    else:
        raise ConfigError(
            f"no recipe {recipe!r}; there are {', '.join(known)}, and the folders of earlier runs"
        )
    if own and (twice := [one for one in settings if one.startswith(("data.key", "data.own"))]):
        raise ConfigError(f"{twice[0]!r}: files of one's own say that already; leave one out")
    if own and config.init.startswith(RUN):  # the first of two runs is on the same files
        first = config.init.removeprefix(RUN).rpartition("-")[0]
        first = configure(first, profile, seed=seed, own=own)
        config = replace(config, init=f"{RUN}{first.name}-{config_hash(first)}")
    config = on_own_data(config, own, extra, extra_labels) if own else config
    return with_settings(config, settings)


def own_files(
    spelt: Callable[[str], str] = lambda name: f"--{name}".replace("_", "-"),  # in errors
    **files: Any,
) -> dict[str, Any]:
    """Files of one's own as a command names them, for `configure`; from wherever it is called."""
    given = {
        name: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in files.items()
        if value is not None
    }
    for one, other in _NEEDS.items():
        if one in given and other not in given:
            raise ValueError(f"{spelt(one)} needs {spelt(other)}")
    if "holdout" in given and "val_annotations" in given:
        raise ValueError("--holdout and --val-annotations are two ways to judge: leave one out")
    if not given:
        return {}
    extra = {name: given.pop(name, "") for name in ("extra", "extra_labels")}
    beside = str(Path(given["annotations"]).parent)
    return {"own": OwnConfig(**{"images": beside, **given}), **extra}
