"""Slides and pages: nothing is loaded, every link arrives, and no file of somebody else is lost."""

import base64
import io
import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from richsem.workbook.figures import pages


def output(**data):
    return new_output("display_data", data={k.replace("_", "/"): v for k, v in data.items()})


def picture():
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "png")
    return base64.b64encode(content.getvalue()).decode()


def executed(other="01_b"):
    figure = output(image_png=picture(), text_plain="a black square")
    figure.metadata = {"image/png": {"alt": "a black square"}}
    source = output(text_markdown="```python\ndef f():\n```")
    words = output(text_markdown="*Seen*.")
    return new_notebook(
        cells=[
            new_markdown_cell(f"# 00 - A\n\n$\\tau$ of [b]({other}.ipynb#end)"),
            new_code_cell("import a"),
            new_markdown_cell("## Parameters\n\nNone."),
            new_code_cell("SEED = 0"),
            new_markdown_cell("Before.\n\n### A part\n\n**Predict:** $$\\frac{1}{2}$$"),
            new_code_cell("show()", outputs=[new_output("stream", text="noise"), figure]),
            new_code_cell("show_source(f)", outputs=[source]),
            new_code_cell("say()", outputs=[words]),
            new_markdown_cell("## Exercises\n\n**1, compute.** What?"),
            new_markdown_cell("## What this run was made from"),
        ],
        metadata={"language_info": {"name": "python"}},
    )


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Executed copies of two notebooks that exist."""
    for name in ("00_start_here", "01_long_tail_data"):
        nbformat.write(executed("01_long_tail_data"), tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(pages, "EXECUTED", tmp_path)


def test_headings_texts_and_figures_begin_slides_and_code_stays_out():
    cells = pages.to_slides(executed()).cells
    kinds = [cell.metadata["slideshow"]["slide_type"] for cell in cells]
    assert kinds == ["slide", "slide", "subslide", "-"]
    assert [cell.metadata["part"] for cell in cells] == ["", "", "A part", "A part"]
    page = pages.slide_files({"00_a": executed()})["00_a.slides.html"]
    assert page.count("<section") == page.count("</section>") == 3
    assert "Seen" in page and "a black square" in page
    for absent in ("import a", "SEED", "def f", "noise", "1, compute"):
        assert absent not in page


def test_a_site_loads_nothing_and_every_link_arrives(copies, tmp_path, cli):
    folder = tmp_path / "site"
    assert "files in" in cli("course", "--site", "--only", "00", "01", "--out", folder).out
    found = {file.name: file.read_text("utf-8") for file in folder.glob("*.html")}
    assert {"index.html", "report.html", "METHOD.html", "00_start_here.slides.html"} <= set(found)
    dead = set()
    for name, text in found.items():
        page = BeautifulSoup(text, "html.parser")
        loaded = [tag["src"] for tag in page.find_all(src=True)]
        loaded += [tag["href"] for tag in page.find_all("link")]
        assert not [place for place in loaded if not place.startswith("data:")], name
        assert not page.find_all("img", alt=None) and len(text) < 2_000_000
        links = [tag["href"] for tag in page.find_all("a", href=True)]
        local = [link.partition("#")[0] for link in links if "://" not in link]
        dead |= {link for link in local if link and not (folder / link).is_file()}
        prose = re.sub("<pre.*?</pre>|<code.*?</code>|<svg.*?>", "", text)
        assert not re.search(r"\$\$|\$\\", prose)
    # The page of the course also leads to notebooks that this site was not asked for.
    assert not [link for link in dead if not re.fullmatch(r"\d\d_\w+\.html", link)]
    second = found["01_long_tail_data.html"]
    assert 'href="00_start_here.html" rel="prev"' in second and 'rel="next"' not in second
    assert 'href="01_long_tail_data.html#end"' in second


def test_nothing_is_written_where_somebody_elses_file_lies(copies, tmp_path, cli):
    folder = tmp_path / "class"
    folder.mkdir()
    (folder / "01_long_tail_data.ipynb").write_text("mine")
    command = ["course", "--edition", "student", "--only", "00", "01", "--out", folder]
    assert "was not written by this program" in cli(*command, code=2).err
    assert [file.name for file in folder.iterdir()] == ["01_long_tail_data.ipynb"]
    (folder / "01_long_tail_data.ipynb").unlink()
    for _ in range(2):  # its own files it replaces
        cli(*command)


@pytest.mark.parametrize(
    ("asked", "words"), [([], "say what to write"), (["--site", "--only", "02"], "no executed")]
)
def test_a_wrong_request_is_one_sentence(asked, words, copies, tmp_path, cli):
    assert words in cli("course", "--out", tmp_path / "x", *asked, code=2).err


def test_a_formula_is_drawn_in_the_line_and_says_what_it_is():
    drawn = pages.formula(r"a < \frac{1}{2}")
    assert 'aria-label="a &lt; \\frac{1}{2}"' in drawn and "vertical-align:-" in drawn
    assert re.search(r'd="M[-\d ]+[LQC]', drawn)
    with pytest.raises(ValueError, match="Unknown symbol"):
        pages.formula(r"\nonsense")
