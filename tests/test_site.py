"""docs/check.py finds what is wrong with a site, and docs/hooks.py sets formulas."""

import importlib.util
import io
import re
import shutil
import sys
import types
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


def loaded(name):
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = loaded("check")

GOOD = """<!doctype html><title>{title}</title><link rel="stylesheet" href="{up}style.css">
<link rel="icon" href="data:,"><body>
<h1 id="top">{title}</h1><a href="{up}index.html#top">start</a> <a href="{up}guide/a.html">a</a>
<a href="https://example.org">elsewhere</a> <img src="{up}dot.svg" alt="a dot">
"""
DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>'


@pytest.fixture
def site(tmp_path):
    """A small site in which nothing is wrong."""
    (tmp_path / "guide").mkdir()
    (tmp_path / "dot.svg").write_text(DOT)
    (tmp_path / "style.css").write_text("body { color: black; background: url(dot.svg) }")
    (tmp_path / "index.html").write_text(GOOD.format(title="Start", up=""))
    (tmp_path / "guide" / "a.html").write_text(GOOD.format(title="A", up="../"))
    return tmp_path


def test_a_site_in_which_nothing_is_wrong_passes(site):
    assert list(check.problems_of_files(site)) == []


def test_an_empty_folder_is_no_site(tmp_path):
    assert list(check.problems_of_files(tmp_path)) == [f"{tmp_path} has no pages"]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<a href="b.html">', "index.html: b.html leads nowhere"),
        ('<a href="guide/">', "index.html: guide/ leads nowhere"),
        ('<a href="#end">', "index.html: #end names a place that index.html does not have"),
        ('<a href="guide/a.html#b">', "guide/a.html#b names a place that a.html does not have"),
        ('<a href="/index.html">', "/index.html does not work from the disk"),
        ('<img src="dot.svg">', "index.html: the picture dot.svg has no alternative text"),
        ('<img src="dot.svg" alt=" ">', "the picture dot.svg has no alternative text"),
        ('<img src="gone.png" alt="a">', "gone.png, which it loads, does not exist"),
        ('<script src="https://cdn.example.org/a.js"></script>', "is loaded from outside"),
        ('<script src="//cdn.example.org/a.js"></script>', "is loaded from outside"),
        ('<link rel="preconnect" href="https://fonts.example.org">', "is loaded from outside"),
        ("<!--" + 1_000_000 * "x" + "-->", "bytes with what it loads; at most 1,000,000"),
    ],
)
def test_what_is_wrong_with_a_page_is_named(site, html, expected):
    page = site / "index.html"
    page.write_text(page.read_text() + html)
    (problem,) = check.problems_of_files(site)
    assert expected in problem


def test_what_a_page_loads_counts(site):
    (site / "dot.svg").write_text(DOT + 1_000_000 * " ")
    assert len(list(check.problems_of_files(site))) == 2  # both pages show it


@pytest.mark.parametrize(
    "rule", ["p { background: url('https://a.example/b.png') }", '@import "//a.example/b.css";']
)
def test_style_sheets_load_nothing_from_outside(site, rule):
    (site / "style.css").write_text(rule)
    (problem,) = check.problems_of_files(site)
    assert problem.startswith("style.css: ")
    assert problem.endswith("is loaded from outside")


def test_a_search_that_reads_too_much_is_named(site):
    (site / "search").mkdir()
    (site / "search" / "search_index.js").write_text(1_000_001 * "x")
    assert list(check.problems_of_files(site)) == [
        "the search reads 1,000,001 bytes; at most 1,000,000"
    ]


SIGNATURE = '<h3 id="{name}"></h3><div class="doc-signature highlight">f({arguments})</div>'


@pytest.fixture
def package(monkeypatch):
    """A module with two functions."""
    module = types.ModuleType("letters")
    module.__all__ = ["alpha", "beta"]
    module.alpha = lambda first, *rest, second=2: None
    module.beta = lambda third: None
    monkeypatch.setitem(sys.modules, "letters", module)


