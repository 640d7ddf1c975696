"""Shape of the code: import order, size of files and folders, docstrings.

Each rule is one test; its message says what to do about a violation. An import
counts wherever it stands: at the top of a module, in a function, or below
`TYPE_CHECKING`.
"""

import ast
import functools
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from repository import ROOT

LAYERS = ["engine", "plugins", "models"]  # each may import those before it
FORBIDDEN = {"torch", "onnxruntime", "onnx", "sounddevice", "zmq"}
HEAVY = FORBIDDEN | {"soundfile", "soxr", "matplotlib", "crowsetta", "pandas"}

# Packages from the lowest to the highest. A package may import those of earlier
# lines; packages of one line never import each other. A name may be a module.
ORDER = {
    "engine": [
        ["support"],
        ["contracts"],
        ["audio", "wire"],
        ["journal", "config", "client"],
        ["lane"],
        ["faults"],
        ["runtime/shadow"],
        ["runtime/workers"],
        ["runtime/control"],
        ["runtime/assembly", "runtime/systemd", "runtime/threads"],
        ["runtime/watchdog"],
        ["runtime/processes"],
        ["runtime"],
        ["rehearsal"],
        ["cli"],
        ["testing"],
    ],
    "plugins": [
        ["storage", "pictures"],
        ["devices", "models/history", "models/onnx", "sources/audio_files", "zeromq"],
        ["features", "models/forecast", "web"],
        [
            *("sources", "detectors", "gates", "controls"),
            *("models/any_onnx", "models/classifier", "models/rnn_rbm", "zeromq/relay"),
        ],
        ["models/audio_text"],
        ["models/latent"],
        ["review", "summary"],
        ["sinks"],
    ],
    "models": [
        ["toolkit"],
        ["data"],
        ["tuning"],
        ["classifier", "rnn_rbm"],
        ["classifier/forecast"],
        ["training/export", "evaluation"],
        ["report"],
        ["generation", "training"],
        ["detection", "discovery", "review", "scan"],
        ["commands"],
    ],
}
# The test kit for plugins depends on nothing that a plugin author does not have.
TEST_KIT = {"engine/testing", "engine/audio", "engine/contracts", "engine/support"}

ZMQ_USERS = (
    "engine/client",
    "engine/wire/keys.py",
    "engine/wire/sockets.py",
    "plugins/controls/zmq.py",
    "plugins/sinks/zmq.py",
    "plugins/zeromq",
)
# Wire and journal are formats; only plugins that write or read them import them.
FORMAT_USERS = (
    "plugins/controls/zmq.py",
    "plugins/sinks/integrations",
    "plugins/sinks/journal.py",
    "plugins/sinks/jsonl.py",
    "plugins/sinks/trigger",
    "plugins/sinks/web.py",
    "plugins/review",
    "plugins/sinks/zmq.py",
    "plugins/sources/folder",
    "plugins/summary",
    "plugins/web",
    "plugins/zeromq",
)
PLUGIN_NAME_USERS = ("engine/cli", "engine/rehearsal")
# Strings that are a plugin's name and something else, or a stated default.
PLUGIN_NAMES_BY_REASON = {
    "engine/client/resume.py": {"journal"},  # where a subscriber starts
    "engine/config/claims.py": {"file", "folder"},  # what two stages would share
    "engine/config/planner.py": {"spectrogram", "energy"},  # defaults of `plugin:`
    "engine/config/schema.py": {"silero", "trigger"},  # a default; a kind of event
    "engine/contracts/bundle.py": {"spectrogram", "energy", "bands"},  # defaults
    "engine/wire/headers.py": {"trigger", "latent"},  # kinds of events
}
CLI_PARTS = {
    "session",
    "display",
    "logs",
    "demo_files",
    "journal_options",
    "run_summary",
}  # what commands may import of the cli

MOST_ENTRIES = 14
MOST_LINES = 600
FEWEST_LINES = 60  # for a file that only one file of its own folder imports
# A model of its own, which the tests use as well as the table of synthesis quality.
SMALL_BY_REASON = {"models/evaluation/synthesis/references.py"}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


Check = Callable[[Path], None]  # fails where a path breaks a rule
ALL = [path for layer in LAYERS for path in modules(layer)]
FILES = [*ALL, *modules("tests"), *modules("bench")]
FOLDERS = sorted({path.parent for path in FILES})
ENGINE = modules("engine")
PLUGINS = modules("plugins")


