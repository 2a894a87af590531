"""The code computes what `richsem/trace.json` says, and the comparison notices if it does not."""

import copy
import functools
import json
import platform

import golden_trace
import pytest
from accelerate import PartialState

SAME_MACHINE = platform.system() == "Linux" and platform.machine() in ("x86_64", "AMD64")
WHAT_TO_DO = (
    "If this change of numbers is intended: `python tests/golden_trace.py --write`, and commit the "
    "file. Results that were kept before then no longer hold. If it is not, the change has a bug."
)


@pytest.fixture(scope="module")
def expected():
    return json.loads(golden_trace.FILE.read_text(encoding="utf-8"))


def holds_a_float(values):
    items = values.values() if isinstance(values, dict) else values
    return any(
        isinstance(item, float) or (isinstance(item, (dict, list)) and holds_a_float(item))
        for item in items
    )


def changed(trace, path, change):
    """A copy of the trace with one value changed."""
    trace = copy.deepcopy(trace)
    *parents, last = path
    place = functools.reduce(lambda place, key: place[key], parents, trace)
    place[last] = change(place[last])
    return trace


@pytest.mark.slow
def test_the_code_computes_what_the_trace_says(expected, tmp_path):
    if PartialState().device.type != "cpu":
        pytest.skip("the trace is of the CPU: run this test with CUDA_VISIBLE_DEVICES=''")
    actual = golden_trace.compute(tmp_path)
    lines = golden_trace.differing(expected, actual, same_machine=SAME_MACHINE)
    shown = "\n".join(lines[:12])
    assert not lines, f"{len(lines)} numbers differ, file -> code:\n{shown}\n{WHAT_TO_DO}"


def test_the_file_is_as_it_is_written_and_every_section_holds_something(expected):
    text = golden_trace.FILE.read_text(encoding="utf-8")
    assert golden_trace.to_text(expected) == text
    assert golden_trace.plain(expected) == expected
    sections = {"pictures", "features", "teacher", "runs", "schedules", "evaluation"}
    assert sections == {name for name, section in expected.items() if holds_a_float(section)}
    assert sections == set(expected)


STEP = ("runs", "richsem", "steps", 1)
LOSS = (*STEP, "losses", "image labels", "soft")
FIRST_STEP = ("runs", "richsem", "steps", 0)
FIRST_LOSS = (*FIRST_STEP, "losses", "detection", "soft")
ORDER = ("features", "order", "main", "images")
PICTURE = ("pictures", "painted", "smoke", "lvis/train 3")


@pytest.mark.parametrize(
    ("path", "change", "places"),
    [
        (FIRST_LOSS, lambda loss: loss * (1 + 0.8 * golden_trace.RTOL), 0),
        (LOSS, lambda loss: loss * (1 + 0.8 * golden_trace.LATER_RTOL), 0),
        (FIRST_LOSS, lambda loss: loss * 1.0003, 1),
        (LOSS, lambda loss: loss * 1.03, 1),
        ((*FIRST_STEP, "gradient_norm"), lambda norm: norm * 1.006, 1),
        ((*STEP, "losses"), lambda losses: {"unlabelled": losses["image labels"]}, 2),
        ((*STEP, "losses", "image labels"), lambda terms: terms | {"new": 0.0}, 1),
        (STEP[:-1], lambda steps: steps[:-1], 1),
        (ORDER, lambda images: [images[1], images[0], *images[2:]], 2),
        ((*PICTURE, "sha256"), lambda digest: digest[:-1] + "x", 1),
        ((*PICTURE, "colours", 0, 0), lambda colour: colour + 0.1, 1),
        (("schedules", "demo", "richsem", "steps"), lambda steps: steps + 1, 1),
        (("evaluation", "baseline on lvis", "metrics", "lvis", "APl"), lambda absent: 0.5, 1),
    ],
)
def test_each_changed_place_is_named_and_rounding_is_none(expected, path, change, places):
    lines = golden_trace.differing(expected, changed(expected, path, change))
    assert len(lines) == places
    assert all(line.startswith("/" + "/".join(path[:2])) for line in lines)


def test_a_changed_number_is_named_with_both_values(expected):
    found = golden_trace.differing(expected, changed(expected, LOSS, lambda loss: 2 * loss))
    loss = expected["runs"]["richsem"]["steps"][1]["losses"]["image labels"]["soft"]
    assert found == [f"/runs/richsem/steps[1]/losses/image labels/soft: {loss} -> {2 * loss}"]


@pytest.mark.parametrize(("shift", "same"), [(0.9, True), (1.2, False)])
def test_elsewhere_pictures_are_compared_by_their_mean_colours(expected, shift, same):
    other = changed(expected, (*PICTURE, "sha256"), lambda digest: "another")
    assert not golden_trace.differing(expected, other, same_machine=False)
    other = changed(other, (*PICTURE, "colours", 2, 1), lambda colour: colour + shift)
    assert same is not bool(golden_trace.differing(expected, other, same_machine=False))
