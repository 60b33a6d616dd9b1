"""The site as readers get it: every page, at two widths, light and dark, without a network."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response

from book.tools import site as site_tool
from book.tools.project import (
    ROOT,
    chapter_paths,
    documentation_url,
    package_version,
    repository_url,
)
from tests.browser import needs_browser, open_browser, serve

WIDTHS = (390, 1000, 1280)


@pytest.fixture(scope="module")
def site() -> Path:
    """Build the site once, as a reader does: a warning of Sphinx fails here."""
    built = subprocess.run(
        ["make", "book"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return ROOT / "_build" / "html"


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with serve(site) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


# --- what the files say -------------------------------------------------------------------------


@dataclass
class Parsed(HTMLParser):
    """What a page links to, loads and shows."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    images: list[dict[str, str]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.loads.append(values["src"])
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev", "search"):
            self.loads.append(values["href"])
        if tag == "img":
            self.images.append(values)

    def handle_data(self, data: str) -> None:
        self.text += data


@cache
def parse(path: Path) -> Parsed:
    parsed = Parsed()
    parsed.feed(path.read_text(encoding="utf-8"))
    return parsed


def pages(site: Path) -> list[str]:
    found = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))]
    return [page for page in found if not page.startswith("_static/")]


def target_of(site: Path, page: str, link: str) -> tuple[Path, str] | None:
    """Return the file and the anchor that a link on a page leads to; None where it leaves."""
    absolute = urlsplit(urljoin(f"http://site/{page}", link))
    if urlsplit(link).scheme or link.startswith("//"):
        return None
    return site / unquote(absolute.path).lstrip("/"), unquote(absolute.fragment)


def test_pages_have_their_addresses(site: Path) -> None:
    expected = {"index.html", "intro.html", "notation.html", "glossary.html", "bibliography.html"}
    expected |= {"api/index.html", "search.html"}
    expected |= {f"chapters/{path.stem}.html" for path in chapter_paths(ROOT)}
    expected |= {
        f"api/{path.stem}.html" for path in (ROOT / "gptbook").glob("*.py") if path.stem[0] != "_"
    }
    assert expected <= set(pages(site))
    assert "intro.html" in (site / "index.html").read_text(encoding="utf-8")


def test_every_internal_link_and_anchor_leads_somewhere(site: Path) -> None:
    faults = []
    for page in pages(site):
        for link in parse(site / page).links:
            target = target_of(site, page, link)
            if target is None:
                continue
            path, anchor = target
            if not path.is_file():
                faults.append(f"{page}: {link} does not exist")
            elif anchor and path.suffix == ".html" and anchor not in parse(path).ids:
                faults.append(f"{page}: {link} has no such anchor")
    assert not faults, "\n".join(faults)


def test_everything_that_a_page_loads_is_part_of_the_site(site: Path) -> None:
    faults = []
    for page in pages(site):
        for link in parse(site / page).loads:
            target = None if link.startswith("data:") else target_of(site, page, link)
            if not link.startswith("data:") and (target is None or not target[0].is_file()):
                faults.append(f"{page}: loads {link}")
    assert not faults, "\n".join(faults)


def test_pictures_have_a_text_for_those_who_do_not_see_them(site: Path) -> None:
    faults = [
        f"{page}: {image.get('src')}"
        for page in pages(site)
        for image in parse(site / page).images
        if not image.get("alt", "").strip()
    ]
    assert not faults, "\n".join(faults)


def test_links_into_the_repository_lead_to_files(site: Path) -> None:
    repository = re.escape(repository_url(ROOT))
    owner = re.escape(repository_url(ROOT).removeprefix("https://github.com/"))
    colab = rf"https://colab\.research\.google\.com/github/{owner}/blob/main/(.+)"
    faults, seen = [], 0
    for page in pages(site):
        for link in parse(site / page).links:
            match = re.fullmatch(rf"{repository}/(?:blob|edit)/main/(.+)|{colab}", link)
            if match:
                seen += 1
                path = unquote(match[1] or match[2])
                if not (ROOT / path).is_file():
                    faults.append(f"{page}: {link}")
            elif re.match(r"https://(github\.com/example/|[^/]*colab)", link):
                known = link == repository_url(ROOT) or "/issues/new?" in link
                faults += [] if known else [f"{page}: {link} is not an address we know"]
    assert seen, "no page links to its source"
    assert not faults, "\n".join(faults)


def test_each_chapter_opens_in_colab_from_its_header_and_its_title(site: Path) -> None:
    for path in chapter_paths(ROOT):
        links = parse(site / "chapters" / f"{path.stem}.html").links
        ending = f"/blob/main/book/colab/chapters/{path.stem}.ipynb"
        assert len([link for link in links if link.endswith(ending)]) == 2, path.name


