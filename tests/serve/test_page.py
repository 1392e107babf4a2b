"""The page, in a real browser: Debian's chromium, driven by selenium."""

import contextlib
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.serve.conftest import TEXT, Client, save

from anaphora import random
from anaphora.data import BPETokenizer, CharacterTokenizer, WordTokenizer
from anaphora.generation import Sampler, generate, next_tokens
from anaphora.models import LanguageModel
from anaphora.ops import log_softmax
from anaphora.plot.sequences import recorded_values
from anaphora.serve import Access, ServedModel, Server, running
from anaphora.serve.inside import inside
from anaphora.serve.inspect import connectivity
from anaphora.serve.page import FILES
from anaphora.serve.switching import places, switches
from anaphora.tensor import no_grad

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = os.environ.get("ANAPHORA_SCREENSHOTS")  # a folder for pictures of the page
TRAINED = os.environ.get("ANAPHORA_SCREENSHOTS_MODEL")  # a character model, for those of the docs

try:
    from selenium import webdriver
    from selenium.common import StaleElementReferenceException
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait
except ModuleNotFoundError:
    webdriver = None

browsing = pytest.mark.skipif(
    webdriver is None or CHROMIUM is None or DRIVER is None,
    reason="needs chromium, chromedriver and the package selenium",
)


# What needs no browser


def test_files_are_served_with_a_policy_that_allows_nothing_from_outside(client):
    for path, (_, media_type) in FILES.items():
        status, headers, body = client.send(path)
        assert status == 200
        assert headers["Content-Type"].split(";")[0] == media_type
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert not re.search(rb"https?:", body)


