"""The tutorial's chapters as notebooks: made from the pages, and run as they stand."""

import importlib.util
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs/tutorial").glob("*.md"))


@pytest.fixture(scope="module")
def notebooks():
    """The script that makes them."""
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs/notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sources(notebook, kind):
    return [cell["source"] for cell in notebook.cells if cell["cell_type"] == kind]


def test_a_page_becomes_cells(notebooks, tmp_path):
    (tmp_path / "a.svg").write_text("<svg/>")
    page = tmp_path / "1-page.md"
    page.write_text(
        "# Title\n\nSee [two](2-b.md), [a guide](../guide/c.md), [it](https://a.b/c.md).\n\n"
        "```python\nprint(1)\n```\n\n<!-- numbers within 5 % -->\n```text\n1\n```\n\n"
        "![A picture](a.svg)\n\n<!-- not executed: a line -->\n```python\nf()\n```\n\n"
        "<!-- not executed: long -->\n```text\nsample\n```\n\n```sh\nls\n```\n\n"
        "```text\nkept\n```\n"
    )
    made = notebooks.notebook(page)
    nbformat.validate(made)
    assert sources(made, "code") == ["print(1)"]
    before, after = sources(made, "markdown")
    assert before == "# Title\n\nSee [two](2-b.ipynb), a guide, [it](https://a.b/c.md)."
    assert after == (
        "![A picture](attachment:a.svg)\n\n```python\nf()\n```\n\n```text\nsample\n```\n\n"
        "```sh\nls\n```\n\n```text\nkept\n```"
    )
    assert made.cells[-1]["attachments"] == {"a.svg": {"image/svg+xml": "PHN2Zy8+"}}


def test_all_chapters_are_written_the_same_each_time(notebooks, tmp_path):
    notebooks.write(tmp_path / "a")
    notebooks.write(tmp_path / "b")
    written = sorted((tmp_path / "a").iterdir())
    assert [file.stem for file in written] == [page.stem for page in PAGES]
    assert len(written) == 10
    for file in written:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
        for name in re.findall(r"\]\((\d+-[\w-]+\.ipynb)\)", file.read_text(encoding="utf-8")):
            assert (tmp_path / "a" / name).exists(), f"{file.name} links to {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_runs_as_it_stands(notebooks, page, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    made = notebooks.notebook(page)
    nbclient.NotebookClient(
        made, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = [
        output["text"]
        for cell in made.cells
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
        if output["output_type"] == "stream"
    ]
    assert printed
