"""The server's page in chromium: milliseconds to the first paint, and from a key to its colour.

    python -m benchmarks.page [--hidden-size 512] [--keys 100] [--pause 0] [--threads 2]

It needs chromium, chromedriver and selenium. The server runs in a process of its own, with a random
character model. A key is typed when the colour of the one before is there, and after a pause in
milliseconds: from 100 on the page also looks inside, at states, gates and gradients.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from typing import Any

from benchmarks.serving import character_model, served

_PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"

# Types characters one by one; for each, the time until the key is handled, and until its colour.
_TYPE = """
const [text, pause, done] = arguments;
const editor = document.getElementById("text"), tokens = document.getElementById("tokens");
const times = [];
let start = 0, handled = 0;
function type() {
  if (times.length === text.length) return done(times);
  start = performance.now();
  document.execCommand("insertText", false, text[times.length]);
  handled = performance.now() - start;
}
new MutationObserver(() => {
  if (tokens.childElementCount !== editor.value.length) return;
  times.push([handled, performance.now() - start]);
  setTimeout(type, pause);
}).observe(tokens, { childList: true });
editor.focus();
type();
"""


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--pause", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    with served(character_model(options.hidden_size), options.threads) as port:
        text = ("TO BE OR NOT TO BE THAT IS THE QUESTION " * options.keys)[: options.keys]
        print(json.dumps(measured(f"http://127.0.0.1:{port}", text, options.pause)))


def measured(address: str, text: str, pause: int) -> dict[str, Any]:
    """The first paints of two visits, and the median and the largest of the times of keys."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"))) as driver:
        paints = []
        for _ in range(2):
            driver.get(address)
            paints.append(WebDriverWait(driver, 10).until(lambda one: one.execute_script(_PAINT)))
        shown = "return !document.getElementById('writer').hidden"
        WebDriverWait(driver, 10).until(lambda one: one.execute_script(shown))
        driver.set_script_timeout(60 + len(text) * pause // 1000)
        times = driver.execute_async_script(_TYPE, text, pause)
    handled, coloured = (sorted(column) for column in zip(*times, strict=True))
    return {
        "first_paint_ms": paints,
        "key_handled_ms": [statistics.median(handled), handled[-1]],
        "key_coloured_ms": [statistics.median(coloured), coloured[-1]],
    }


if __name__ == "__main__":
    main()