def test_links_from_colab_to_the_site_lead_to_pages_and_anchors(site: Path) -> None:
    faults = []
    for path in sorted((ROOT / "book" / "colab").rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        for link in re.findall(re.escape(documentation_url(ROOT)) + r"([^\s)\"]*)", text):
            name, _, anchor = link.partition("#")
            target = site / (name or "index.html")
            if not target.is_file():
                faults.append(f"{path.name}: {link} does not exist")
            elif anchor and anchor not in parse(target).ids:
                faults.append(f"{path.name}: {link} has no such anchor")
    assert not faults, "\n".join(faults)


def test_figures_tables_and_equations_have_the_same_numbers_in_colab(site: Path) -> None:
    for path in chapter_paths(ROOT):
        html = (site / "chapters" / f"{path.stem}.html").read_text(encoding="utf-8")
        cells = json.loads((ROOT / f"book/colab/chapters/{path.stem}.ipynb").read_text("utf-8"))
        markdown = "\n".join(
            "".join(cell["source"]) for cell in cells["cells"] if cell["cell_type"] == "markdown"
        )
        captions = re.findall(r'class="caption-number">(\w+ [\d.]+) <', html)
        assert re.findall(r"^\*(\w+ [\d.]+)\.\*", markdown, re.MULTILINE) == captions, path.name
        equations = re.findall(r'class="eqno">\(([\d.]+)\)', html)
        assert re.findall(r"\\tag\{([\d.]+)\}", markdown) == equations, path.name


def test_exported_cells_name_their_module_and_link_to_it(site: Path) -> None:
    for path in chapter_paths(ROOT):
        cells = json.loads(
            (ROOT / "book" / "notebooks" / "chapters" / f"{path.stem}.ipynb").read_text("utf-8")
        )["cells"]
        exported = [c for c in cells if "export" in c["metadata"].get("tags", [])]
        html = (site / "chapters" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert html.count('class="cell-file') == len(exported), path.name
        for cell in exported:
            module = cell["metadata"]["module"].removeprefix("gptbook/").removesuffix(".py")
            assert f"../api/{module.replace('/', '.')}.html" in html


def test_chapters_and_api_link_to_each_other(site: Path) -> None:
    for path in (ROOT / "gptbook").glob("*.py"):
        if path.stem.startswith("_"):
            continue
        links = parse(site / "api" / f"{path.stem}.html").links
        chapters = [link for link in links if link.startswith("../chapters/")]
        assert chapters, f"api/{path.stem}.html names no chapter"


def test_numbers_in_the_text_are_shown_without_their_comments(site: Path) -> None:
    for page in pages(site):
        assert "<!--=" not in (site / page).read_text(encoding="utf-8"), page


def test_no_page_shows_raw_myst(site: Path) -> None:
    for page in pages(site):
        if not page.startswith("_modules/"):
            found = re.findall(
                r"\{[a-z:]+\}`[\w/]|^:::+|\{\{[a-z]+\}\}", parse(site / page).text, re.MULTILINE
            )
            assert not found, f"{page}: {found}"


def test_the_site_carries_the_wheel_that_colab_installs(site: Path) -> None:
    (wheel,) = (site / "wheels").iterdir()
    assert wheel.name == f"gptbook-{package_version(ROOT)}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gptbook").rglob("*.py")}
    assert sources <= names


# --- the tool -----------------------------------------------------------------------------------


def stage(tmp_path: Path, *names: str) -> Path:
    for name in names:
        path = tmp_path / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text("# Title\n", encoding="utf-8")
    return tmp_path


def test_parts_follow_the_files_and_halves_of_a_chapter_stay_together(tmp_path: Path) -> None:
    source = stage(tmp_path, "chapters/02_b", "chapters/01_a", "chapters/01_b", "api/index")
    entries = site_tool.resolve([{"glob": "chapters/*"}, {"glob": "exercises/*"}], source)
    first = {"file": "chapters/01_a", "sections": [{"file": "chapters/01_b"}]}
    assert entries == [first, {"file": "chapters/02_b"}]
    assert site_tool.resolve([{"glob": "api/*"}], source) == []


def test_a_gap_between_chapters_is_refused() -> None:
    with pytest.raises(site_tool.SiteError, match=r"numbered 1 to 2 without a gap, got \[1, 3\]"):
        site_tool.check_numbers(["chapters/01_a", "chapters/03_c"])


def test_a_chapter_that_was_never_executed_is_refused(tmp_path: Path) -> None:
    stage(tmp_path, "chapters/01_a")
    with pytest.raises(
        site_tool.SiteError, match=r"01_a\.ipynb does not exist; run `make execute`"
    ):
        site_tool.stage_notebook(tmp_path, tmp_path / "chapters" / "01_a.md", tmp_path)


