"""All runs that a notebook asks the store for, for whoever trains them before it is executed."""

from collections.abc import Mapping, Sequence
from typing import Any

from richsem.config import Profile
from richsem.recipes import dino_recipes
from richsem.training.run_config import RunConfig
from richsem.workbook import annotation_drop, comparison, other_tails, seeds, supplement

# Results whose runs can be put on the store's list, with the notebook that asks for them.
RESULTS = {
    "table4_versus_detic": "09_versus_detic",
    "fig2_annotation_drop": "10_annotation_drop",
    "table3_other_datasets": "11_other_long_tails",
    "extra_data_kinds": "11_other_long_tails",
}


def runs_of(notebook: str, values: Mapping[str, Any]) -> list[RunConfig]:
    """The runs that a notebook asks the store for, each once; none if it trains nothing.

    Args:
        notebook: Its name without the ending, such as "09_versus_detic".
        values: All its parameters by name.
    """
    first = values["SEED"]
    asked = _asked(notebook, values, range(first, first + values.get("SEEDS", 1)))
    return list(dict.fromkeys(run for runs in asked.values() for run in runs))


def runs_behind(
    result: str, profile: Profile = "demo", *, all_seeds: Sequence[int] = (0,), root: str = ""
) -> list[RunConfig]:
    """The runs behind one of `RESULTS`: of Table 4 all controls, of Figure 2 the profile's drops.

    Raises:
        ValueError: The result has no runs of its own (Figure 4 shows two of Table 4's).
    """
    if result not in RESULTS:
        raise ValueError(
            f"{result!r} has no runs of its own; those that have: {', '.join(RESULTS)}"
        )
    values = {
        "PROFILE": profile,
        "DATA_ROOT": root,
        "DETECTORS": supplement.DETECTORS,
        "CONTROLS": supplement.CONTROLS,
        "DROPS": (),
        "HARD_LABELS": False,
    }
    return list(dict.fromkeys(_asked(RESULTS[result], values, all_seeds)[result]))


def _asked(
    notebook: str, values: Mapping[str, Any], all_seeds: Sequence[int]
) -> dict[str, list[RunConfig]]:
    """Runs by the result that they are for, or by the notebook where it has none of its own."""
    profile, seed = values["PROFILE"], all_seeds[0]
    known = {"root": values.get("DATA_ROOT", "")}
    match notebook:
        case "07_train_richsem" | "13_qualitative":
            pair = {
                "baseline": dino_recipes.baseline(profile, seed=seed, **known),
                "RichSem": dino_recipes.richsem(profile, seed=seed, **known),
            }
            asked = {notebook: comparison.with_steps(pair, values.get("STEPS", 0))}
        case "08_evaluation" if not values["DETECTIONS"]:
            asked = {notebook: {"run": dino_recipes.baseline(profile, seed=seed, **known)}}
        case "09_versus_detic":
            arms = {
                f"{name}: {arm}": make
                for name in values["DETECTORS"]
                for arm, make in supplement.table4_arms(
                    name, profile, controls=values["CONTROLS"], **known
                ).items()
            }
            asked = {"table4_versus_detic": seeds.arms_over_seeds(arms, all_seeds)}
        case "10_annotation_drop":
            drops, hard = values["DROPS"] or annotation_drop.ratios(profile), values["HARD_LABELS"]
            runs = annotation_drop.runs(profile, drops, all_seeds, hard=hard, **known)
            asked = {"fig2_annotation_drop": runs}
        case "11_other_long_tails":
            asked = {
                "table3_other_datasets": other_tails.table3_runs(profile, all_seeds, **known),
                "extra_data_kinds": other_tails.kind_runs(profile, all_seeds, **known),
            }
        case _:
            asked = {}
    return {name: list(runs.values()) for name, runs in asked.items()}
