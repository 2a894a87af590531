"""Exercises of notebooks 16 to 19, the labs."""

from operator import attrgetter
from typing import Any

import pandas as pd

from richsem.operations import store
from richsem.training.run_config import RunConfig
from richsem.workbook import study
from richsem.workbook.course import near


def mean_gain(*, frame: pd.DataFrame, pair: tuple[str, str], metric: str) -> dict[str, float]:
    """16, 17, 18, compute: the mean paired difference of two arms, in points."""
    gain = study.differences(frame[frame["metric"] == metric], [pair])["mean"].item()
    return {"right": gain, "hundredths": gain / 100}


def judged_run(
    answer: Any, *, config: RunConfig, asked: dict[str, Any], split: str, metric: str
) -> str | None:
    """16 to 19, change: a metric, in percent, of a run with the `asked` values in its fields."""
    for name, wanted in asked.items():
        if (value := attrgetter(name)(config)) != wanted:
            return f"{name} is {value!r} in what `make` makes; {wanted!r} is asked for."
    found = 100 * store.finished({0: config}, split)[0].result.metrics[metric]
    hint = "evaluate the run of this seed on this split: `store.finished` trains and judges it."
    return near(answer, {"right": found}, {"tolerance": 0.01, "otherwise": hint})
