"""The site of the documentation: navigation, folders, links and anchors."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
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


def test_the_site_builds_strictly_and_asks_no_server(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "-q",
            "-d",
            str(tmp_path),
        ],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    loads = re.compile(
        r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(https?:)?//"
    )
    for page in tmp_path.rglob("*.html"):
        found = loads.search(page.read_text(encoding="utf-8"))
        assert found is None, f"{page}: {found and found[0]}"