def test_solutions_are_folded_behind_a_click() -> None:
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "id": "a",
        "metadata": {"tags": ["solution"]},
        "outputs": [],
        "source": "1",
    }
    notebook = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    )
    site_tool.dress(notebook, "solutions/01_a", "https://colab")
    assert "hide-cell" in notebook.cells[0].metadata.tags
    assert notebook.cells[0].metadata.mystnb.code_prompt_show == "Show the solution"


# --- in a browser -------------------------------------------------------------------------------

LOOK = """async () => {
  if (document.querySelector(".math")) await MathJax.startup.promise;
  const wide = [...document.querySelectorAll("body *")].filter(
    (node) => node.getBoundingClientRect().right > innerWidth + 1);
  return {
    width: document.documentElement.scrollWidth,
    wide: wide.slice(0, 3).map((node) => `${node.tagName}.${node.className}`),
    theme: document.documentElement.dataset.theme,
    formulas: document.querySelectorAll("span.math, div.math").length,
    rendered: document.querySelectorAll("mjx-container").length,
    errors: document.querySelectorAll("mjx-merror, .mjx-merror").length,
    broken: [...document.images].filter((image) => !image.naturalWidth).map((image) => image.src),
    plain: [...document.querySelectorAll("article .cell_output img[src$='.svg']")]
      .filter((image) => getComputedStyle(image).filter === "none").length,
  };
}"""


def listen(page: Page, address: str, faults: list[str]) -> None:
    """Note what a tab asks other hosts for, what fails, and what its scripts complain about."""

    def ask(request: Request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            faults.append(f"asks {request.url}")

    def answer(response: Response) -> None:
        if response.status >= 400:
            faults.append(f"{response.status} for {response.url}")

    def say(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"console: {message.text}")

    page.on("request", ask)
    page.on("response", answer)
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("console", say)


def faults_seen(page: Page, width: int, scheme: str) -> Iterator[str]:
    """Yield what is wrong with the page that is open, as it looks at this width."""
    page.set_viewport_size({"width": width, "height": 844})
    seen = page.evaluate(LOOK)
    if seen["width"] > width:
        yield f"is {seen['width']} px wide at {width}: {seen['wide']}"
    if seen["theme"] != scheme:
        yield f"has the theme {seen['theme']}"
    if seen["rendered"] != seen["formulas"] or seen["errors"]:
        yield f"{seen['rendered']} of {seen['formulas']} formulas, {seen['errors']} bad"
    if seen["broken"]:
        yield f"pictures not shown: {seen['broken']}"
    if scheme == "dark" and seen["plain"]:
        yield f"{seen['plain']} figures are not adapted to the dark"


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_in_a_browser(
    site: Path, address: str, browser: Browser, scheme: Literal["light", "dark"]
) -> None:
    faults: list[str] = []
    page = browser.new_page(color_scheme=scheme)
    listen(page, address, faults)
    widths = WIDTHS if scheme == "light" else WIDTHS[::-1]  # each is once what a page opens at
    for name in pages(site):
        if name == "index.html":  # it only leads to intro.html
            continue
        page.set_viewport_size({"width": widths[0], "height": 844})
        page.goto(address + name, wait_until="load")
        for width in widths:
            faults += [f"{name}: {fault}" for fault in faults_seen(page, width, scheme)]
    page.close()
    assert not faults, "\n".join(faults)


@needs_browser
def test_the_first_page_is_the_introduction(address: str, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(address)
    page.wait_for_url("**/intro.html")
    page.close()


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_search_finds_a_word_without_a_network(address: str, browser: Browser, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(address + "intro.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("vocabulary")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    hits = page.locator("#search-results li a").all_inner_texts()
    assert "Glossary" in hits
    page.close()


@needs_browser
def test_the_switch_turns_a_page_dark_and_the_next_page_remembers(
    address: str, browser: Browser
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 844}, color_scheme="light")
    page.goto(address + "intro.html")
    for _ in range(3):  # automatic, light, dark
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
        page.locator("button.theme-switch-button:visible").first.click()
    page.goto(address + "glossary.html")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.close()


# --- make serve ---------------------------------------------------------------------------------


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.usefixtures("site")
def test_make_serve_shows_the_book() -> None:
    port = free_port()
    with subprocess.Popen(
        ["make", "serve", f"PORT={port}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as server:
        try:
            page = fetch_when_up(f"http://127.0.0.1:{port}/intro.html", server)
        finally:
            os.killpg(server.pid, signal.SIGINT)
            server.communicate(timeout=30)
    assert "gptbook" in page


def fetch_when_up(url: str, server: "subprocess.Popen[str]", seconds: float = 180) -> str:
    """Return the page once the server answers; fail with its output if it stops first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"make serve stopped: {server.communicate()[0]}")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                page: str = answer.read().decode("utf-8")
                return page
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"{url} did not answer within {seconds} s")
