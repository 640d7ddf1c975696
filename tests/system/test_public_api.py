"""What the engine exports: each list of names agrees with the others."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module

import pytest
from repository import ROOT

from neurovocal import engine

PACKAGES = ["", ".client", ".journal", ".testing"]


def package(name):
    return import_module(f"neurovocal.engine{name}")


def imported_for_type_checkers():
    """Return {name: module} of the imports below `TYPE_CHECKING`."""
    tree = ast.parse((ROOT / "engine" / "__init__.py").read_text())
    blocks = [n for n in tree.body if isinstance(n, ast.If)]
    (block,) = [n for n in blocks if ast.unparse(n.test) == "TYPE_CHECKING"]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname is None
            found[alias.name] = node.module
    return found


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_name_exists(name):
    module = package(name)
    assert len(module.__all__) == len(set(module.__all__))
    for exported in module.__all__:
        assert getattr(module, exported) is not None


@pytest.mark.parametrize("name", PACKAGES)
def test_nothing_else_is_public(name):
    module = package(name)
    public = {
        each
        for each, value in vars(module).items()
        if not each.startswith("_")
        and not inspect.ismodule(value)
        and value is not import_module
        and each != "TYPE_CHECKING"
    }
    assert public <= set(module.__all__)


def test_type_checkers_and_python_find_the_same_names():
    typed = imported_for_type_checkers()
    assert typed == {
        name: f"{engine.__name__}.{home}" for name, home in engine._HOMES.items()
    }
    assert set(typed) == set(engine.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Blok'"):
        engine.Blok  # noqa: B018
    assert set(engine.__all__) <= set(dir(engine))


@pytest.mark.parametrize("name", PACKAGES)
def test_exported_classes_and_functions_have_docstrings(name):
    module = package(name)
    for exported in module.__all__:
        value = getattr(module, exported)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, exported
            # A dataclass without a docstring gets its signature as one.
            assert not value.__doc__.startswith(f"{exported}("), exported


def loaded_by(statement):
    """Return the modules that a new interpreter has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, check=True, stdout=-1, text=True).stdout.split())


def test_the_engine_package_loads_nothing_until_a_name_is_used():
    loaded = loaded_by("import neurovocal.engine")
    assert not [name for name in loaded if name.startswith("neurovocal.engine.")]
    loaded = loaded_by("from neurovocal.engine import Block")
    assert "neurovocal.engine.contracts.types" in loaded
    assert "pydantic" not in loaded


def test_the_client_loads_neither_pydantic_nor_zeromq():
    statement = "from neurovocal.engine.client import Control, Subscriber"
    loaded = loaded_by(statement)
    assert not {"pydantic", "zmq", "scipy", "soxr"} & loaded
