"""Runs as data: functions that return complete configurations, found by their names."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from richsem.config import ConfigError, Profile, read_kept, with_settings

if TYPE_CHECKING:
    from richsem.training.run_config import RunConfig


def recipe_names() -> dict[str, Callable]:
    """The recipes by name: functions that make a run from a profile and a seed alone."""
    from richsem.recipes import centernet2_recipes, dino_recipes

    return {
        name: function
        for module in (dino_recipes, centernet2_recipes)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name[0] != "_" and {"profile", "seed"} <= inspect.signature(function).parameters.keys()
    }


def configure(
    recipe: str, profile: Profile, *, seed: int = 0, settings: Sequence[str] = ()
) -> "RunConfig":
    """The run that a command asks for.

    Args:
        recipe: Name of a recipe, or the folder of an earlier run.
        profile: Size, for a recipe.
        seed: Seed, for a recipe.
        settings: Changes such as `optim.lr=2e-4`.
    """
    from richsem.training.checkpoint import DESCRIPTION, read_description
    from richsem.training.run_config import RunConfig

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