def reference(site, **shown):
    (site / "reference").mkdir()
    text = "".join(
        SIGNATURE.format(name=f"letters.{name}", arguments=arguments)
        for name, arguments in shown.items()
    )
    (site / "reference" / "letters.html").write_text(text)
    return list(check.problems_of_reference(site, ["letters"]))


@pytest.mark.usefixtures("package")
def test_a_reference_with_every_argument_passes(site):
    assert reference(site, alpha="first, *rest, second=2", beta="<b>third</b>") == []


@pytest.mark.usefixtures("package")
def test_an_argument_that_the_reference_omits_is_named(site):
    assert reference(site, alpha="first", beta="third") == [
        "the reference omits second of letters.alpha"
    ]


@pytest.mark.usefixtures("package")
def test_an_export_that_the_reference_omits_is_named(site):
    assert reference(site, beta="third") == ["the reference does not show letters.alpha"]


@pytest.mark.parametrize("package", check.PACKAGES)
def test_the_reference_names_every_export_once(package):
    module = pytest.importorskip(package)
    pages = "\n".join(page.read_text() for page in sorted((DOCS / "reference").glob("*.md")))
    named = re.findall(r"^::: (\S+)$", pages, re.MULTILINE)
    for name in module.__all__:
        path = f"{package}.{name}"
        assert named.count(path) + named.count(f"{path}.{name}") == 1, f"{path} in docs/reference"


def test_the_reference_begins_with_what_people_use():
    nn = (DOCS / "reference" / "nn.md").read_text()
    layers = (DOCS / "reference" / "layers.md").read_text()
    assert re.findall(r"^::: anaphora\.nn\.(\w+)$", nn, re.MULTILINE)[:3] == ["LSTM", "GRU", "RNN"]
    assert layers.index("nn.Linear") < layers.index("nn.AdditiveAttention")
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    assert navigation.index("reference/nn.md") < navigation.index("reference/layers.md")


# In a browser


@pytest.fixture(scope="module")
def browser():
    if missing := check.missing_for_browser():
        pytest.skip(f"needs {missing}")
    with check.Browser() as opened:
        yield opened


def found(browser, site):
    path = site / "index.html"
    return list(check.problems_of_page(browser, path.as_uri(), path.name))


def test_a_good_page_passes_in_a_browser(site, browser):
    assert found(browser, site) == []


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<script>console.error('no luck')</script>", "index.html: the console says"),
        ("<script>null.f()</script>", "Cannot read properties of null"),
        ("<script>fetch('http://example.org/a')</script>", "index.html: asked for http://example"),
        ("<div style='width: 500px'>a</div>", "500 pixels wide in a window of 400"),
        ("<img src='style.css' alt='a'>", "style.css cannot be shown"),
        (
            "<script>document.body.dataset.mdColorScheme = 'default'</script>",
            "shown as default to a reader who prefers dark",
        ),
    ],
)
def test_what_a_page_does_wrong_in_a_browser_is_named(site, browser, html, expected):
    page = site / "index.html"
    page.write_text(page.read_text() + "<style>body { margin: 0 }</style>" + html)
    assert any(expected in problem for problem in found(browser, site))


DARK = """<!doctype html><style>
body {{ margin: 0; background: #1e2129 }} img {{ display: block }}
</style><style>{style}</style>
<body data-md-color-scheme="slate"><div class="md-typeset">
<img src="diagram.svg" alt="a"><img src="page-a.svg" alt="a"></div>
"""
WHITE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="60">'
    '<rect width="60" height="60" fill="white"/><rect width="20" height="60" fill="#0072b2"/></svg>'
)