def for_each(paths: list[Path]) -> Callable[[Check], Callable[[], None]]:
    """Make one test of a rule for a path: it names all that break the rule.

    A test a file would be thousands, whose bookkeeping takes minutes.
    """

    def of(check: Check) -> Callable[[], None]:
        def test() -> None:
            assert paths
            broken = []
            for path in paths:
                try:
                    check(path)
                except AssertionError as error:
                    broken.append(f"{name_of(path)}: {error}")
            assert not broken, "\n".join(broken)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return of


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """Return each imported name and whether it is imported only when needed."""
    found, lazy = [], set()
    tree = parsed(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            lazy.update(id(child) for child in ast.walk(node))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            lazy.update(id(child) for part in node.body for child in ast.walk(part))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.append((alias.name, id(node) in lazy))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            for alias in node.names:
                found.append((f"{node.module}.{alias.name}", id(node) in lazy))
    return found


@functools.cache
def imported_files(path: Path) -> set[str]:
    """Return the files of this repository that `path` imports, by name."""
    found = set()
    for name, _ in imports(path):
        top, *parts = name.split(".")
        if top != "neurovocal":
            continue
        while parts and not (file := ROOT.joinpath(*parts).with_suffix(".py")).exists():
            if (file := ROOT.joinpath(*parts, "__init__.py")).exists():
                break
            parts.pop()
        if parts and file != path:
            found.add(name_of(file))
    return found


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


def rank(name: str) -> tuple[int, str] | None:
    """Return the place of a file in `ORDER` and the package that it belongs to."""
    layer, _, rest = name.removesuffix(".py").partition("/")
    best = None
    for position, packages in enumerate(ORDER[layer]):
        for package in packages:
            longer = best is None or len(package) > len(best[1])
            if within(rest, (package,)) and longer:
                best = position, package
    return best


# ---- who may import what ----


@for_each(ALL)
def test_layers_import_only_those_below(path):
    layer = path.relative_to(ROOT).parts[0]
    above = LAYERS[LAYERS.index(layer) + 1 :]
    for name, _ in imports(path):
        top, *rest = name.split(".")
        assert top not in LAYERS, f"{name}: import neurovocal.{name}"
        if top == "neurovocal":
            assert rest[0] not in above, f"{layer} must not import {name}"


@for_each(ALL)
def test_packages_import_only_those_below(path):
    layer = path.relative_to(ROOT).parts[0]
    if (own := rank(name_of(path))) is None:
        assert path.parent == ROOT / layer or path.name == "__init__.py", (
            f"{path.parent.name} has no place in ORDER: add the package"
        )
        return
    for name in imported_files(path):
        other = rank(name) if name.startswith(f"{layer}/") else None
        if other is None or other[1] == own[1]:
            continue
        assert other[0] < own[0], (
            f"{own[1]} must not import {name}: move what both need into a package "
            f"below, or let the caller pass it in"
        )


@for_each(modules("engine/testing"))
def test_the_test_kit_imports_contracts_and_audio_alone(path):
    for name in imported_files(path):
        assert within(name, tuple(TEST_KIT)), (
            f"{name}: plugin authors run the test kit without it; keep it out"
        )


@for_each(ENGINE)
def test_the_engine_does_not_import_its_own_public_api(path):
    assert "engine/__init__.py" not in imported_files(path), (
        "import the name from the module that defines it, not from neurovocal.engine"
    )


@for_each(ALL)
def test_only_sockets_import_zeromq(path):
    if not within(name_of(path), ZMQ_USERS):
        used = [name for name, _ in imports(path) if name.split(".")[0] == "zmq"]
        assert not used, f"{used}: call engine/wire or plugins/zeromq instead"


@for_each(PLUGINS)
def test_only_plugins_of_these_formats_import_wire_and_journal(path):
    if not within(name_of(path), FORMAT_USERS):
        used = {
            name
            for name in imported_files(path)
            if within(name, ("engine/wire", "engine/journal"))
        }
        assert not used, f"{used}: not part of a plugin author's API, do without"


@functools.cache
def plugin_names() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["project"]["entry-points"]
    return {
        name
        for group, plugins in groups.items()
        if group != "neurovocal.commands"
        for name in plugins
    }


@for_each(ENGINE)
def test_the_engine_knows_no_plugin_by_name(path):
    if within(name_of(path), PLUGIN_NAME_USERS):
        return
    found = {
        node.value
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    } & plugin_names()
    assert found <= PLUGIN_NAMES_BY_REASON.get(name_of(path), set()), (
        f"{found}: only engine/cli and engine/rehearsal may name built-in plugins; "
        f"ask the plugin through a protocol of contracts/stages"
    )


@for_each(ENGINE)
def test_commands_import_the_cli_one_way(path):
    for name in imported_files(path):
        if within(name, ("engine/cli/diagnosis",)):
            continue  # doctor and support: no other command uses it
        if within(name, ("engine/cli/commands",)):
            assert name_of(path) == "engine/cli/app.py", (
                f"only cli/app imports commands; move what {name} shares into cli/"
            )
        elif within(name_of(path), ("engine/cli/commands",)) and within(
            name, ("engine/cli",)
        ):
            assert Path(name).stem in CLI_PARTS, f"a command must not import {name}"


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, check=True, stdout=-1, text=True).stdout.split())