def test_the_script_never_makes_html_of_a_text(client):
    _, _, script = client.send("/page.js")
    assert b"textContent" in script
    for word in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval("):
        assert word not in script


# In the browser


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_window_size(1280, 900)
    yield driver
    driver.quit()


class Page:
    """The page as a user has it."""

    def __init__(self, browser, address):
        self.browser, self.address = browser, address
        browser.get_log("browser")  # what other pages said
        browser.get(address)

    def find(self, id):
        return self.browser.find_element(By.ID, id)

    def wait(self, condition):
        """The first value of a function that is true."""
        redrawn = [StaleElementReferenceException]
        return WebDriverWait(self.browser, 30, 0.02, redrawn).until(lambda browser: condition())

    def text_of(self, id):
        return self.find(id).get_property("textContent")

    @property
    def text(self):
        return self.find("text").get_property("value")

    @property
    def ghost(self):
        return self.text_of("ghost")

    def press(self, *keys):
        self.find("text").send_keys(*keys)

    def paste(self, id, text):
        """Put a text in the place of what is selected."""
        self.browser.execute_script(
            "const field = document.getElementById(arguments[0]); field.focus();"
            "document.execCommand('insertText', false, arguments[1])",
            id,
            text,
        )

    def set(self, id, value):
        field = self.find(id)
        field.clear()
        field.send_keys(str(value), Keys.ENTER)

    def buttons(self, id):
        return self.find(id).find_elements(By.TAG_NAME, "button")

    def colors(self):
        """The characters that were read, and the opacity of their colours."""
        found = self.browser.execute_script(
            "return [...document.querySelectorAll('#tokens span')]"
            ".map(one => [one.textContent, one.style.backgroundColor])"
        )
        return [(text, float([*re.findall(r"[\d.]+", color), "1"][3])) for text, color in found]

    def check(self):
        """No errors: neither shown nor in the console."""
        assert self.text_of("message") == ""
        log = self.browser.get_log("browser")
        assert [one for one in log if "getImageData" not in one["message"]] == []  # of `painted`

    def screenshot(self, name):
        if SCREENSHOTS:
            from PIL import Image  # matplotlib needs it too

            path = Path(SCREENSHOTS) / f"{name}.png"
            self.browser.save_screenshot(str(path))
            with Image.open(path) as image:  # a third of the size, with a palette
                image.convert("RGB").quantize(255, dither=Image.Dither.NONE).save(path)


WIDE = "return document.documentElement.scrollWidth"


@contextlib.contextmanager
def window(page, width, scheme="light"):
    """A window of a width, in light or dark colours."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        yield
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture
def open_page(serve, browser):
    """Opens a page of a server of some models."""

    def opened(names=("characters",), **options):
        return Page(browser, serve(names, **options).address)

    return opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose continuations differ with every character."""
    tokenizer = CharacterTokenizer.fit(TEXT)
    random.seed(5)
    sizes = {"hidden_size": 16, "num_layers": 2, "initialization": 3.0}
    model = LanguageModel(tokenizer.vocabulary_size, **sizes).eval()
    texts = ("to be", "to bi", "to be or", "to be or not", "t")
    assert len({continued_by(model, tokenizer, text) for text in texts}) == len(texts)
    return save(tmp_path_factory.mktemp("page") / "model", model, tokenizer)


@pytest.fixture
def page(browser, folder):
    """A page with a short prompt, greedy."""
    with running(Server([ServedModel.load(folder, "characters")])) as address:
        yield written(Page(browser, address))


def written(page):
    page.wait(lambda: page.find("writer").is_displayed())
    page.set("temperature", 0)
    page.set("length", 12)
    page.press("to be")
    page.wait(lambda: page.ghost and len(page.colors()) == 5)
    return page


@pytest.fixture(scope="module")
def model(folder):
    return LanguageModel.load(folder)


def continued(model, text, length=12, **options):
    return continued_by(model, model.codec, text, length, **options)


def continued_by(model, tokenizer, text, length=12, **options):
    options = {"temperature": 0.0, **options}
    return "".join(generate(model, tokenizer, text, length, Sampler(**options)))[len(text) :]


@browsing
def test_the_grey_text_is_what_the_model_goes_on_with(page, model):
    expected = continued(model, "to be")
    page.wait(lambda: page.ghost == expected)
    page.screenshot("write")
    page.press(Keys.TAB)
    assert page.text == "to be" + expected
    page.wait(lambda: page.ghost == continued(model, page.text))
    page.press(Keys.ESCAPE)
    assert page.ghost == ""
    page.check()


@browsing
def test_a_word_of_the_grey_text_is_taken_and_the_rest_stays(page, model):
    expected = continued(model, "to be")
    page.wait(lambda: page.ghost == expected)
    word = re.match(r"\s*\S*", expected)[0]
    page.press(Keys.CONTROL, Keys.ARROW_RIGHT)
    assert page.text == "to be" + word
    page.wait(lambda: page.ghost)
    assert (page.text + page.ghost).startswith("to be" + expected)
    page.check()


@browsing
def test_typing_what_is_grey_keeps_it_and_what_is_not_makes_another(page, model):
    page.wait(lambda: page.ghost == continued(model, "to be"))
    page.press(page.ghost[0])
    assert page.ghost == continued(model, "to be")[1:]
    other = "q" if page.ghost[0] != "q" else "b"
    page.press(other)
    page.wait(lambda: page.ghost == continued(model, page.text))
    page.check()


@browsing
def test_the_list_of_next_tokens_has_their_probabilities(page, model):
    expected = next_tokens(model, model.codec, "to be", 10)
    buttons = page.wait(lambda: page.buttons("guesses"))
    shown = [button.text.split("\n") for button in buttons]
    names = {" ": "␣", "\n": "↵"}
    assert [one[0] for one in shown] == [names.get(one.token, one.token) for one in expected]
    for (_, share), one in zip(shown, expected, strict=True):
        assert float(share.removesuffix(" %")) == pytest.approx(100 * one.probability, abs=0.51)
    buttons[2].click()
    assert page.text == "to be" + expected[2].token
    page.check()


@browsing
def test_the_text_is_coloured_by_surprise_wherever_one_types(page, model):
    def matches():
        found = page.colors()
        ids = model.codec.encode(page.text)
        with no_grad():
            outputs, _ = model.recurrent(model.embedding(ids))
            scores = log_softmax(model.output(outputs)).data
        surprises = [0.0, *(-scores[np.arange(len(ids) - 1), ids[1:]] / np.log(2))]
        expected = [min(0.75, bits / 14) for bits in surprises]
        return [text for text, _ in found] == list(page.text) and [
            alpha for _, alpha in found
        ] == pytest.approx(expected, abs=0.01)

    assert page.wait(matches)
    page.press(" or not")
    assert page.wait(matches)
    page.press(Keys.HOME, "that ", Keys.DELETE, Keys.END, Keys.BACKSPACE, "d")
    assert page.text == "that o be or nod"
    assert page.wait(matches)
    page.press(Keys.CONTROL, "a")
    page.press(Keys.DELETE)
    page.wait(lambda: [text for text, _ in page.colors()] == [""])  # the line end before a text
    page.check()


@browsing
def test_continuations_side_by_side_are_those_of_the_seed(page, model):
    page.set("temperature", 1.5)
    page.set("count", 4)
    page.set("seed", 7)
    expected = [continued(model, "to be", temperature=1.5, seed=7 + k) for k in range(4)]
    shown = page.wait(
        lambda: [b.get_property("textContent") for b in page.buttons("continuations")] == expected
    )
    assert shown
    page.find("again").click()
    page.wait(lambda: page.ghost == expected[1])
    page.buttons("continuations")[2].click()
    assert page.text == "to be" + expected[3]
    page.check()


def choose(page, value, unit):
    Select(page.find("colour")).select_by_value(value)
    page.set("unit", unit)


def coloured_by(page, row):
    """Whether the text has the colours of these values."""
    found = page.browser.execute_script(
        "return [...document.querySelectorAll('#tokens span')]"
        ".map(one => one.style.backgroundColor)"
    )
    numbers = [[float(part) for part in re.findall(r"[\d.]+", one)] for one in found]
    signs = [1.0 if color[2] > color[0] else -1.0 for color in numbers]
    shown = [s * ([*color, 1.0][3]) for s, color in zip(signs, numbers, strict=True)]
    return shown == pytest.approx(0.75 * row / abs(row).max(), abs=0.01)


@browsing
def test_the_text_is_coloured_by_any_unit_of_any_gate(page, model):
    with no_grad():
        recorded = recorded_values(model.recurrent, model.embedding(model.codec.encode("to be or")))
    offered = [one.get_attribute("value") for one in Select(page.find("colour")).options]
    assert offered == ["", *recorded]
    page.press(" or")
    for value, unit in (("f_l0", 3), ("c_l1", 15)):
        choose(page, value, unit)
        row = recorded[value][:, unit]
        page.wait(lambda row=row: coloured_by(page, row))
    page.wait(lambda: f"c_l1[15] {row[-1]:.3f}" in page.text_of("values"))
    page.screenshot("colour")
    page.check()


def underlines(page):
    found = page.browser.execute_script(
        "return [...document.querySelectorAll('#tokens span')].map(one => one.style.boxShadow)"
    )
    return [
        float(([*re.findall(r"[\d.]+", one.split(")")[0]), "1"])[3]) if one else 0 for one in found
    ]


@browsing
def test_a_place_has_its_guesses_and_what_they_depend_on(page, model):
    ids = model.codec.encode("to be").tolist()

    def expected(position):
        norms = connectivity(model, ids, position)
        return [share if share > 0.02 else 0 for share in norms / norms.max()]

    page.wait(lambda: underlines(page) == pytest.approx(expected(4), abs=0.01))
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    page.wait(lambda: underlines(page) == pytest.approx(expected(2), abs=0.01))
    assert page.text_of("place") == "after ␣"
    best = next_tokens(model, model.codec, "to ", 1)[0].token
    assert page.buttons("guesses")[0].text.startswith(best)
    spans = page.find("tokens").find_elements(By.TAG_NAME, "span")
    ActionChains(page.browser).move_to_element(spans[1]).perform()
    page.wait(lambda: page.text_of("place") == "after o")
    page.wait(lambda: underlines(page) == pytest.approx(expected(1), abs=0.01))
    ActionChains(page.browser).move_to_element(page.find("model")).perform()
    page.wait(lambda: page.text_of("place") == "after ␣")
    page.check()


@browsing
def test_a_unit_is_chosen_in_the_drawing_of_a_gate(page):
    canvas = page.wait(lambda: page.find("values").find_elements(By.TAG_NAME, "canvas"))[2]
    width = canvas.size["width"]
    ActionChains(page.browser).move_to_element_with_offset(
        canvas, int(width * 5.5 / 16 - width / 2), 0
    ).click().perform()
    chosen = page.find("values").find_element(By.CLASS_NAME, "chosen")
    assert chosen.text.startswith("g_l0[5]")
    assert page.find("colour").get_property("value") == "g_l0"
    page.check()


@browsing
def test_units_that_switch_in_a_selection_and_other_places(page, model):
    page.press(" or not to be")
    text = page.text
    page.wait(lambda: len(page.colors()) == len(text))
    page.press(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.press(Keys.SHIFT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    with no_grad():
        recorded = recorded_values(model.recurrent, model.embedding(model.codec.encode(text)))
    units = switches(recorded, 3, 5)
    others = places(recorded, units, 3, 5)
    expected = [f"{one.value}[{one.unit}]" for one in units]
    page.wait(lambda: [b.text.split(" ")[0] for b in page.buttons("units")] == expected)
    assert len(page.buttons("places")) == len(others) > 0
    page.screenshot("selection")
    page.buttons("places")[0].click()
    caret = page.find("text").get_property("selectionStart")
    assert caret == others[0].start
    page.check()


@browsing
def test_a_unit_is_held_and_compared_with_the_free_one(page):
    client = Client(page.address)
    asked = {"model": "characters", "prompt": "to be", "temperature": 0, "n": 3, "max_tokens": 12}
    held = [{"state": "h_l1", "unit": 2, "value": 40.0}]

    def texts(**more):
        choices = client.post("/v1/completions", **asked, **more)["choices"]
        return [one["text"] for one in choices]

    def shown(id):
        return [button.get_property("textContent") for button in page.buttons(id)]

    assert texts(hold=held) != texts()
    choose(page, "i_l0", 2)
    assert not page.find("hold").is_enabled()
    assert "only states can be held" in page.text_of("legend")
    choose(page, "h_l1", 2)
    page.set("held", 40)
    page.find("hold").click()
    page.wait(lambda: shown("continuations") == texts(hold=held) and shown("free") == texts())
    assert page.ghost == texts(hold=held)[0]
    assert shown("holds") == ["h_l1[2] held at 40 ✕"]
    page.screenshot("hold")
    page.buttons("holds")[0].click()
    page.wait(lambda: shown("continuations") == texts())
    assert not page.find("comparison").is_displayed()
    page.check()


VERSES = """\
HORATIO:
My lord, I came to see your father's funeral.

HAMLET:
I pray thee, do not mock me, fellow-student;
I think it was to see my mother's wedding.

HORATIO:
Indeed, my lord, it follow'd hard upon.

HAMLET:
Thrift, thrift, Horatio! the funeral baked meats
Did coldly furnish forth the marriage tables.
"""


@browsing
@pytest.mark.skipif(
    not (SCREENSHOTS and TRAINED),
    reason="needs ANAPHORA_SCREENSHOTS and ANAPHORA_SCREENSHOTS_MODEL, to make the docs' pictures",
)
def test_pictures_of_the_documentation(browser):
    served = ServedModel.load(TRAINED, "shakespeare")
    model = served.model
    with no_grad():
        recorded = recorded_values(model.recurrent, model.embedding(model.codec.encode(VERSES)))
    columns = [k for line in VERSES.splitlines(keepends=True) for k in range(len(line))]
    follows = np.corrcoef(recorded["c_l0"].T, columns)[-1, :-1]  # each unit, with the line's length
    with running(Server([served])) as address:
        page = Page(browser, address)
        page.wait(lambda: page.find("writer").is_displayed())
        page.set("seed", 3)
        page.paste("text", VERSES)
        page.wait(
            lambda: len(page.colors()) == len(VERSES) and page.ghost and painted(page, "values")
        )
        page.press(Keys.ARROW_UP, Keys.ARROW_UP, Keys.HOME, Keys.SHIFT, Keys.END)
        page.wait(lambda: page.buttons("units"))
        page.screenshot("page-select")
        page.press(Keys.CONTROL, Keys.END)
        unit = int(abs(follows).argmax())
        choose(page, "c_l0", unit)
        page.wait(lambda: coloured_by(page, recorded["c_l0"][:, unit]))
        page.wait(lambda: f"c_l0[{unit}]" in page.text_of("values"))
        page.wait(lambda: not page.find("selection").is_displayed())
        page.screenshot("page-line-length")
        page.check()


@browsing
def test_a_state_is_kept_and_returned_to(page, model):
    expected = continued(model, "to be")
    page.wait(lambda: page.ghost == expected)
    page.find("keep").click()
    page.press(Keys.END, Keys.BACKSPACE, "i")
    page.wait(lambda: page.ghost == continued(model, "to bi"))
    page.find("keep").click()
    kept = [one.text.split("\n") for one in page.find("kept").find_elements(By.XPATH, "li")]
    assert [one[1:] for one in kept] == [
        [continued(model, text)] * 3 for text in ("to bi", "to be")
    ]
    assert [one[0].split(" Return")[0] for one in kept] == [
        f"After “{text}”, temperature 0, top-p 1, seed 0" for text in ("to bi", "to be")
    ]
    page.screenshot("kept")
    page.buttons("kept")[2].click()
    assert page.text == "to be"
    page.wait(lambda: page.ghost == expected)
    page.buttons("kept")[1].click()
    assert len(page.find("kept").find_elements(By.XPATH, "li")) == 1
    page.check()


# Other tasks


@pytest.fixture
def predicting(open_page, client):
    """Opens the page of a model that predicts, with an input, and returns the expected record."""

    def opened(name, text, given):
        page = open_page([name])
        page.wait(lambda: page.find("predictor").is_displayed())
        page.paste("input", text)
        (record,) = client.post("/v1/predict", model=name, input=given)["data"]
        page.record = record
        return page

    return opened


def lines(page, id):
    return page.find(id).text.split("\n")


def painted(page, id="picture"):
    """For each canvas its size, and how many different colours it has."""
    return page.browser.execute_script(
        f"return [...document.querySelectorAll('#{id} canvas')].map(one => {{"
        "const d = one.getContext('2d').getImageData(0, 0, one.width, one.height).data;"
        "return [one.width, one.height, new Set(new Uint32Array(d.buffer)).size]})"
    )


@browsing
def test_a_classifier_shows_probabilities_and_its_states_over_time(predicting):
    page = predicting("classifier", "not to be", "not to be")
    shares = page.record["probabilities"]
    page.wait(lambda: lines(page, "answers")[0] == page.record["label"] and painted(page))
    assert lines(page, "answers")[1:] == [
        part for name, share in shares.items() for part in (name, f"{100 * share:.0f} %")
    ]
    page.wait(lambda: [size[:2] for size in painted(page)] == [[9, 6], [9, 6]])
    assert all(colors > 10 for *_, colors in painted(page))
    page.screenshot("classify")
    page.find("input").send_keys(Keys.CONTROL, "a")
    page.paste("input", "not to be" * 500)  # too long to be looked into
    page.wait(lambda: page.text_of("answers") and not painted(page))
    page.find("input").send_keys(Keys.CONTROL, "a")
    page.paste("input", "not to be\nto be")
    page.wait(lambda: len(page.find("answers").find_elements(By.TAG_NAME, "p")) == 2)
    assert painted(page) == []  # of two texts
    page.check()


@browsing
def test_a_tagger_has_tags_under_words(predicting):
    page = predicting("tagger", "not to be", ["not to be"])
    words = page.record["words"], page.record["tags"]
    expected = [part for pair in zip(*words, strict=True) for part in pair]
    page.wait(lambda: lines(page, "answers") == expected)
    page.screenshot("tag")
    page.check()


@browsing
def test_a_translator_shows_its_attention(predicting, folders):
    page = predicting("translator", "to be not", "to be not")
    page.wait(lambda: page.find("answers").text == page.record["translation"])
    served = ServedModel.load(folders["translator"])
    weights = inside(served, "to be not")["attention"]
    cells = page.wait(lambda: page.find("picture").find_elements(By.TAG_NAME, "td"))
    titles = [float(cell.get_attribute("title").removesuffix(" %")) for cell in cells]
    assert titles == pytest.approx((100 * weights).ravel().tolist(), abs=0.51)
    heads = [one.text for one in page.find("picture").find_elements(By.TAG_NAME, "th")]
    target = page.record["translation"].split()
    assert heads == ["", "to", "be", "not", "<eos>", *target, "<eos>"][: len(heads)]
    page.find("input").send_keys(" to be not" * 8)
    page.wait(lambda: len(page.find("picture").find_elements(By.TAG_NAME, "th")) > 24)
    with window(page, 360):
        assert page.browser.execute_script(WIDE) <= 360
    page.screenshot("translate")
    page.check()


@browsing
def test_a_regressor_and_a_model_of_series(predicting):
    page = predicting("regressor", "to be", "to be")
    page.wait(lambda: page.find("answers").text == str(page.record["prediction"]))
    page.check()
    page = predicting("numbers", "2 -1\n2.5, 0,\n3;1", [[2, -1], [2.5, 0], [3, 1]])
    expected = [f"{name}: {number}" for name, number in page.record["predictions"].items()]
    page.wait(lambda: page.find("answers").text.split() == " ".join(expected).split())
    page.wait(lambda: [size[:2] for size in painted(page)] == [[3, 6], [3, 6]])


@browsing
def test_one_changes_between_models(open_page):
    page = open_page(["characters", "classifier", "numbers"])
    page.wait(lambda: page.find("writer").is_displayed())
    page.press("to be")
    page.find("model").send_keys(Keys.ARROW_DOWN)
    page.wait(lambda: page.find("predictor").is_displayed())
    assert not page.find("writer").is_displayed()
    assert page.browser.switch_to.active_element == page.find("model")  # for other keys
    page.paste("input", "to be")
    page.wait(lambda: page.text_of("answers") and painted(page))
    page.find("model").send_keys(Keys.ARROW_DOWN)
    page.wait(lambda: page.text_of("message"))  # letters are no series
    assert page.text_of("answers") == page.text_of("picture") == ""
    assert not painted(page)
    Select(page.find("model")).select_by_value("characters")
    page.wait(lambda: len(page.colors()) == 5)
    assert page.text_of("message") == ""


@browsing
def test_nothing_of_another_model_stays(open_page):
    page = open_page(["words", "characters"])
    page.wait(lambda: page.find("writer").is_displayed())
    page.press("to \u03a9")  # unknown to words, refused by characters
    page.wait(lambda: page.ghost and len(Select(page.find("colour")).options) > 1)
    choose(page, "c_l0", 3)
    page.wait(lambda: "c_l0[3]" in page.text_of("values"))
    Select(page.find("model")).select_by_value("characters")
    page.wait(lambda: "the character '\u03a9'" in page.text_of("message"))
    assert [one.text for one in Select(page.find("colour")).options] == ["surprise"]
    for id in ("tokens", "ghost", "values", "guesses", "continuations"):
        assert page.text_of(id) == ""
    page.press(Keys.BACKSPACE)
    page.wait(lambda: [text for text, _ in page.colors()] == list("to "))
    page.wait(lambda: page.ghost and page.text_of("values") and page.buttons("guesses"))
    assert page.text_of("message") == ""


@browsing
def test_words_are_written_with_the_spaces_between_them(open_page, folders):
    page = open_page(["words"])
    page.wait(lambda: page.find("writer").is_displayed())
    page.press("to  be gnu")
    page.wait(lambda: [text for text, _ in page.colors()] == ["", "to", "  be", " gnu"])
    page.buttons("guesses")[0].click()
    assert re.fullmatch(r"to  be gnu( \S+|\n)", page.text)
    page.check()


@pytest.fixture
def page_of(browser, tmp_path):
    """Opens the page of an untrained model with a tokenizer."""
    with contextlib.ExitStack() as stack:

        def opened(tokenizer, name="model"):
            model = LanguageModel(tokenizer.vocabulary_size, hidden_size=4)
            model.codec = tokenizer
            model.save(tmp_path / "model")
            server = Server([ServedModel.load(tmp_path / "model", name)])
            page = Page(browser, stack.enter_context(running(server)))
            page.wait(lambda: page.find("writer").is_displayed())
            return page

        yield opened


@browsing
def test_words_in_other_case_and_with_punctuation_are_found_in_the_text(page_of):
    tokenizer = WordTokenizer.fit(
        ["to be, or not\n", "to be, or nut\n"], lowercase=True, split="punctuation", minimum_count=2
    )
    page = page_of(tokenizer)
    page.paste("text", "To BE, gnu,  Or!\nnot-to")
    expected = ["", "To", " BE", ",", " gnu", ",", "  Or", "!", "\n", "not-to"]
    page.wait(lambda: [text for text, _ in page.colors()] == expected)
    page.check()


@browsing
def test_unknown_characters_and_those_without_lower_case_are_tokens(page_of):
    page = page_of(CharacterTokenizer.fit("HAT hat \u0130\u03a3\ufffd"))
    text = "hat \U0001f600\U0001f600 hat h\u0130T THA\u03a3"
    page.paste("text", text)
    page.wait(lambda: [part for part, _ in page.colors()] == list(text))
    page.check()


@browsing
def test_parts_of_characters_are_coloured_with_their_character(page_of):
    pytest.importorskip("tokenizers")
    tokenizer = BPETokenizer.fit(["low lower lowest\n"] * 9, vocabulary_size=260)
    page = page_of(tokenizer)
    text = "low lower é\U0001f600 \u65e5!"
    page.paste("text", text)
    page.wait(lambda: "".join(text for text, _ in page.colors()) == text)
    parts = [text for text, _ in page.colors()]
    assert {"é", "\U0001f600", "\u65e5", ""} < set(parts)
    assert len(parts) == len(tokenizer.encode(text))
    page.press(Keys.BACKSPACE, Keys.BACKSPACE)
    page.wait(lambda: "".join(text for text, _ in page.colors()) == text[:-2])
    page.check()


@browsing
def test_long_texts_of_words_and_of_parts_of_characters_are_read_in_blocks(page_of):
    pytest.importorskip("tokenizers")
    page = page_of(WordTokenizer.fit(["to be, or not\n"] * 2))
    text = "to be, or not\n" * 300
    page.paste("text", text)
    page.wait(lambda: page.ghost and "".join(part for part, _ in page.colors()) == text)
    page.check()
    page = page_of(BPETokenizer.fit(["low lower lowest\n"] * 9, vocabulary_size=260))
    text = "a" + "\U0001f600" * 1300 + " lower" * 100  # a block would end within a character
    page.paste("text", text)
    page.wait(lambda: page.ghost and "".join(part for part, _ in page.colors()) == text)
    page.press("er")
    page.wait(lambda: "".join(part for part, _ in page.colors()) == text + "er")
    page.check()


@browsing
def test_continuations_that_were_hidden_can_be_taken(page, model):
    expected = continued(model, "to be")
    page.wait(lambda: page.ghost == expected)
    page.press(Keys.ESCAPE)
    assert page.ghost == ""
    choose(page, "c_l0", 1)
    page.wait(lambda: "c_l0[1]" in page.text_of("values") and len(page.colors()) == 5)
    page.find("keep").click()
    assert page.browser.find_element(By.CSS_SELECTOR, "#kept ol li").text == expected.strip()
    assert page.ghost == ""  # still
    page.buttons("continuations")[1].click()
    assert page.text == "to be" + expected
    page.check()


@browsing
def test_nothing_lies_over_the_grey_text_of_an_empty_page(open_page):
    page = open_page()
    page.wait(lambda: page.ghost)
    assert not page.find("text").get_property("placeholder")
    page.check()


@browsing
def test_before_the_first_token_are_no_states(page):
    page.wait(lambda: painted(page, "values") and any(underlines(page)))
    page.press(Keys.HOME)
    page.wait(lambda: page.text_of("place") == "at the beginning")
    page.wait(lambda: not painted(page, "values") and not any(underlines(page)))
    page.check()


@browsing
def test_what_was_read_for_other_colours_is_dropped(page, model):
    choose(page, "c_l0", 1)
    page.wait(lambda: "c_l0[1]" in page.text_of("values"))
    page.browser.execute_script(
        "const { fetch } = window; let release; const released = new Promise((r) => release = r);"
        "window.fetch = (...options) => released.then(() => fetch(...options));"
        "window.release = () => { window.fetch = fetch; release(); }"
    )
    page.press("t")  # is read when the text is coloured anew
    page.browser.execute_script(
        "document.getElementById('unit').dispatchEvent(new Event('change')); release()"
    )
    page.wait(lambda: page.ghost == continued(model, "to bet"))
    with no_grad():
        recorded = recorded_values(model.recurrent, model.embedding(model.codec.encode("to bet")))
    page.wait(lambda: coloured_by(page, recorded["c_l0"][:, 1]))
    page.check()


@browsing
def test_everything_can_be_reached_by_keyboard(page):
    page.press(Keys.ESCAPE, Keys.TAB)  # with no grey text, Tab leaves
    reached = set()
    for _ in range(40):
        reached.add(page.browser.execute_script(
            "const one = document.activeElement; return one.id || one.closest('ol')?.id"
        ))  # fmt: skip
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
    assert reached >= {
        "model", "temperature", "top-p", "length", "count", "seed", "again", "colour", "held",
        "guesses", "continuations",
    }  # fmt: skip
    choose(page, "c_l0", 1)
    page.wait(lambda: page.find("hold").is_enabled())
    page.find("unit").send_keys(Keys.ARROW_UP, Keys.TAB, Keys.TAB, Keys.ENTER)
    page.wait(lambda: page.text_of("holds").startswith("c_l0[2] held at 1"))
    page.check()


@browsing
def test_texts_are_never_html(page_of):
    evil = "<img src=x onerror=alert(1)>"
    page = page_of(CharacterTokenizer.fit(evil), evil)
    page.press(evil)
    page.wait(lambda: page.ghost)
    page.press(Keys.TAB)
    page.wait(lambda: len(page.colors()) == len(page.text) > len(evil))
    assert page.browser.find_elements(By.TAG_NAME, "img") == []
    page.check()


@browsing
def test_what_cannot_be_read_is_told_and_the_text_stays(page):
    page.press("Ω")
    page.wait(lambda: "the character 'Ω'" in page.text_of("message"))
    assert page.text == "to beΩ"
    page.press(Keys.BACKSPACE)
    page.wait(lambda: page.text_of("message") == "")


@browsing
def test_numbers_out_of_range_are_told_by_the_name_of_their_field(page, model):
    page.wait(lambda: page.ghost == continued(model, "to be"))
    for id, wrong, right, message in (
        ("temperature", "-1", "0.25", "Temperature: expected a number from 0 to 5."),
        ("top-p", "", "0.33", "Top-p: expected a number from 0.05 to 1."),
        ("length", "1e9", "12", "Tokens: expected an integer from 1 to 500."),
        ("count", "9", "8", "Continuations: expected an integer from 1 to 8."),
        ("seed", "1.5", "1", "Seed: expected an integer from 0 to 1000000000."),
    ):
        page.set(id, wrong)
        page.wait(lambda message=message: page.text_of("message") == message)
        page.set(id, right)
        page.wait(lambda: page.text_of("message") == "")
    assert page.text == "to be"
    page.wait(lambda: len(page.buttons("continuations")) == 8)
    choose(page, "c_l0", 2)
    page.set("held", "")
    page.find("hold").click()
    message = "Hold at: expected a number from -1000000 to 1000000."
    page.wait(lambda: page.text_of("message") == message)
    assert page.buttons("holds") == []
    page.set("held", "0.3")
    page.find("hold").click()
    page.wait(lambda: page.text_of("message") == "" and page.buttons("holds"))
    page.check()


@browsing
def test_a_long_text_is_pasted_and_read_in_blocks(page, model):
    text = "to be or not to be " * 500
    page.press(Keys.CONTROL, "a")
    page.paste("text", text)
    page.wait(lambda: len(page.colors()) == len(text))
    page.wait(lambda: page.ghost == continued(model, text))
    select = "document.getElementById('text').setSelectionRange(arguments[0], arguments[1])"
    page.browser.execute_script(select, 0, 4000)  # too long to be looked at
    page.wait(lambda: not painted(page, "values"))
    page.browser.execute_script(select, 3000, 9000)  # also
    page.wait(lambda: underlines(page)[2999] > 0)
    page.browser.execute_script(select, 3000, 3005)
    page.wait(lambda: page.buttons("units"))
    page.check()


@browsing
def test_a_server_with_keys_asks_for_one(open_page):
    page = open_page(access=Access(keys=["secret"]))
    page.wait(lambda: page.text_of("message") == "The server asks for an API key.")
    page.set("key", "guess")
    page.wait(lambda: page.text_of("message") == "The API key is wrong.")
    page.set("key", "secret")
    page.wait(lambda: page.find("writer").is_displayed())
    assert not page.find("key").is_displayed()


def contrast(one, other):
    """The contrast of two colours, as the Web Content Accessibility Guidelines define it."""
    levels = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
              for c in (one[:3] / 255, other[:3] / 255)]  # fmt: skip
    bright = sorted(float(level @ [0.2126, 0.7152, 0.0722]) + 0.05 for level in levels)
    return bright[1] / bright[0]


@browsing
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_in_narrow_windows_light_and_dark(page, width, scheme):
    with window(page, width, scheme):
        wide = page.browser.execute_script(WIDE)
        background = page.browser.execute_script(
            "return getComputedStyle(document.body).backgroundColor"
        )
        colors = page.browser.execute_script(
            "const of = (one) => getComputedStyle(one);"
            "return [of(tail).color, of(editor).backgroundColor, of(ghost).color,"
            " ...[...tokens.children].map(one => of(one).backgroundColor)]"
        )
        page.screenshot(f"{scheme}-{width}")
    text, box, grey, *marks = (
        np.array([float(part) for part in re.findall(r"[\d.]+", one)] + [1.0])[:4] for one in colors
    )
    shown = [mark[3] * mark[:3] + (1 - mark[3]) * box[:3] for mark in marks]
    assert max(mark[3] for mark in marks) == 0.75  # one is as strong as they get
    assert contrast(grey, box) > 4.5
    assert min(contrast(text, color) for color in shown) > 4.5
    assert wide <= width
    assert (int(re.search(r"\d+", background)[0]) > 128) == (scheme == "light")


@browsing
def test_long_names_and_words_fit_into_narrow_windows(page_of, predicting):
    page = page_of(CharacterTokenizer.fit("ab"), "long-" * 20)
    with window(page, 360):
        assert page.browser.execute_script(WIDE) <= 360
    word = "to" * 100
    page = predicting("tagger", f"{word} be", [f"{word} be"])
    page.wait(lambda: lines(page, "answers")[0] == word)
    with window(page, 360):
        assert page.browser.execute_script(WIDE) <= 360


@browsing
def test_the_benchmark_runs(serve, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import page as benchmark

    found = benchmark.measured(serve().address, "to be")
    assert list(found) == ["first_paint_ms", "key_handled_ms", "key_coloured_ms"]
    assert all(number > 0 for numbers in found.values() for number in numbers)
