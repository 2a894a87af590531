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
# A promise that the picture of an explorer is another one, which the browser can show.
CHANGE = """() => {
  window.change = new Promise(done => {
    const pictures = document.querySelectorAll('.jp-OutputArea-output .widget-html-content');
    const watch = new MutationObserver(seen => done(seen[0].target));
    pictures.forEach(one => watch.observe(one, {childList: true, subtree: true}));
    setTimeout(() => done(null), 10000);
  }).then(one => one && one.querySelector('img').decode().then(() => true));
}"""
WORDLESS = "() => document.querySelectorAll('.widget-html-content img:not([alt*=\" \"])').length"
FOCUS = """one => {
  const look = () => ['outline', 'border', 'background', 'boxShadow']
    .map(part => getComputedStyle(one)[part]).join();
  one.blur();
  const before = look();
  one.focus();
  return look() !== before;
}"""


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


def seconds_to_change(page, act):
    """Seconds from a key or a move of the mouse to another picture."""
    page.evaluate(CHANGE)
    since = time.perf_counter()
    act()
    assert page.evaluate("() => window.change"), "the picture stays as it was"
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
            assert handle.evaluate(FOCUS), "the focus is not seen"
            for key in ("ArrowRight", "ArrowLeft") * 3:
                times.append(seconds_to_change(page, lambda k=key: page.keyboard.press(k)))
            box = handle.bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.mouse.down()
            times.append(
                seconds_to_change(page, lambda b=box: page.mouse.move(b["x"] + 60, b["y"]))
            )
            page.mouse.up()
        assert page.evaluate(WORDLESS) == 0
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