def test_the_client_imports_no_processing():
    loaded = loaded_by("import neurovocal.engine.client")
    found = {
        name
        for name in loaded
        for package in ("lane", "runtime", "audio.resampler")
        if f"{name}.".startswith(f"neurovocal.engine.{package}.")
    }
    assert not found, f"programs that subscribe to an engine need not load {found}"


@pytest.mark.parametrize("module", ["codec", "headers"])
def test_wire_formats_are_usable_without_zeromq(module):
    loaded = loaded_by(f"import neurovocal.engine.wire.{module}")
    assert "zmq" not in loaded, f"wire/{module} must not load ZeroMQ"


# ---- heavy libraries ----


@for_each(ENGINE)
def test_the_engine_needs_no_heavy_library(path):
    for name, lazy in imports(path):
        if name.split(".")[0] in FORBIDDEN:
            assert within(name_of(path), ZMQ_USERS), f"{name} belongs into a plugin"
            assert lazy, f"{name} is imported before anything needs it"


@for_each(PLUGINS)
def test_plugins_load_heavy_libraries_when_they_are_built(path):
    for name, lazy in imports(path):
        top = name.split(".")[0]
        assert top != "torch", "torch belongs to the models"
        assert lazy or top not in HEAVY, f"{name} is imported with the module"


def test_importing_engine_and_plugins_loads_no_heavy_library():
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


def test_only_models_import_torch():
    using = {
        path.relative_to(ROOT).parts[0]
        for path in ALL
        for name, _ in imports(path)
        if name.split(".")[0] == "torch"
    }
    assert using <= {"models"}


# ---- sizes ----


@for_each(FILES)
def test_no_file_is_too_long_to_read(path):
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= MOST_LINES, f"{n_lines} lines: split it by subject"


@for_each(FOLDERS)
def test_no_folder_has_too_many_entries(folder):
    entries = {
        path.relative_to(folder).parts[0]
        for path in folder.rglob("*.py")
        if path != folder / "__init__.py"
    }
    assert len(entries) <= MOST_ENTRIES, (
        f"{len(entries)} entries: make a folder of those that share a subject"
    )


@functools.cache
def importers() -> dict[str, set[str]]:
    """Return for each product file the files that import it."""
    found = defaultdict(set)
    for path in ALL:
        for name in imported_files(path):
            found[name].add(name_of(path))
    return found


@for_each(ALL)
def test_no_small_file_serves_one_neighbour_alone(path):
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    users = importers().get(name_of(path), set())
    if path.name == "__init__.py" or n_lines >= FEWEST_LINES or len(users) != 1:
        return
    (user,) = users
    serves_neighbour = (ROOT / user).parent == path.parent
    allowed = name_of(path) in SMALL_BY_REASON
    assert not serves_neighbour or allowed, f"merge it into {user}"


# ---- text ----


def public(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yield the module and its classes and functions that others may use."""
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


@for_each(ALL)
def test_public_names_have_docstrings(path):
    if not path.read_text(encoding="utf-8").strip():
        return
    for name, node in public(parsed(path)):
        assert ast.get_docstring(node), f"{name} has no docstring"


@for_each(FILES)
def test_no_file_contains_a_path_of_this_machine(path):
    text = path.read_text(encoding="utf-8")
    home = f"{Path.home()}/"
    for place in ("/home/", "/Users/", f"{ROOT}/", home if home != "//" else "/home/"):
        assert place not in text or path == Path(__file__), f"{place} is in {path.name}"


@pytest.mark.parametrize("layer", LAYERS)
def test_types_are_shipped(layer):
    assert (ROOT / layer / "py.typed").is_file()
