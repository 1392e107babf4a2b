"""What the site adds to its pages: formulas as MathML, their font, and ranks for the search."""

import base64
import html
import importlib.metadata
import io
import re
from pathlib import Path
from typing import Any

from fontTools import subset
from math_core import LatexToMathML

FORMULA = re.compile(
    r'<(?:span|div) class="arithmatex">(\\[(\[])(.*?)\\[)\]]</(?:span|div)>', re.DOTALL
)
DETAIL = re.compile(r'<table|<div class="(?:language-\w+ )?highlight"')
RANKS = {"guide": 4.0, "tutorial": 2.0, "reference": 0.5}
"""What a match in a page of each folder counts: a guide explains what a reference only lists."""

CHARACTERS = (
    (0x20, 0x7E), (0x2BC, 0x2DD), (0x300, 0x338), (0x391, 0x3F5), (0x2010, 0x2057),
    (0x2100, 0x214F), (0x2190, 0x2199), (0x21D0, 0x21D4), (0x2200, 0x22FF), (0x2308, 0x230B),
    (0x23B0, 0x23E1), (0x27E8, 0x27E9), (0x1D400, 0x1D467), (0x1D6A8, 0x1D71B),
)  # fmt: skip
"""The font's characters that the site has: Latin, Greek, operators, arrows, bold and italic."""

to_mathml = LatexToMathML(fancy_error=False, annotation=True)


def formula(found: re.Match) -> str:
    """A formula as MathML, which browsers set without a script; errors end the build."""
    latex = html.unescape(found[2]).strip()
    return to_mathml.convert_with_local_state(latex, displaystyle=found[1] == r"\[")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> None:
    """Rank a page by its folder, unless it says otherwise itself."""
    folder = page.file.src_uri.split("/")[0]
    page.meta.setdefault("search", {}).setdefault("boost", RANKS.get(folder, 1.0))


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Set formulas; examples and tables of the reference, half of it, are not searched."""
    content = FORMULA.sub(formula, content)
    if page.file.src_uri.startswith("reference/"):
        content = DETAIL.sub(r"\g<0> data-search-exclude", content)
    return content


def on_post_build(*, config: Any, **_: Any) -> None:
    """Write the font of the formulas into a style sheet, which works from the disk too."""
    (path,) = (
        file.locate()
        for file in importlib.metadata.files("ziamath")
        if file.name == "STIXTwoMath-Regular.ttf"
    )
    options = subset.Options(flavor="woff", hinting=False)
    font = subset.load_font(path, options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[c for first, last in CHARACTERS for c in range(first, last + 1)])
    subsetter.subset(font)
    written = io.BytesIO()
    subset.save_font(font, written, options)
    data = base64.b64encode(written.getvalue()).decode()
    Path(config["site_dir"], "assets/formulas.css").write_text(
        "/* STIX Two Math, under the SIL Open Font License 1.1 */\n"
        f'@font-face {{ font-family: "STIX Two Math"; src: url(data:font/woff;base64,{data}); }}\n'
        'math { font-family: "STIX Two Math"; }\n'
    )
