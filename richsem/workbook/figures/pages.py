"""What a class is given, as files: an edition, slides, a site; its pages load nothing."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from nbconvert import TemplateExporter
from nbconvert.filters import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from pygments.formatters import HtmlFormatter

from richsem import paths
from richsem.workbook import editions, notebook_files, runner
from richsem.workbook.notebook_files import NotebookError

EXECUTED = paths.NOTEBOOKS / "shipped" / "demo"
TEMPLATE = Path(__file__).with_suffix(".html")
REPORT = paths.SHIPPED / "demo" / "report.html"
TEXTS = {"index": "notebooks/README.md", "METHOD": "METHOD.md", "LOG": "LOG.md"}
# Of slides, by how headings begin.
LEFT_OUT = ("Where there is no installation", "Parameters", "Exercises", "What this ")
_LETTERS = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}
_EM = 100  # units of a drawn formula: the size of a letter


def write(
    folder: Path,
    edition: editions.Edition | None,
    *,
    site: bool,
    slides: bool,
    only: Sequence[str],  # beginnings of names; empty for all notebooks
) -> list[Path]:
    """Writes what is asked for into a folder; returns the files.

    Raises:
        NotebookError: Nothing is asked for, a notebook is missing, or an exercise is not whole.
        OSError: A file in the way was not written by this program. Nothing was written.
    """
    if not (edition or site or slides):
        raise NotebookError("say what to write: --edition student or teacher, --slides, --site")
    sources = runner.select(only or [""])  # also those that run only where they are asked for
    paths.check_writable(folder / "index.html")  # before half a minute of drawing
    files: dict[str, str | bytes] = {}
    if edition:
        files |= editions.edition_files(sources, edition)
    if site or slides:
        copies = [EXECUTED / source.name for source in sources]
        found = {copy.stem: notebook_files.read(copy) for copy in copies if copy.is_file()}
        if not found:
            raise NotebookError(f"{EXECUTED}: no executed copies; use a checkout of the project")
        files |= site_files(found) if site else slide_files(found)
    for name in files:
        paths.check_own(folder / name)
    for name, content in files.items():
        paths.write_own(folder / name, content)
    return [folder / name for name in files]


def site_files(executed: Mapping[str, NotebookNode]) -> dict[str, str | bytes]:
    """Files of a site, by name: course, method and log, notebooks, their slides, the report."""
    texts = {name: (paths.ROOT / text).read_text(encoding="utf-8") for name, text in TEXTS.items()}
    shown = {name: new_notebook(cells=[new_markdown_cell(text)]) for name, text in texts.items()}
    files: dict[str, str | bytes] = dict(slide_files(executed))
    for name, notebook in {**shown, **executed}.items():
        files[f"{name}.html"] = render(notebook, name, list(executed))
    files["report.html"] = _linked(REPORT.read_text(encoding="utf-8"))
    numbers = (file for file in REPORT.parent.iterdir() if file.suffix in (".csv", ".json"))
    return files | {file.name: file.read_bytes() for file in numbers}


def slide_files(executed: Mapping[str, NotebookNode]) -> dict[str, str]:
    """Notebooks as slides, by the names of their files."""
    return {f"{name}.slides.html": render(to_slides(n), name) for name, n in executed.items()}


def render(notebook: NotebookNode, name: str, names: Sequence[str] = ()) -> str:
    """A notebook as a page of a site with the notebooks `names`, or as slides if there are none."""
    styles = [HtmlFormatter(style=style).get_style_defs() for style in ("xcode", "monokai")]
    page = {"name": name, "names": names, "code_styles": styles}
    html = _exporter(bool(names)).from_notebook_node(notebook, {"page": page})[0]
    return _linked(html if names else re.sub(r'(href="[\w/]+)\.ipynb', r"\1.slides.html", html))


@cache
def _exporter(with_code: bool) -> TemplateExporter:
    """nbconvert's, once for all pages; not its `HTMLExporter`, which parses each page twice more.

    What it is given was written here, so nothing is cleaned.
    """
    return TemplateExporter(
        template_name="basic",
        template_extension=".html.j2",
        raw_template=TEMPLATE.read_text(encoding="utf-8"),
        exclude_input=not with_code,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        filters={
            "markdown2html": MarkdownWithMath(renderer=_Renderer(escape=False)).render,
            "clean_html": lambda html: html,
            "highlight_code": Highlight2HTML(pygments_lexer="python"),
        },
    )


def _linked(page: str) -> str:
    """A page whose links to files of the project lead to the pages that the site has of them."""
    page = re.sub(r'href="[^":]*README\.md', 'href="index.html', page)
    return re.sub(r'href="(?:[^":]*/)?([\w.]+)\.(?:ipynb|md|html)', r'href="\1.html', page)


class _Renderer(IPythonRenderer):
    """Markdown as HTML with drawn formulas, and names of headings as on GitHub."""

    def inline_math(self, body: str) -> str:
        return formula(body)

    def block_math(self, body: str) -> str:
        return f'<p class="formula">{formula(body)}</p>'

    def heading(self, text: str, level: int, **_: Any) -> str:
        words = re.sub(r"<[^>]*>|[^\w\s-]", "", text).strip()
        return f'<h{level} id="{words.lower().replace(" ", "-")}">{text}</h{level}>\n'


@cache  # pages and slides show the same
def formula(tex: str) -> str:
    """LaTeX of a formula as an `svg` element in the line, colour and size of the text around it.

    matplotlib draws it; the LaTeX stays as its label. A `ValueError` names what it does not know.
    """
    font = FontProperties(math_fontfamily="stix")
    path = TextPath((0, 0), f"${tex.strip()}$", size=_EM, prop=font)
    box = path.get_extents().padded(2)
    steps = []
    for points, code in path.iter_segments():
        # Heights count upwards here and downwards in a page, both from the line of the text.
        numbers = (f"{n:.0f}" for x, y in points.reshape(-1, 2) for n in (x, -y))
        steps.append(f"{_LETTERS[code]}{' '.join(numbers)}" if code in _LETTERS else "Z")
    return (
        f'<svg class="formula" role="img" aria-label="{escape(tex)}" '
        f'viewBox="{box.x0:.0f} {-box.y1:.0f} {box.width:.0f} {box.height:.0f}" '
        f'style="height:{box.height / _EM:.2f}em;vertical-align:{box.y0 / _EM:.2f}em">'
        f'<path fill="currentColor" d="{"".join(steps)}"/></svg>&#8288;'  # no break before a comma
    )


def to_slides(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook without code, cut into slides by nbconvert's metadata.

    A heading begins a slide, as does every text and every figure; sentences and tables stay below
    what they follow.
    """
    kept, part = [], ""
    for cell in chain.from_iterable(map(_pieces, deepcopy(notebook.cells))):
        shown = {_shown_as(output) for output in cell.get("outputs", [])}
        heading = re.match("#+ (.*)", cell.source) if cell.cell_type == "markdown" else None
        part = heading[1] if heading else part
        begins = cell.cell_type == "markdown" or "picture" in shown
        kind = "slide" if heading else "subslide" if begins else "-"
        cell.metadata |= {"slideshow": {"slide_type": kind}, "part": "" if heading else part}
        if not part.startswith(LEFT_OUT):
            kept.append(cell)
    return new_notebook(metadata=notebook.metadata, cells=kept)


def _pieces(cell: NotebookNode) -> list[NotebookNode]:
    """A text cut at its headings; a code cell with what it has to show, or nothing."""
    if cell.cell_type == "markdown":
        texts = re.split("^(?=##)", cell.source, flags=re.MULTILINE)
        return [new_markdown_cell(text) for text in texts if text.strip()]
    cell.outputs = list(filter(_shown_as, cell.outputs))
    return [cell] if cell.outputs else []


def _shown_as(output: NotebookNode) -> str:
    """What an output is on a slide: a "picture", "words" or nothing (code, plain text)."""
    data = output.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        return "picture"
    words = data.get("text/html") or data.get("text/markdown", "```")
    return "" if words.startswith("```") else "words"
