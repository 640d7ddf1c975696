"""The page on architecture agrees with the code: package drawings, named functions."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT

PAGE = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
LAYERS = ("engine", "plugins", "models")
NODE = re.compile(r'(\w+)\["([\w/]+)(?: \(.*\))?"\]')
ARROW = re.compile(r'^\s*(\w+)(?:\["[^"]+"\])? --> (\w+)', re.M)
FUNCTION = re.compile(r"`([\w/]+\.py): ([\w.]+)`")


def package_of(path: Path) -> str:
    """Folder of the second level, `engine/runtime/<part>`, or the layer itself."""
    parts = path.relative_to(ROOT).parts[:-1]
    depth = 3 if parts[:2] == ("engine", "runtime") else 2
    return "/".join(parts[:depth])


def imported_packages(path: Path) -> Iterator[str]:
    """Packages of the project that a file imports, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        top, *parts = (node.module or "").split(".")
        if top != "neurovocal" or not parts or parts[0] not in LAYERS:
            continue
        for alias in node.names:
            base = ROOT.joinpath(*parts)
            file = base / alias.name if base.is_dir() else base
            yield package_of(file.with_suffix(".py") if file != base else file)


def imports() -> dict[str, set[str]]:
    """Every package and those that its files import."""
    graph: dict[str, set[str]] = {}
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            found = graph.setdefault(package_of(path), set())
            found.update(imported_packages(path))
    return {name: targets - {name} for name, targets in graph.items()}


def drawn() -> dict[str, set[str]]:
    """Arrows of all drawings, by package."""
    graph: dict[str, set[str]] = {}
    for block in re.findall(r"```mermaid\n(.*?)```", PAGE, re.S):
        names = dict(NODE.findall(block))
        for start, stop in ARROW.findall(block):
            graph.setdefault(names[start], set()).add(names[stop])
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Packages that arrows lead to from `start`."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), set()) - found:
            found.add(target)
            waiting.append(target)
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_drawings_show_the_imports_between_packages(layer: str) -> None:
    real, shown = imports(), drawn()
    for package in sorted(p for p in real if p.split("/")[0] == layer):
        inside = {p for p in real[package] if p.split("/")[0] == layer}
        allowed = reachable(shown, package)
        missing = inside - allowed - {layer, package}
        assert not missing, f"{package} imports {missing}: draw it, or do not import"
        surplus = {p for p in shown.get(package, set()) if p in real} - reachable(
            real, package
        )
        assert not surplus, f"{package} does not import {surplus}: remove the arrow"


def named_functions() -> list[tuple[str, str]]:
    return sorted(set(FUNCTION.findall(PAGE)))


@pytest.mark.parametrize(("file", "name"), named_functions())
def test_named_functions_exist(file: str, name: str) -> None:
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    for part in name.split("."):
        found = [n for n in body if getattr(n, "name", None) == part]
        assert found, f"{file} has no {name}"
        body = getattr(found[0], "body", [])


def test_named_paths_exist() -> None:
    for path in re.findall(r"`((?:engine|plugins|models|tests)/[\w/.]+)`", PAGE):
        assert (ROOT / path).exists(), f"docs/explanation/architecture.md names {path}"
