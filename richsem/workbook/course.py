"""What a notebook asks of its reader: a guess before a result, an answer to an exercise."""

from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import msgspec

from richsem.workbook.results import say

# Of exercises that ask for a number, what is said of slips.
HINTS = msgspec.toml.decode((Path(__file__).parent / "exercises/hints.toml").read_bytes())


def recall(guess: Real | str | None, measured: Real | str, what: str = "") -> None:
    """Shows what the reader guessed beside what came out; `what` is the unit of numbers."""
    came_out = f"{measured:.3g} {what}".strip() if isinstance(measured, Real) else measured
    words, off = "none was written" if guess is None else str(guess), ""
    if isinstance(guess, Real) and isinstance(measured, Real) and abs(guess) < 1e300:
        words, off = f"{guess:.3g} {what}", f", {abs(guess - measured):.3g} away"
    say(f"Your guess: {words}. It came out: **{came_out}**{off}.")


def check(exercise: Callable[..., Any], answer: Any, **context: Any) -> int:
    """Points for an answer, 0 or 1, after a sentence that says right or gives a hint.

    `exercise` is a function of `richsem.workbook.exercises`. Of one with `HINTS`, what the notebook
    computed (`context`) makes the right number and those of slips; another one takes the answer as
    well, and returns None if it is right, or else a hint. A hint is never the answer.
    An answer of None was not given yet; one of the wrong kind gets a hint like a wrong one. A
    notebook never stops here. nbgrader reads the returned number as the cell's points.
    """
    if answer is None:
        say("Not answered yet.")
        return 0
    try:
        hints = HINTS.get(exercise.__name__)
        hint = near(answer, exercise(**context), hints) if hints else exercise(answer, **context)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        hint = f"this cannot be read as an answer ({error})."
    say(getattr(exercise, "right", "**Right.**") if hint is None else f"**Not yet**: {hint}")
    return int(hint is None)


def close(answer: Any, truth: float, tolerance: float = 0.01) -> bool:
    """Whether a number agrees with another one to a share of it (and near zero, to that much)."""
    return bool(abs(float(answer) - truth) <= tolerance * max(abs(truth), 1.0))


def near(answer: Any, numbers: Mapping[str, float], hints: Mapping[str, Any]) -> str | None:
    """None if an answer is the right number; else the hint of the slip it agrees with, or another.

    Beside an exercise's own slips there are those of all: a sign, percent or a share.
    """
    tolerance, times = hints.get("tolerance", 0.005), hints.get("times", 1)
    given = times * float(answer)
    slips = {hints.get(name): times * number for name, number in numbers.items()}
    truth = slips[None]  # the first: what is right has no hint
    share, percent = "a share lies between 0 and 1.", "in percent, or in points: hundredths."
    slips |= {"the sign: what less what?": -truth}
    slips |= {share: 100 * truth} if abs(truth) <= 1 else {percent: truth / 100}
    agreeing = (hint for hint, slip in slips.items() if close(given, slip, tolerance))
    return next(agreeing, hints["otherwise"])
