"""Check the built site: links, texts for pictures, sizes, and how it behaves in a browser.

    python docs/check.py build/site

The first part reads the files. The second opens every page from the disk, narrow and wide, light
and dark, in chromium driven by selenium; where one of them is missing, it says so and is skipped
(with --browser it fails).
"""

import argparse
import functools
import http.server
import importlib
import inspect
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGEST_PAGE = 1_000_000  # bytes, with its scripts, style sheets and pictures
LARGEST_INDEX = 1_000_000  # bytes of what the search reads
WIDTHS = (400, 1280)  # pixels: a phone and a screen
SCHEMES = {"light": "default", "dark": "slate"}  # what the reader prefers, and the theme's name
SEARCHES = {
    "lengths": "guide/lengths.html",
    "forget bias": "guide/initialization.html",
    "threads": "guide/threads.html",
    "install": "guide/installation.html",
    "fine-tuning": "guide/fine-tuning.html",
    "forecasting": "guide/forecasting.html",
    "serving": "guide/serving.html",
    "custom cell": "guide/cells.html",
    "bit-exact": "guide/bits.html",
    "LSTM": "reference/nn.html",
}
"""The page that the search must name first."""
PACKAGES = [
    "anaphora." + name
    for name in (
        "artifact", "cells", "data", "distributed", "equations", "estimators", "generation",
        "interop", "metrics", "models", "nn", "nn.init", "ops", "optim", "plot", "serve",
        "synthetic", "tensor", "training",
    )
]  # fmt: skip
"""The packages whose exports the reference shows, with every argument."""


# Files


class Page(HTMLParser):
    """What a page links to and loads, and the places that links to it may name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.without_text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what the page has."""
        given = dict(attributes)
        self.places.update(filter(None, (given.get("id"), given.get("name"))))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given["href"])
        elif given.get("src"):
            self.loaded.append(given["src"])
        if tag == "img" and not (given.get("alt") or "").strip():
            self.without_text.append(given.get("src", ""))


def is_outside(address: str) -> bool:
    """Whether an address leaves the site; data that is written in a page does not."""
    return bool(urlsplit(address).netloc) or urlsplit(address).scheme in ("http", "https")


def loaded_by_styles(path: Path) -> list[str]:
    """What a style sheet loads."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"""url\(["']?([^"')]+)["']?\)|@import ["']([^"']+)""", text)
    return [url or imported for url, imported in found if not (url or "").startswith("data:")]


def problems_of_files(site: Path) -> Iterator[str]:
    """What is wrong with the files of a site, one line each."""
    paths = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    if not paths:
        yield f"{site} has no pages"
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            if parts.path.startswith("/"):
                yield f"{name}: {link} does not work from the disk; write it relative to the page"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{name}: {link} leads nowhere"
            elif target in pages and unquote(parts.fragment) not in {"", *pages[target].places}:
                yield f"{name}: {link} names a place that {target.name} does not have"
        for picture in page.without_text:
            yield f"{name}: the picture {picture} has no alternative text"
        size = path.stat().st_size
        for address in dict.fromkeys(page.loaded):
            if address.startswith("data:"):
                continue
            if is_outside(address):
                yield f"{name}: {address} is loaded from outside"
                continue
            target = (path.parent / unquote(urlsplit(address).path)).resolve()
            if target.is_file():
                size += target.stat().st_size
            else:
                yield f"{name}: {address}, which it loads, does not exist"
        if size > LARGEST_PAGE:
            yield f"{name}: {size:,} bytes with what it loads; at most {LARGEST_PAGE:,} are allowed"
    for path in sorted(site.rglob("*.css")):
        for address in loaded_by_styles(path):
            if is_outside(address):
                yield f"{path.relative_to(site)}: {address} is loaded from outside"
    index = site / "search" / "search_index.js"
    if index.exists() and index.stat().st_size > LARGEST_INDEX:
        yield f"the search reads {index.stat().st_size:,} bytes; at most {LARGEST_INDEX:,}"


# Reference


def shown_arguments(text: str, name: str) -> set[str]:
    """The names in the signature of an export, as a page of the reference shows it."""
    start = text.find(f'id="{name}"')
    signature = re.search(r'class="[^"]*doc-signature.*?</div>', text[start:], re.DOTALL)
    if start < 0 or not signature:
        return set()
    return set(re.findall(r"\w+", re.sub(r"<[^>]*>", " ", signature[0])))


def arguments_of(value: object) -> set[str]:
    """The names that a function or a constructor takes."""
    try:
        given = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):  # not callable, or a constructor of Python's own
        return set()
    if getattr(value, "_is_protocol", False):
        return set()
    return {one.name for one in given if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}


def problems_of_reference(site: Path, packages: list[str]) -> Iterator[str]:
    """Exports of packages that the reference does not show, or not with every argument."""
    text = "\n".join(path.read_text("utf-8") for path in sorted(site.glob("reference/*.html")))
    for package in packages:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            shown = f"{package}.{name}"
            if shown in sys.modules:  # a function in a file of its name
                shown = f"{shown}.{name}"
            if f'id="{shown}"' not in text:
                yield f"the reference does not show {package}.{name}"
            elif missing := arguments_of(value) - shown_arguments(text, shown):
                yield f"the reference omits {', '.join(sorted(missing))} of {package}.{name}"


