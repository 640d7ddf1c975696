"""The shape of the code: who may import whom, how long a file is, what is explained."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

LAYERS = ["engine", "plugins", "models"]  # each may import those before it
FORBIDDEN = {"torch", "onnxruntime", "onnx", "sounddevice", "zmq"}
HEAVY = FORBIDDEN | {"soundfile", "soxr", "matplotlib", "crowsetta", "pandas"}
# The only places where the engine may speak ZeroMQ, and there only when asked to.
# What programs that talk to an engine import: they have ZeroMQ.
CLIENTS = {
    ROOT / "engine" / f"{name}.py"
    for name in (
        "client",
        "control_client",
        "replay_client",
        "keys",
        "keepalive",
        "admission",
    )
}
MOST_LINES = 400


def modules(layer):
    return sorted((ROOT / layer).rglob("*.py"))


ALL = [path for layer in LAYERS for path in modules(layer)]


def name_of(path):
    return str(path.relative_to(ROOT))


def imports(tree):
    """(imported name, whether it happens only when a function is called)."""
    lazy = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            lazy.update(id(child) for child in ast.walk(node))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            lazy.update(id(child) for part in node.body for child in ast.walk(part))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in lazy
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in lazy


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_imports_point_one_way(path):
    layer = path.relative_to(ROOT).parts[0]
    above = LAYERS[LAYERS.index(layer) + 1 :]
    for name, _ in imports(parsed(path)):
        top, *rest = name.split(".")
        assert top not in LAYERS, f"{name}: import neurovocal.{name}"
        if top == "neurovocal":
            assert rest[0] not in above, f"{layer} must not import {name}"


@pytest.mark.parametrize("path", modules("engine"), ids=name_of)
def test_the_engine_needs_no_heavy_library(path):
    for name, lazy in imports(parsed(path)):
        if name.split(".")[0] in FORBIDDEN:
            assert path in CLIENTS, f"{name} belongs into a plugin"
            assert lazy, f"{name} is imported before anyone has asked for it"


@pytest.mark.parametrize("path", modules("plugins"), ids=name_of)
def test_plugins_load_heavy_libraries_when_they_are_built(path):
    for name, lazy in imports(parsed(path)):
        top = name.split(".")[0]
        assert top != "torch", "torch belongs to the models"
        assert lazy or top not in HEAVY, f"{name} is imported with the module"


def test_the_engine_runs_without_any_of_them():
    """Not by reading, but by trying: import everything, see what came along."""
    code = f"""
import importlib, pkgutil, sys
import neurovocal.engine as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
from neurovocal.engine.contracts.plugin import GROUPS
from neurovocal.engine.contracts.registry import Registry
registry = Registry()
for kind in GROUPS:
    for name in registry.names(kind):
        registry.get(kind, name)
found = sorted({FORBIDDEN!r} & set(sys.modules))
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_lives_in_the_models_alone():
    using = {
        path.relative_to(ROOT).parts[0]
        for path in ALL
        for name, _ in imports(parsed(path))
        if name.split(".")[0] == "torch"
    }
    assert using <= {"models"}


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_no_file_is_too_long_to_read(path):
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= MOST_LINES, f"{n_lines} lines: split it"


def public(tree):
    """Modules, classes and functions that others may use."""
    yield "the module", tree
    for node in tree.body:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if not isinstance(node, kinds) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.FunctionDef) and child.name[0] != "_":
                    yield f"{node.name}.{child.name}", child


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_what_is_public_is_explained(path):
    if not (text := path.read_text(encoding="utf-8")).strip():
        return
    for name, node in public(ast.parse(text)):
        assert ast.get_docstring(node), f"{name} has no docstring"


@pytest.mark.parametrize(
    "path", [*ALL, *modules("tests"), *modules("bench")], ids=name_of
)
def test_no_file_knows_the_machine_it_was_written_on(path):
    text = path.read_text(encoding="utf-8")
    home = f"{Path.home()}/"
    for place in ("/home/", "/Users/", f"{ROOT}/", home if home != "//" else "/home/"):
        assert place not in text or path == Path(__file__), f"{place} is in {path.name}"


@pytest.mark.parametrize("layer", LAYERS)
def test_types_are_shipped(layer):
    assert (ROOT / layer / "py.typed").is_file()
