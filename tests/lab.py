"""JupyterLab as people use it: a real server, and a headless Chromium that looks at it."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from jobs import free_port

from richsem import paths

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
def server(folder: Path, cache: Path):
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


def chromium() -> str | None:
    """The installed browser, if there is one."""
    return next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


def complaints(page) -> list[str]:
    """A list that fills with what goes wrong in the page from now on."""
    found: list[str] = []

    def hear(message) -> None:
        noise = re.search("|".join(OWN_NOISE), f"{message.text} {message.location.get('url', '')}")
        if message.type == "error" and not noise:
            found.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def open_and_run(page, address: str, name: str) -> None:
    """Opens a notebook and runs all of its cells, as its menu does."""
    page.goto(f"{address}/lab/tree/{name}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext", timeout=60_000
    )
    page.set_default_timeout(60_000 * MINUTES)
    page.evaluate(RUN_ALL)
    page.set_default_timeout(30_000)
