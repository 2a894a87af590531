"""95 % confidence intervals; an interval of too few values is (nan, nan)."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

Estimate = tuple[float, float, float]  # value, low and high end


def of_mean(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean and its interval by Student's t, from two values on."""
    values = np.asarray(values, dtype=float)
    mean = values.mean()
    if len(values) < 2:
        return mean, np.nan, np.nan
    # Not `ttest_1samp().confidence_interval()`, which warns where all values are the same.
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return mean, mean - half, mean + half


def ends(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The interval of `of_mean` alone, as seaborn takes it for its error bars."""
    return of_mean(values)[1:]


def of_rank_correlation(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Spearman's correlation and its interval, from five pairs on.

    Fisher's z with the variance of Fieller et al. (1957).
    """
    if len(first) < 5:
        return np.nan, np.nan, np.nan
    rank = stats.spearmanr(first, second).statistic
    half = 1.96 * np.sqrt(1.06 / (len(first) - 3))
    middle = np.arctanh(np.clip(rank, -0.9999, 0.9999))
    return rank, np.tanh(middle - half), np.tanh(middle + half)