def test_pictures_have_the_background_of_a_dark_page(tmp_path, browser):
    pixels = pytest.importorskip("matplotlib.image")
    style = (DOCS / "assets" / "site.css").read_text()
    (tmp_path / "index.html").write_text(DARK.format(style=style))
    for name in ("diagram.svg", "page-a.svg"):
        (tmp_path / name).write_text(WHITE)
    browser.look(400, "dark")
    browser.driver.get((tmp_path / "index.html").as_uri())
    browser.wait("return [...document.images].every(image => image.naturalWidth)")
    png = browser.driver.get_screenshot_as_png()
    shown = (pixels.imread(io.BytesIO(png))[..., :3] * 255).round().astype(int)
    assert shown[30, 200].tolist() == [0x1E, 0x21, 0x29]  # beside them
    assert abs(shown[30, 40] - shown[30, 200]).max() <= 1
    red, green, blue = shown[30, 10]
    assert blue > green > red  # still blue, and lighter than the page
    assert blue > 200
    assert shown[90, 40].tolist() == [255, 255, 255]  # a screenshot of a page is left as it is


SEARCHING = """<body><input data-md-component="search-query"><script>
document.querySelector("input").addEventListener("keyup", event => {
  for (const page of ["guide/a.html", "guide/b.html"])
    document.body.insertAdjacentHTML(
      "beforeend", `<a class="md-search-result__link" href="${page}">${event.target.value}</a>`);
});
</script>"""


def test_a_search_that_finds_the_wrong_page_first_is_named(site, browser):
    (site / "index.html").write_text(SEARCHING)
    address = site.as_uri()
    assert list(check.problems_of_search(browser, address, {"x": "guide/a.html"})) == []
    (problem,) = check.problems_of_search(browser, address, {"x": "guide/b.html"})
    assert problem == "searching for 'x' gives guide/a.html, guide/b.html before guide/b.html"


def test_a_missing_browser_is_said(site, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(check, "PACKAGES", [])
    monkeypatch.setattr(sys, "argv", ["check.py", str(site)])
    assert check.main() == 0
    assert "skipped" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["check.py", str(site), "--browser"])
    assert check.main() == 1
    assert "no browser: chromium is missing" in capsys.readouterr().err


# Formulas


@pytest.fixture
def hooks():
    pytest.importorskip("math_core")
    pytest.importorskip("fontTools")
    return loaded("hooks")


def content(hooks, html, path="guide/a.md"):
    page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri=path), meta={})
    return hooks.on_page_content(html, page=page)


def test_formulas_become_mathml(hooks):
    inline = content(hooks, r'a <span class="arithmatex">\(h_t &lt; 1\)</span> b')
    assert inline.startswith("a <math>")
    assert "<msub><mi>h</mi><mi>t</mi></msub>" in inline
    assert "&lt;" in inline
    assert inline.endswith("</math> b")
    block = content(hooks, '<div class="arithmatex">\\[\\frac{1}{2}\\]</div>')
    assert block.startswith('<math display="block">')
    assert "<mfrac><mn>1</mn><mn>2</mn></mfrac>" in block


def test_a_formula_with_an_error_ends_the_build(hooks):
    math_core = pytest.importorskip("math_core")
    with pytest.raises(math_core.LatexError, match="nonsense"):
        content(hooks, r'<span class="arithmatex">\(\nonsense{x}\)</span>')


def test_examples_and_tables_of_the_reference_are_not_searched(hooks):
    html = '<div class="language-pycon highlight">1</div><div class="highlight">2</div><table>3'
    assert content(hooks, html) == html
    assert content(hooks, html, "reference/a.md").count("data-search-exclude") == 3


def test_pages_are_ranked_by_their_folders(hooks):
    def rank(path, **meta):
        page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri=path), meta=meta)
        hooks.on_page_markdown("", page=page)
        return page.meta["search"]

    assert rank("guide/a.md")["boost"] > rank("reference/a.md")["boost"]
    assert rank("reference/a.md", search={"boost": 9}) == {"boost": 9}
