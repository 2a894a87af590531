"""Executed notebooks made fit for publication: no widget state, timings or folders of a machine."""

import re
from collections.abc import Mapping
from typing import Any

import nbformat

from richsem import paths
from richsem.workbook import notebook_source

WIDGET = "application/vnd.jupyter.widget-view+json"


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Executed notebook without widget state, timings and folders of this machine; in place."""
    keep = {key: notebook.metadata[key] for key in ("richsem",) if key in notebook.metadata}
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": notebook_source.KERNELSPEC, "language_info": {"name": "python"}, **keep}
    )
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            outputs = _without_progress(outputs)
            cell.outputs = [nbformat.from_dict(_clean_output(output)) for output in outputs]
    return notebook


def _without_progress(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Of every progress bar only its last state: what carriage returns leave on a screen."""
    merged: list[nbformat.NotebookNode] = []
    for output in outputs:
        same = merged and output.output_type == merged[-1].output_type == "stream"
        if same and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    for output in merged:
        if output.output_type == "stream":
            lines = output.text.split("\n")
            output.text = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)
    return [output for output in merged if output.output_type != "stream" or output.text.strip()]


def _clean_output(output: Any) -> Any:
    """An output with portable paths; the number of a kernel's temporary file is dropped too."""
    if isinstance(output, str):
        return paths.portable(re.sub(r"\S*ipykernel_\d+[/\\]\d+\.py", "<cell>", output))
    if isinstance(output, Mapping):
        pictures = {key for key in output if key.startswith("image/") and key != "image/svg+xml"}
        return {k: v if k in pictures else _clean_output(v) for k, v in output.items()}
    return [_clean_output(item) for item in output] if isinstance(output, list) else output
