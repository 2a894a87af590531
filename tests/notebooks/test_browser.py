"""Every notebook in JupyterLab in Chromium: all cells run, every widget answers mouse and keys.

`make test-browser` runs this; it needs Debian's `chromium`. One notebook is in every test run where
browser and Playwright are there, the others are slow. Pictures of the pages are kept in
`data/cache/browser`.
"""

import os
import statistics
import time

import pytest

pytest.importorskip("playwright")

import lab
from playwright import sync_api

from richsem import paths
from richsem.workbook.results import NOTEBOOKS

pytestmark = pytest.mark.browser
SHORT = "02_clip_soft_labels"
PICTURES = ".jp-OutputArea-output .widget-image, .jp-OutputArea-output .widget-html-content"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    with lab.server(folder, folder / "cache") as place:
        yield place


@pytest.fixture(scope="module")
def browser():
    if not lab.chromium():
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as play:
        yield play.chromium.launch(executable_path=lab.chromium(), args=["--no-sandbox"])


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    yield page
    page.close()


def looks(page):
    """What all pictures and tables of widgets show."""
    return page.evaluate(
        "what => [...document.querySelectorAll(what)].map(e => e.src || e.innerHTML).join()",
        PICTURES,
    )


def seconds_to_change(page, act):
    """Seconds from a key or a move of the mouse to another picture."""
    before, since = looks(page), time.perf_counter()
    act()
    while looks(page) == before:
        assert time.perf_counter() - since < 10, "the picture stays as it was"
        time.sleep(0.005)
    return time.perf_counter() - since


def short_or_slow(name):
    return pytest.param(name, marks=() if name == SHORT else pytest.mark.slow)


@pytest.mark.parametrize("name", [*map(short_or_slow, NOTEBOOKS)])
def test_a_notebook_runs_in_the_browser(page, address, name, capsys):
    wrong = lab.complaints(page)
    lab.open_and_run(page, address, name)
    assert page.evaluate(lab.ERRORS) == []
    assert page.evaluate(lab.UNTOUCHED) == 0
    there = page.evaluate(lab.SHOW_WIDGETS)
    assert there == ("_explorer(" in (paths.NOTEBOOKS / f"{name}.ipynb").read_text("utf-8"))
    if there:
        page.wait_for_selector(".jp-OutputArea-output [role=slider]")
        handles = page.locator(".jp-OutputArea-output [role=slider]")
        times = []
        for place in range(handles.count()):
            handle = handles.nth(place)
            handle.focus()
            for key in ("ArrowRight", "ArrowLeft") * 3:
                times.append(seconds_to_change(page, lambda k=key: page.keyboard.press(k)))
            box = handle.bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.mouse.down()
            times.append(
                seconds_to_change(page, lambda b=box: page.mouse.move(b["x"] + 60, b["y"]))
            )
            page.mouse.up()
        with capsys.disabled():
            print(
                f"\n{name}: {1000 * statistics.median(times):.0f} ms (median), "
                f"{1000 * statistics.quantiles(times, n=20)[-1]:.0f} ms (95th of 100) from key or "
                f"move to the picture, {len(times)} moves; load {os.getloadavg()[0]:.1f}"
            )
    shots = paths.CACHE / "browser"
    shots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=shots / f"{name}.png")
    assert wrong == []
