"""Every notebook in JupyterLab in Chromium: all cells run, every widget answers mouse and keys.

`make test-browser` runs this; it needs Debian's `chromium`. One notebook is in every test run where
browser and Playwright are there, the others are slow. Pictures of the pages are kept in
`data/cache/browser`.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

pytest.importorskip("playwright")

from jobs import free_port
from playwright import sync_api

from richsem import paths
from richsem.workbook.results import NOTEBOOKS

pytestmark = pytest.mark.browser
SHORT = "02_clip_soft_labels"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
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
MINUTES = 10  # at most, for all cells of a notebook
# What Chromium says of JupyterLab itself, with no notebook open.
OWN_NOISE = ("favicon", "jupyterlab/api/", "api/contents", "translations", "WebGL", "workspaces")
RUN_ALL = """async () => {
  const app = window.jupyterapp, panel = app.shell.currentWidget;
  await panel.context.ready; await panel.sessionContext.ready;
  await app.commands.execute('notebook:run-all-cells');
}"""
ERRORS = """() => {
  const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells];
  const outputs = cells.filter(c => c.type === 'code').flatMap(c => c.outputs.toJSON());
  return outputs.filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue);
}"""
UNTOUCHED = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
  .filter(c => c.type === 'code' && !c.executionCount && c.sharedModel.source.trim()).length"""
# A notebook shows what is in view; this brings the cell that holds the widgets there.
SHOW_WIDGETS = """async () => {
  const view = window.jupyterapp.shell.currentWidget.content;
  for (let i = 0; i < view.widgets.length; i++) {
    const cell = view.widgets[i].model;
    if (cell.type !== 'code') continue;
    const mime = 'application/vnd.jupyter.widget-view+json';
    if (cell.outputs.toJSON().some(o => o.data && o.data[mime])) {
      view.activeCellIndex = i;
      await view.scrollToItem(i, 'start');
      return true;
    }
  }
  return false;
}"""


@contextmanager
def server(folder, cache):
    """A JupyterLab with copies of all notebooks whose PROFILE is smoke; gives its address."""
    for source in paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"):
        text = source.read_text(encoding="utf-8").replace(
            'PROFILE = \\"demo\\"', 'PROFILE = \\"smoke\\"'
        )
        (folder / source.name).write_text(text, encoding="utf-8")
    port = free_port()
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    settings = {
        "ServerApp.port": port,
        "ServerApp.root_dir": folder,
        "IdentityProvider.token": "",
        "ServerApp.allow_root": True,
        "ServerApp.open_browser": False,
        "LabApp.expose_app_in_browser": True,
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{k}={v}" for k, v in settings.items())]
    own |= {"RICHSEM_CACHE": str(cache), "RICHSEM_FIGURES": str(folder / "figures")}
    with (folder / "server.txt").open("w") as said:
        process = subprocess.Popen(command, env=os.environ | own, stdout=said, stderr=said)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=1)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def complaints(page):
    """A list that fills with what goes wrong in the page from now on."""
    found = []

    def hear(message):
        noise = re.search("|".join(OWN_NOISE), f"{message.text} {message.location.get('url', '')}")
        if message.type == "error" and not noise:
            found.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def open_and_run(page, address, name):
    """Opens a notebook and runs all of its cells, as its menu does."""
    page.goto(f"{address}/lab/tree/{name}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext", timeout=60_000
    )
    page.set_default_timeout(60_000 * MINUTES)
    page.evaluate(RUN_ALL)
    page.set_default_timeout(30_000)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    with server(folder, folder / "cache") as place:
        yield place


@pytest.fixture(scope="module")
def browser():
    installed = list(filter(None, map(shutil.which, BROWSERS)))
    if not installed:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as play:
        yield play.chromium.launch(executable_path=installed[0], args=["--no-sandbox"])


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
    wrong = complaints(page)
    open_and_run(page, address, name)
    assert page.evaluate(ERRORS) == []
    assert page.evaluate(UNTOUCHED) == 0
    there = page.evaluate(SHOW_WIDGETS)
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
        for one in page.locator(".jp-OutputArea-output .widget-select select").all():
            low = {"x": 30, "y": 0.7 * one.bounding_box()["height"]}
            times.append(seconds_to_change(page, lambda s=one, at=low: s.click(position=at)))
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
