"""Tests that the README and the documentation name exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
LINK = re.compile(r"\]\((?:\.\./)*(tests/[^)#\s]*)")
PATH = re.compile(r"`(tests/[\w/]+\.py)`")
# `test_file.py`: `part_of_a_name`, `part_of_another`
NAME = re.compile(r"`(test_\w+\.py)`(?:: ((?:`\w+`(?:, )?)+))?")


def functions_of(path: Path) -> Iterator[str]:
    """Yield the names of the test functions of a file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in {*LINK.findall(text), *PATH.findall(text)}:
        assert list(functions_of(ROOT / name)), name
    for name, parts in NAME.findall(text):
        files = list((ROOT / "tests").rglob(name))
        assert files, name
        functions = [each for path in files for each in functions_of(path)]
        for part in re.findall(r"\w+", parts):
            assert any(part in each for each in functions), f"{name}: {part}"


def test_every_guarantee_names_its_test() -> None:
    page = ROOT / "docs" / "performance" / "guarantees.md"
    text = page.read_text(encoding="utf-8")
    guarantees = re.search(r"Guarantees, each held by a test:\n\n(.*?)\n\n", text, re.S)
    assert guarantees is not None
    for each in guarantees[1].split("\n* "):
        assert LINK.search(each), each
    table = text.partition("| promise | command | measured | tests |\n")[2]
    promises = table.partition("\n\n")[0].splitlines()[1:]
    assert len(promises) > 10
    for each in promises:
        assert LINK.search(each) or each.endswith("none: only measured |"), each