# Browser


WIDTH_AT_REST = """
const [width, done] = arguments;
const last = performance.now() + 1000;
(function look() {
  const total = document.documentElement.scrollWidth;
  total <= width || performance.now() > last ? done(total) : setTimeout(look, 10);
})();
"""
"""How wide a page is, once its side bars have moved to their places."""


class Browser:
    """Chromium, without a network."""

    def __init__(self) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options, service)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def look(self, width: int, scheme: str) -> None:
        """Change the width of the window and the reader's preference."""
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def requested(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        messages = [json.loads(entry["message"]) for entry in self.driver.get_log("performance")]
        sent = [message["message"] for message in messages]
        return [
            message["params"]["request"]["url"]
            for message in sent
            if message["method"] == "Network.requestWillBeSent"
        ]

    def wait(self, script: str, seconds: float = 20) -> object:
        """The first value of a script that is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, 0.02).until(
            lambda driver: driver.execute_script(script)
        )

    def search(self, query: str) -> list[str]:
        """The addresses of what the search finds, best first."""
        field = "document.querySelector('[data-md-component=search-query]')"
        self.driver.execute_script(
            f"const field = {field}; field.focus(); field.value = arguments[0];"
            "field.dispatchEvent(new Event('keyup', {bubbles: true}))",
            query,
        )
        return self.wait(
            "const found = [...document.querySelectorAll('a.md-search-result__link')]"
            f".map(a => a.href); return found.length && {field}.value && found"
        )


def problems_of_page(browser: Browser, address: str, name: str) -> Iterator[str]:
    """What a page does wrong in a browser, in all widths and schemes."""
    driver = browser.driver
    browser.look(WIDTHS[0], "light")
    driver.get_log("browser")  # of the page before
    driver.get(address)
    browser.wait("return document.readyState === 'complete'")
    for width, scheme in zip(WIDTHS, SCHEMES, strict=True):
        browser.look(width, scheme)
        total = driver.execute_async_script(WIDTH_AT_REST, width)
        if total > width:
            yield f"{name}: {total} pixels wide in a window of {width}"
        shown = driver.execute_script("return document.body.dataset.mdColorScheme")
        if shown not in (SCHEMES[scheme], None):  # None: a page without the theme
            yield f"{name}: shown as {shown} to a reader who prefers {scheme}"
    for source in driver.execute_script(
        "return [...document.images].filter(i => i.loading !== 'lazy' && !i.naturalWidth)"
        ".map(i => i.src)"
    ):
        yield f"{name}: the picture {source} cannot be shown"
    for entry in driver.get_log("browser"):
        if entry["level"] in ("SEVERE", "WARNING"):
            yield f"{name}: the console says: {entry['message']}"
    for requested in browser.requested():
        if is_outside(requested) and not requested.startswith("http://127.0.0.1"):
            yield f"{name}: asked for {requested}"


def problems_of_search(browser: Browser, address: str, searches: dict[str, str]) -> Iterator[str]:
    """Searches whose first result is not the page that it should be."""
    for query, expected in searches.items():
        browser.driver.get(f"{address}/index.html")
        found = [urlsplit(url).path for url in browser.search(query)]
        if not found[0].endswith(f"/{expected}"):
            names = ["/".join(path.split("/")[-2:]) for path in found[:3]]
            yield f"searching for {query!r} gives {', '.join(names)} before {expected}"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def problems_in_browser(site: Path, searches: dict[str, str]) -> Iterator[str]:
    """What the site does wrong in a browser, from the disk; the search also from a server."""
    with Browser() as browser:
        for path in sorted(site.rglob("*.html")):
            if path.name != "404.html":
                name = str(path.relative_to(site))
                yield from problems_of_page(browser, path.resolve().as_uri(), name)
        yield from problems_of_search(browser, site.resolve().as_uri(), searches)
        handler = functools.partial(Quiet, directory=site)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_port}"
            yield from problems_of_page(browser, f"{address}/index.html", "index.html, served")
            yield from problems_of_search(browser, address, dict([*searches.items()][:1]))
            server.shutdown()


def missing_for_browser() -> str | None:
    """What of a browser is not installed."""
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            return program
    return None if importlib.util.find_spec("selenium") else "the package selenium"


def main() -> int:
    """Check a site, print what is wrong, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("--browser", action="store_true", help="fail where there is no browser")
    given = parser.parse_args()
    site = given.site.resolve()
    problems = list(problems_of_files(site))
    problems += problems_of_reference(site, PACKAGES)
    missing = missing_for_browser()
    if missing is None:
        problems += problems_in_browser(site, SEARCHES)
    elif given.browser:
        problems.append(f"no browser: {missing} is missing")
    else:
        print(f"skipped: how the site behaves in a browser, because {missing} is missing")
    for problem in problems:
        print(problem, file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
