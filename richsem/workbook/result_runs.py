"""All runs that a notebook asks the store for, for whoever trains them before it is executed."""

from collections.abc import Mapping, Sequence
from typing import Any

from richsem.config import Profile
from richsem.recipes import dino_recipes
from richsem.training.run_config import RunConfig
from richsem.workbook import annotation_drop, comparison, other_tails, supplement, versus_detic
from richsem.workbook.study import Study

# Results whose runs can be put on the store's list, with the notebook that asks for them.
RESULTS = {
    "table4_versus_detic": "09_versus_detic",
    "fig2_annotation_drop": "10_annotation_drop",
    "table3_other_datasets": "11_other_long_tails",
    "extra_data_kinds": "11_other_long_tails",
}


def study_of(result: str, values: Mapping[str, Any]) -> Study:
    """The study that makes one of `RESULTS`.

    Args:
        result: The id.
        values: Parameters of its notebook, by name.
    """
    profile, root = values["PROFILE"], values["DATA_ROOT"]
    match result:
        case "table4_versus_detic":
            detectors, controls = values["DETECTORS"], values["CONTROLS"]
            return versus_detic.table4(profile, root=root, detectors=detectors, controls=controls)
        case "fig2_annotation_drop":
            drops, hard = values["DROPS"], values["HARD_LABELS"]
            return annotation_drop.figure2(profile, drops, root=root, hard=hard)
        case "table3_other_datasets":
            return other_tails.table3(profile, root=root)
        case _:
            return other_tails.kinds(profile, root=root)


def runs_of(notebook: str, values: Mapping[str, Any]) -> list[RunConfig]:
    """The runs that a notebook asks the store for, each once; none if it trains nothing.

    Args:
        notebook: Its name without the ending, such as "09_versus_detic".
        values: All its parameters by name.
    """
    if notebook in ("07_train_richsem", "08_evaluation", "13_qualitative"):
        if values.get("DETECTIONS"):  # the reader's own
            return []
        profile, seed, root = values["PROFILE"], values["SEED"], values["DATA_ROOT"]
        if notebook == "08_evaluation":
            return [dino_recipes.baseline(profile, seed=seed, root=root)]
        steps = values.get("STEPS", 0)
        return list(comparison.pair(profile, seed=seed, root=root, steps=steps).values())
    studies = [study_of(result, values) for result, name in RESULTS.items() if name == notebook]
    all_seeds = range(values["SEED"], values["SEED"] + values["SEEDS"]) if studies else ()
    return _each_once(studies, all_seeds)


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
    values = {"PROFILE": profile, "DATA_ROOT": root, "DROPS": (), "HARD_LABELS": False}
    values |= {"DETECTORS": supplement.DETECTORS, "CONTROLS": supplement.CONTROLS}
    return _each_once([study_of(result, values)], all_seeds)


def _each_once(studies: Sequence[Study], all_seeds: Sequence[int]) -> list[RunConfig]:
    return list(dict.fromkeys(run for one in studies for run in one.runs(all_seeds).values()))
