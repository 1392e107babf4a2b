"""Language models as web pages: what the page has in it, and what a browser makes of it."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from anaphora import engine, interop, load
from anaphora.cli.app import app
from anaphora.data import CharacterTokenizer, WordTokenizer
from anaphora.interop.c.source import source_of
from anaphora.interop.network import network_of
from anaphora.interop.page import export, page_of
from anaphora.models import LanguageModel
from anaphora.nn import GRU
from anaphora.serve.switching import switches

pytest.importorskip("starlette")  # of the server, whose tests have a browser
pytest.importorskip("selenium")
from tests.serve.test_page import (
    WIDE,
    Keys,
    Page,
    Select,
    browser,  # noqa: F401
    browsing,
    contrast,
    window,
)

LIVE = Path(__file__).resolve().parents[2] / "docs" / "live"
COMPILER = shutil.which("clang") and shutil.which("wasm-ld")
compiling = pytest.mark.skipif(not COMPILER, reason="needs clang and wasm-ld")


def parts_of(page):
    """The WebAssembly of a page, and its facts."""
    text = page.read_text("utf-8")
    facts, wasm = re.findall(r'<script id="(?:facts|wasm)" type="[a-z/]*">(.*?)</script>', text)
    return base64.b64decode(wasm), json.loads(facts)


@pytest.fixture(scope="module")
def model():
    """The model of the site's page."""
    return load(LIVE / "model")


def read(model, text):
    """The scores [T, V] after each character, and the states, [T, H] each, of a session."""
    session = model.session()
    scores = [session.feed(id) for id in model.codec.encode("\n" + text)]
    session = model.session()
    states = []
    for id in model.codec.encode("\n" + text):
        session.feed(id)
        states.append({k: v.copy() for k, v in session.state_dict().items()})
    values = {f"{name}_l0": np.array([one[name][0] for one in states]) for name in ("h", "c")}
    return np.array(scores)[1:], {
        name: array[1:].reshape(len(text), -1) for name, array in values.items()
    }


