"""Guesses and answers: what a reader is told, and that no answer stops a notebook."""

import pytest
import torch

from richsem.workbook import course
from richsem.workbook.exercises import arguments, parts

SOFT = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
LABELS = torch.tensor([0, 1, 1, 1])


@pytest.fixture
def told(monkeypatch):
    sentences = []
    monkeypatch.setattr(course, "say", sentences.append)
    return sentences


@pytest.mark.parametrize(
    ("guess", "measured", "said"),
    [
        (5, 9.3, "Your guess: 5 points. It came out: **9.3 points**, 4.3 away."),
        (None, 9.3, "none was written. It came out: **9.3 points**."),
        ("flat", "rising", "Your guess: flat. It came out: **rising**."),
        (10**400, 0.5, f"Your guess: {10**400}. It came out: **0.5 points**."),
    ],
)
def test_a_guess_stands_beside_what_came_out(guess, measured, said, told):
    course.recall(guess, measured, "points")
    assert said in told[0]


@pytest.mark.parametrize(
    ("answer", "score", "said"),
    [
        (0.25, 1, "Right"), (None, 0, "Not answered yet"), (25, 0, "between 0 and 1"),
        ("half", 0, "cannot be read as an answer"), (0.4, 0, "argmax"),
        (10**400, 0, "cannot be read as an answer"),
    ],
)  # fmt: skip
def test_an_answer_gets_its_points_or_a_hint(answer, score, said, told):
    context = {"soft": SOFT, "labels": LABELS, "asked": LABELS >= 0}
    assert course.check(parts.share_of_mistakes, answer, **context) == score
    assert said in told[0]


@pytest.mark.parametrize("notebook", arguments.POINTS)
def test_an_argument_is_judged_by_the_points_it_names(notebook):
    padding = " and so on, so on, so on, so on, so on, so on, so on, so on"
    *first, last = (words[0] for words in arguments.POINTS[notebook])
    assert "15 words" in arguments.argue(last, notebook=notebook)
    half = f"good answer names {len(first) + 1} points, yours seems to name "
    assert half in arguments.argue(padding, notebook=notebook)
    assert arguments.argue(" ".join([*first, last]) + padding, notebook=notebook) is None
