"""All runs behind a table or figure, for machines that train them before a notebook asks."""

from collections.abc import Sequence

from richsem.config import Profile
from richsem.training.run_config import RunConfig
from richsem.workbook import annotation_drop, other_tails, seeds, supplement

RESULTS = (
    "table4_versus_detic",
    "fig2_annotation_drop",
    "table3_other_datasets",
    "extra_data_kinds",
)


def runs_behind(
    result: str, profile: Profile = "demo", *, all_seeds: Sequence[int] = (0,), root: str = ""
) -> list[RunConfig]:
    """The runs that the notebook of a result asks for, each once.

    Args:
        result: One of `RESULTS`. Of Table 4 all controls, of Figure 2 the profile's drops.
        profile: Sizes.
        all_seeds: A run of every arm for each.
        root: Folder of real data.

    Raises:
        ValueError: The result has no runs of its own (Figure 4 shows two of Table 4's).
    """
    match result:
        case "table4_versus_detic":
            controls = supplement.CONTROLS
            runs = [
                run
                for name in supplement.DETECTORS
                for run in seeds.arms_over_seeds(
                    supplement.table4_arms(name, profile, root=root, controls=controls), all_seeds
                ).values()
            ]
        case "fig2_annotation_drop":
            drops = annotation_drop.ratios(profile)
            runs = annotation_drop.runs(profile, drops, all_seeds, root=root).values()
        case "table3_other_datasets":
            runs = other_tails.table3_runs(profile, all_seeds, root).values()
        case "extra_data_kinds":
            runs = other_tails.kind_runs(profile, all_seeds, root).values()
        case _:
            raise ValueError(
                f"{result!r} has no runs of its own; those that have: {', '.join(RESULTS)}"
            )
    return list(dict.fromkeys(runs))