def shares_of(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


# What needs no browser


def test_the_page_of_the_site_is_that_of_its_model(model):
    page = LIVE / "writer.html"
    wasm, facts = parts_of(page)
    source = source_of(network_of(model), "model")
    assert page.read_text("utf-8") == page_of(wasm, facts)
    assert facts["characters"] == list(model.codec.characters)
    assert facts["opening"] == [facts["characters"].index("\n")]
    assert facts["unknown"] is None
    assert facts["states"] == [["h_l0", 176], ["c_l0", 176]] == [list(s) for s in source.states]
    assert f"{source.products:,} multiply-adds per character, weights in int8" in facts["model"]
    assert page.stat().st_size < 300_000


def test_the_page_asks_for_nothing_and_makes_no_html():
    page = (LIVE / "writer.html").read_text("utf-8")
    assert not re.search(r"https?:|src=|@import|fetch|XMLHttp", page)
    assert "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval';" in page
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in page


NODE = """
const fs = require("fs");
const [ids, states, outputs] = JSON.parse(fs.readFileSync(0));
const file = fs.readFileSync(process.argv[2]);
const c = new WebAssembly.Instance(new WebAssembly.Module(file)).exports;
const state = c.__heap_base.value + 63 & ~63, scores = state + 4 * states;
while (c.memory.buffer.byteLength < scores + 4 * outputs) c.memory.grow(1);
c.model_reset(state);
const found = ids.map((id) => {
    c.model_step(state, id, scores);
    return [[state, states], [scores, outputs]].map(
        ([at, size]) => [...new Float32Array(c.memory.buffer, at, size)]);
});
fs.writeSync(1, JSON.stringify(found));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_the_model_in_the_page_computes_what_a_session_computes(model, tmp_path):
    wasm, _ = parts_of(LIVE / "writer.html")
    (tmp_path / "model.wasm").write_bytes(wasm)
    (tmp_path / "run.js").write_text(NODE)
    text = "KING HENRY:\nWhat say'st thou, my lord?\n\n"
    ids = [int(id) for id in model.codec.encode("\n" + text)]
    done = subprocess.run(
        ["node", str(tmp_path / "run.js"), str(tmp_path / "model.wasm")],
        input=json.dumps([ids, 352, 65]), capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)[1:]
    scores, states = read(model, text)
    expected = np.concatenate([states["h_l0"], states["c_l0"]], axis=1)
    info = engine.info()
    exact = info["engine"] == "native" and info["instruction_set"] != "baseline"  # fuses too
    tolerance = 0 if exact else 0.05
    assert np.abs(np.array([one[0] for one in found], np.float32) - expected).max() <= tolerance
    assert np.abs(np.array([one[1] for one in found], np.float32) - scores).max() <= tolerance


def test_what_cannot_be_a_page_is_explained(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"a page is for language models, not for GRU"):
        interop.export(GRU(3, 4), tmp_path / "page.html")
    words = LanguageModel(4, hidden_size=3)
    words.codec = WordTokenizer.fit(["to be\n"])
    with pytest.raises(ValueError, match=r"this model reads other tokens: .*--level char"):
        export(words, tmp_path / "page.html")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    done = CliRunner().invoke(app, ["export", str(LIVE / "model"), str(tmp_path / "page.html")])
    assert done.exit_code == 1
    assert "clang and wasm-ld, of LLVM 14 or later" in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


@compiling
def test_a_page_is_exported(tmp_path):
    out = tmp_path / "my page.html"
    done = CliRunner().invoke(app, ["export", str(LIVE / "model"), str(out), "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record == {
        "out": str(out), "format": "page", "weights": "int8", "bytes": out.stat().st_size,
        "wasm_bytes": len(parts_of(out)[0]),
    }  # fmt: skip
    assert parts_of(out)[1] == parts_of(LIVE / "writer.html")[1]


# In the browser


@pytest.fixture
def page(browser):  # noqa: F811
    page = Page(browser, "about:blank")
    browser.get((LIVE / "writer.html").as_uri())
    page.wait(lambda: len(page.text) == 300)
    return page


def colors(page):
    """The signed strength of the colour of each character."""
    found = page.browser.execute_script(
        "return [...mirror.children].filter((one) => one.textContent != '\\u200b')"
        ".map((one) => one.style.backgroundColor)"
    )
    numbers = [[float(part) for part in re.findall(r"[\d.]+", one)] for one in found]
    return [(1 if one[2] > one[0] else -1) * [*one, 1.0][3] for one in numbers]


def guesses(page):
    return [tuple(one.text.split("\n")) for one in page.buttons("guesses")]


def replace(page, text):
    page.press(Keys.CONTROL, "a")
    page.paste("text", text)


def uniforms(count, seed=1):
    """The numbers of the page (mulberry32)."""
    mask = 0xFFFFFFFF
    for _ in range(count):
        seed = (seed + 0x6D2B79F5) & mask
        t = (seed ^ (seed >> 15)) * (seed | 1) & mask
        t ^= (t + ((t ^ (t >> 7)) * (t | 61) & mask)) & mask
        yield ((t ^ (t >> 14)) & mask) / 2**32


@browsing
def test_it_writes_what_the_model_writes_and_asks_for_nothing(page, model):
    session = model.session()
    written = session.generate(model.codec.encode("\n"), list(uniforms(300)), temperature=0.6)
    assert page.text == model.codec.decode(written)
    resources = "return performance.getEntriesByType('resource').map(one => one.name)"
    assert page.browser.execute_script(resources) == []
    page.find("write").click()
    page.wait(lambda: len(page.text) > 320)
    page.find("write").click()  # stop
    length = len(page.text)
    assert page.text_of("write") == "Write"
    assert len(colors(page)) == length < 700
    page.find("clear").click()
    assert page.text == ""
    page.check()


@browsing
def test_bars_are_the_probabilities_of_the_next_character(page, model):
    for text in ("ROMEO:\nO, sp", ""):
        if text:
            replace(page, text)
        else:
            page.find("clear").click()
        scores = (
            read(model, text)[0][-1] if text else model.session().feed(model.codec.encode("\n")[0])
        )
        shares = shares_of(np.asarray(scores, np.float64))
        best = np.argsort(-shares, kind="stable")[:10]
        page.wait(lambda: len(guesses(page)) == 10)
        shown = [float(share.split()[0]) / 100 for _, share in guesses(page)]
        assert shown == pytest.approx(list(shares[best]), abs=0.0051)
        character = model.codec.characters[best[0]].replace("\n", "↵").replace(" ", "␣")
        assert guesses(page)[0][0] == character
    replace(page, "ROMEO:\nO, sp")
    page.buttons("guesses")[0].click()
    scores, _ = read(model, "ROMEO:\nO, sp")
    assert page.text == "ROMEO:\nO, sp" + model.codec.characters[int(scores[-1].argmax())]
    page.check()


@browsing
def test_the_text_is_coloured_by_the_unit_that_is_chosen(page, model):
    text = "JULIET:\nGood night, good night!\n"
    replace(page, text)
    _, states = read(model, text)
    for state, unit in (("c_l0", 104), ("h_l0", 7), ("c_l0", 3)):
        Select(page.find("colour")).select_by_value(state)
        page.set("unit", unit)
        row = states[state][:, unit]
        expected = 0.75 * row / np.abs(row).max()
        page.wait(lambda expected=expected: colors(page) == pytest.approx(expected, abs=0.01))
    page.press("x")  # a longer text has another scale, and the same colours otherwise
    row = read(model, text + "x")[1]["c_l0"][:, 3]
    assert colors(page) == pytest.approx(0.75 * row / np.abs(row).max(), abs=0.01)
    Select(page.find("colour")).select_by_value("")
    scores, _ = read(model, text)
    bits = [-np.log2(shares_of(s)[model.codec.characters.index(k)])
            for s, k in zip(scores, text[1:] + "x", strict=True)]  # fmt: skip
    shown = [abs(one) for one in colors(page)[1:]]
    assert shown == pytest.approx(np.minimum(0.75, np.array(bits) / 14), abs=0.01)
    assert page.text_of("legend").startswith("the stronger the colour")
    page.check()


@browsing
def test_units_that_follow_the_text_are_found(page, model):
    text = "JULIET:\nGood night, good night!\n\nROMEO:\nSleep dwell upon thine eyes, peace\n"
    replace(page, text)
    _, states = read(model, text)
    columns = [len(text[: k + 1].rsplit("\n", 1)[-1]) for k in range(len(text))]
    every = np.concatenate([states["h_l0"], states["c_l0"]], axis=1)
    r = np.corrcoef(every.T, columns)[-1, :-1]
    best = int(np.abs(r).argmax())
    name = f"{'h_l0' if best < 176 else 'c_l0'}[{best % 176}] position in the line, {r[best]:.2f}"
    page.wait(lambda: name in page.text_of("following"))
    button = next(one for one in page.buttons("following") if one.text == name)
    button.click()
    row = every[:, best]
    assert colors(page) == pytest.approx(0.75 * row / np.abs(row).max(), abs=0.01)


@browsing
def test_a_selection_finds_the_units_that_switch_in_it(page, model):
    text = "JULIET:\nGood night, good night!\n"
    replace(page, text)
    select = "arguments[0].setSelectionRange(0, 7); arguments[0].dispatchEvent(new Event('select'))"
    page.browser.execute_script(select, page.find("text"))
    page.wait(lambda: page.find("selection").is_displayed() and page.buttons("switching"))
    found = [one.text.split()[0] for one in page.buttons("switching")]
    _, states = read(model, text)
    expected = switches(states, 0, 7)
    assert found == [f"{one.value}[{one.unit}]" for one in expected]


@browsing
def test_characters_that_the_model_lacks_are_told_and_skipped(page, model):
    replace(page, "to Ωbe")
    page.wait(lambda: "The model does not know “Ω”" in page.text_of("message"))
    shares = shares_of(read(model, "to be")[0][-1])
    assert float(guesses(page)[0][1].split()[0]) / 100 == pytest.approx(shares.max(), abs=0.0051)
    replace(page, "<img src=x onerror=alert(1)>")
    assert page.browser.execute_script("return document.images.length") == 0
    replace(page, "to be")
    page.wait(lambda: page.text_of("message") == "")
    page.set("temperature", "-1")
    page.find("write").click()
    assert page.text_of("message") == "Temperature: expected a number from 0 to 5."
    assert page.text == "to be"


@browsing
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_narrow_and_wide_light_and_dark(page, width, scheme):
    with window(page, width, scheme):
        wide = page.browser.execute_script(WIDE)
        found = page.browser.execute_script(
            "const of = (id) => getComputedStyle(document.getElementById(id));"
            "return [of('mirror').color, of('editor').backgroundColor, of('help').color,"
            " getComputedStyle(document.body).backgroundColor, of('write').backgroundColor,"
            " of('write').color, ...[...mirror.children].map(one => one.style.backgroundColor)]"
        )
        page.screenshot(f"writer-{scheme}-{width}")
    text, box, faint, body, button, label, *marks = (
        np.array([float(part) for part in re.findall(r"[\d.]+", one)] + [1.0])[:4] for one in found
    )
    assert wide <= width
    assert (body[0] > 128) == (scheme == "light")
    assert contrast(faint, body) > 4.5
    assert contrast(button, label) > 4.5
    shown = [mark[3] * mark[:3] + (1 - mark[3]) * box[:3] for mark in marks]
    assert min(contrast(text, color) for color in shown) > 4.5


@browsing
@compiling
def test_a_model_of_two_layers_with_unknown_characters(browser, tmp_path):  # noqa: F811
    model = LanguageModel(6, hidden_size=5, num_layers=2, cell="gru", initialization=1.0).eval()
    out = tmp_path / "page.html"
    model.codec = CharacterTokenizer("abcé\ufffd😀")
    export(model, out)
    page = Page(browser, "about:blank")
    browser.get(out.as_uri())
    page.wait(lambda: len(page.text) >= 300)
    text = "a😀xé\n"
    replace(page, text)
    page.wait(lambda: len(colors(page)) == 5)
    assert page.text_of("message") == ""
    scores = model.session().feed(model.codec.encode(text))[-1]
    best = int(np.argmax(scores))
    assert guesses(page)[0] == (
        model.codec.characters[best],
        f"{100 * shares_of(scores)[best]:.{1 if shares_of(scores)[best] < 0.0995 else 0}f} %",
    )
    page.check()
