"""A lab: boxes that are shifted more and more, learnt with hard labels and with soft ones."""

from dataclasses import replace

import pandas as pd

from richsem.config import Profile
from richsem.training.run_config import RunConfig
from richsem.workbook import labs
from richsem.workbook.study import AP_NAMES, Study, claims_of, of_all_seeds

SHIFTS = (0.0, 0.4, 0.8)  # of annotated boxes, see `corrupt.jitter_boxes`
HARD, SOFT, GAIN = "hard labels", "soft labels", "gain by soft labels"


def box_noise(profile: Profile, *, root: str = "") -> Study:
    """Boxes shifted more and more, learnt with hard labels and with soft ones; no extra images.

    The teacher reads the shifted boxes, too. A seed draws the shifts.
    """
    known = labs.short_runs(profile, root)
    kinds = {HARD: known["baseline"], SOFT: known["soft labels alone"]}
    arms = {
        f"{labels}, {shift:g}": _shifted(make, shift)
        for shift in SHIFTS
        for labels, make in kinds.items()
    }
    most = f"{SHIFTS[-1]:g}"
    pairs = [(f"{HARD}, {shift:g}", f"{HARD}, 0") for shift in SHIFTS[1:]]
    pairs += [(f"{SOFT}, {shift:g}", f"{HARD}, {shift:g}") for shift in SHIFTS]
    pairs += [(f"{GAIN}, {most}", f"{GAIN}, 0")]
    claims = claims_of("table_box_noise")
    return Study(arms=arms, pairs=pairs, claims=claims, metrics=AP_NAMES | {"AP50": "AP50"})


@of_all_seeds
def _shifted(config: RunConfig, shift: float) -> RunConfig:
    """The run with boxes that its seed shifts."""
    if not shift:
        return config
    data = replace(config.data, box_noise=shift, drop_seed=config.train.seed)
    return replace(config, name=f"{config.name}-{shift:g}", data=data)


def with_gains(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `box_noise`, and what soft labels gain at each shift as arms of their own."""
    return labs.with_gains(frame, [f"{shift:g}" for shift in SHIFTS], SOFT, HARD, GAIN)
