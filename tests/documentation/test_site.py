"""The site of the documentation: navigation, folders, links and anchors."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from browser.chromium import DESKTOP, PHONE, chromium
from processes.waiting import PATIENCE_S
from repository import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
OTHERS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("examples/**/*.md"))
    if "node_modules" not in path.parts
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^(```+).*?^\1[ \t]*$|`[^`\n]+`", re.S | re.M)


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name functions of the extensions."""


Loader.add_multi_constructor("tag:", lambda loader, suffix, node: suffix)


def entries(nav: object) -> list[str]:
    """Return the pages of a navigation, in its order."""
    if isinstance(nav, str):
        return [nav]
    if isinstance(nav, dict):
        return [page for each in nav.values() for page in entries(each)]
    return [page for each in nav for page in entries(each)]


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]
    assert sorted(entries(nav)) == PAGES


def test_folders_of_the_documentation_have_at_most_14_entries() -> None:
    for folder, folders, files in os.walk(DOCS):
        assert len(folders) + len(files) <= 14, folder


@pytest.mark.parametrize("name", OTHERS)
def test_links_outside_the_site_lead_to_files(name: str) -> None:
    path = ROOT / name
    for target in LINK.findall(CODE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:|#", target):
            continue
        file, _, anchor = target.partition("#")
        assert (path.parent / file).exists(), target
        if anchor:
            text = (path.parent / file).read_text(encoding="utf-8")
            assert anchor in anchors(text), target


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+?)\s*$", CODE.sub(lambda m: m[0], text), re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", each) for each in headings)
    return {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", each).strip().lower())
        for each in plain
    }


@pytest.mark.timeout(600)
def test_the_site_asks_no_server(site: Path) -> None:
    """The site, which was built strictly: each internal link and anchor holds."""
    loads = re.compile(
        r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(https?:)?//"
    )
    for page in site.rglob("*.html"):
        found = loads.search(page.read_text(encoding="utf-8"))
        assert found is None, f"{page}: {found and found[0]}"


def test_the_readme_says_what_and_why_on_one_screen() -> None:
    """Up to its links it fits a terminal of 80 columns and 50 lines."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Read on")[0]
    shown = re.sub(r"<!--.*?-->\n", "", text)
    shown = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"\1", shown)
    lines = shown.splitlines()
    assert len(lines) <= 50
    assert all(len(line) <= 80 for line in lines)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    return folder


@pytest.mark.timeout(600)
def test_drawings_of_the_architecture_are_drawn(site: Path) -> None:
    source = (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")
    n_drawings, n_arrows = source.count("```mermaid"), source.count(" --> ")
    with chromium() as browser:
        page = browser.new_page(viewport=DESKTOP)
        page.goto((site / "explanation" / "architecture.html").as_uri())
        assert page.locator("svg.drawing").count() == n_drawings
        assert page.locator("svg.drawing .head").count() == n_arrows
        assert "flowchart" not in page.locator("article").inner_text()
        for box in page.locator("svg.drawing rect").all():
            assert box.bounding_box()["width"] > 20


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_page_opened_as_a_file_is_searched_and_shows_equations(
    site: Path, size: dict[str, int]
) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport=size)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "explanation" / "rnn-rbm.html").as_uri())
        assert page.locator("math").count() > 20
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
        if size is PHONE:
            page.locator("label[for=__search].md-header__button").click()
        page.locator("input.md-search__input").click()
        page.keyboard.type("refractory")
        found = page.locator(".md-search-result__item").first
        found.wait_for(timeout=PATIENCE_S * 1000)
        assert "loop" in page.locator(".md-search-result__list").inner_text().lower()
        assert all(not each.startswith("http") for each in asked)
