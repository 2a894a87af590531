"""Recipes by their names, and the run that a command asks for."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

from richsem.config import ConfigError, Profile, read_kept, with_settings
from richsem.recipes import centernet2_recipes, dino_recipes
from richsem.training.checkpoint import DESCRIPTION, read_description
from richsem.training.run_config import RunConfig


def recipe_names() -> dict[str, Callable[..., RunConfig]]:
    """The recipes by name: functions that make a run from a profile and a seed alone."""
    return {
        name: function
        for module in (dino_recipes, centernet2_recipes)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name[0] != "_" and {"profile", "seed"} <= inspect.signature(function).parameters.keys()
    }


def configure(
    recipe: str,  # name of a recipe, or the folder of an earlier run
    profile: Profile,  # size, for a recipe
    *,
    seed: int = 0,  # for a recipe
    settings: Sequence[str] = (),  # changes such as `optim.lr=2e-4`
) -> RunConfig:
    """The run that a command asks for."""
    known, description = recipe_names(), Path(recipe) / DESCRIPTION
    if recipe in known:
        config = known[recipe](profile, seed=seed)
    elif description.is_file():
        config = read_kept(RunConfig, read_description(recipe).get("recipe"), description)
    else:
        raise ConfigError(
            f"no recipe {recipe!r}; there are {', '.join(known)}, and the folders of earlier runs"
        )
    return with_settings(config, settings)
