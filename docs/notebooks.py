"""The tutorial's chapters as notebooks: `python docs/notebooks.py [FOLDER]`, and with the site.

The pages are the source, so that there is nothing to keep in step: a block of Python is a cell,
the text between blocks is another, and pictures travel inside the notebook. Outputs are left out,
since running the notebook makes them.
"""

import base64
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CHAPTERS = sorted(
    Path(__file__).parent.glob("tutorial/*.md"), key=lambda page: int(page.stem.split("-")[0])
)
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```\n", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (not executed|numbers within).*? -->\n\Z")
_PICTURE = re.compile(r"!\[([^]]*)\]\(([^):]+)\)")
_LINK = re.compile(r"\[([^]]*)\]\((?!https?:|attachment:)([^)]+)\)")
_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def notebook(page: Path) -> NotebookNode:
    """The notebook of one chapter."""
    cells: list[NotebookNode] = []
    prose, end, after_code = "", 0, False
    source = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(source):
        prose += source[end : fence.start()]
        end = fence.end()
        comment = _COMMENT.search(prose)
        kept = comment is not None and comment[1] == "not executed"
        prose = _COMMENT.sub("", prose)
        if fence[2] == "python" and not kept:
            cells += _markdown(prose, page.parent)
            cells.append(new_code_cell(fence[3].strip()))
            prose, after_code = "", True
            continue
        if fence[2] != "text" or kept or not after_code:
            prose += fence[0]
        after_code = False
    cells += _markdown(prose + source[end:], page.parent)
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # the same page, the same bytes
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _markdown(prose: str, folder: Path) -> list[NotebookNode]:
    """A cell of text, if there is any, with the pictures that it shows."""
    if not prose.strip():
        return []
    attachments = {}
    for _, name in _PICTURE.findall(prose):
        data = base64.b64encode((folder / name).read_bytes()).decode()
        attachments[name] = {_TYPES[Path(name).suffix]: data}
    prose = _PICTURE.sub(r"![\1](attachment:\2)", prose)
    cell = new_markdown_cell(_LINK.sub(_linked, prose).strip())
    if attachments:
        cell["attachments"] = attachments
    return [cell]


def _linked(link: re.Match[str]) -> str:
    """A link to another chapter leads to its notebook; pages outside of the tutorial are named."""
    text, target = link[1], link[2]
    return text if "/" in target else f"[{text}]({target.replace('.md', '.ipynb')})"


def write(folder: Path) -> None:
    """Write the notebooks of all chapters into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in CHAPTERS:
        nbformat.write(notebook(page), folder / f"{page.stem}.ipynb")


# Hooks of MkDocs: a link on each chapter's page, and the notebook beside it.


def on_page_markdown(markdown, page, config, files):  # noqa: D103
    path = Path(page.file.src_uri)
    if path.parent.name != "tutorial":
        return markdown
    title, _, rest = markdown.partition("\n")
    link = f'<a href="{path.stem}.ipynb" download>This chapter as a notebook</a>'
    return f"{title}\n\n{link}\n{rest}"


def on_post_build(config):  # noqa: D103
    write(Path(config["site_dir"], "tutorial"))


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "build/notebooks"))
