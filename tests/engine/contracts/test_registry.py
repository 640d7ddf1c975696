"""Registry: plugins are imported lazily, and errors name the remedy."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from neurovocal.engine.contracts import registry as registry_module
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import PluginError
from neurovocal.engine.contracts.option_texts import texts_of
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import GROUPS, BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry

PLUGIN = Plugin("sink", Options, lambda options, context: None, "does nothing")

LOCAL = """
from neurovocal.engine.contracts.plugin import Options, Plugin

loaded = []
plugin = Plugin("sink", Options, lambda options, context: "built", "a local one")
old = Plugin("sink", Options, lambda options, context: None, "older", api=0)
thing = 3
"""


class Dist:
    def __init__(self, name):
        self.name = name


def point(name, kind="sink", value="somewhere:plugin", dist="other-birds"):
    entry = EntryPoint(name, value, GROUPS[kind])
    vars(entry)["dist"] = Dist(dist)
    return entry


@pytest.fixture
def installed(monkeypatch):
    """Replace the installed entry points by these."""

    def install(*points):
        def entry_points():
            return EntryPoints(points)

        monkeypatch.setattr(registry_module, "entry_points", entry_points)
        return Registry()

    return install


def refused(registry, kind, name, base=None):
    with pytest.raises(PluginError) as caught:
        registry.get(kind, name, base)
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_built_ins_are_found_through_entry_points():
    registry = Registry()
    assert {"energy", "percentile"} <= set(registry.names("detector"))
    assert registry.names("sink") == sorted(registry.names("sink"))
    assert registry.origin("detector", "energy") == "neurovocal"
    assert registry.get("detector", "energy").kind == "detector"


def test_listing_names_imports_no_plugin():
    code = (
        "import sys\n"
        "from neurovocal.engine.contracts.plugin import GROUPS\n"
        "from neurovocal.engine.contracts.registry import Registry\n"
        "names = [Registry().names(kind) for kind in GROUPS]\n"
        "assert all(names), names\n"
        "found = [m for m in sys.modules if m.startswith('neurovocal.plugins')]\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plugin_that_cannot_be_imported_affects_no_other(installed):
    registry = installed(
        point("broken", value="no_such_module_at_all:plugin"),
        point("empty", value="neurovocal.engine.contracts.errors:plugin"),
        point("fine", value="neurovocal.engine.contracts.errors:EXIT_CLEAN"),
    )
    assert registry.names("sink") == ["broken", "empty", "fine"]
    assert refused(registry, "sink", "broken") == (
        "sink 'broken' cannot be loaded: No module named 'no_such_module_at_all'"
    )
    assert "cannot be loaded" in refused(registry, "sink", "empty")
    assert refused(registry, "sink", "fine") == (
        "sink 'fine' is not a neurovocal Plugin object"
    )


def test_a_plugin_whose_import_fails_is_rejected(installed, tmp_path, monkeypatch):
    (tmp_path / "nv_failing_plugin.py").write_text("raise OSError('no PortAudio')")
    monkeypatch.syspath_prepend(tmp_path)
    registry = installed(point("deaf", value="nv_failing_plugin:plugin"))
    assert refused(registry, "sink", "deaf") == (
        "sink 'deaf' cannot be loaded: no PortAudio"
    )


def test_an_unknown_name_is_rejected_with_a_suggestion(installed):
    registry = installed(point("zmq"), point("journal"))
    assert refused(registry, "sink", "zqm") == (
        "unknown sink plugin 'zqm' (did you mean 'zmq'?)"
    )
    assert refused(registry, "sink", "mqtt-5") == (
        "unknown sink plugin 'mqtt-5' (known: journal, zmq)"
    )
    assert refused(registry, "model", "zmq") == (
        "unknown model plugin 'zmq' (it is a sink plugin)"
    )
    assert refused(installed(), "sink", "zmq") == (
        "unknown sink plugin 'zmq' (none is installed)"
    )


def test_a_name_claimed_by_two_distributions_is_rejected(installed):
    registry = installed(point("zmq", dist="neurovocal"), point("zmq", dist="birds"))
    assert refused(registry, "sink", "zmq") == (
        "sink plugin 'zmq' is claimed by neurovocal and birds: uninstall one"
    )


def test_a_plugin_of_another_kind_or_api_version_is_rejected():
    old = Plugin("sink", Options, lambda options, context: None, "old", api=99)
    registry = Registry({("model", "x"): PLUGIN, ("sink", "old"): old})
    assert refused(registry, "model", "x") == "'x' is a sink plugin, not a model"
    assert refused(registry, "sink", "old") == (
        "sink 'old' was written for plugin API 99, this engine has 1: install a "
        "matching version of it"
    )


def test_a_plugin_in_a_local_file_is_loaded(tmp_path):
    (tmp_path / "mine.py").write_text(LOCAL)
    registry = Registry()
    plugin = registry.get("sink", "mine.py:plugin", tmp_path)
    assert plugin.build(Options(), None) == "built"
    absolute = f"{tmp_path}/mine.py:plugin"
    assert registry.get("sink", absolute) is plugin, "loaded twice"
    assert registry.origin("sink", absolute) == "local"
    assert refused(registry, "sink", "mine.py:other", tmp_path).endswith(
        "mine.py' has no 'other'"
    )
    assert refused(registry, "sink", "none.py:plugin", tmp_path).endswith(
        "none.py' does not exist"
    )
    assert "is not a neurovocal Plugin" in refused(
        registry, "sink", "mine.py:thing", tmp_path
    )
    assert "API 0" in refused(registry, "sink", "mine.py:old", tmp_path)
    assert "is a sink plugin, not a source" in refused(
        registry, "source", "mine.py:plugin", tmp_path
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("raise RuntimeError('no card')\n", "no card"),
        ("import no_such_module_at_all\n", "no_such_module_at_all"),
    ],
)
def test_a_local_file_that_fails_is_rejected(tmp_path, text, reason):
    path = tmp_path / "bad.py"
    path.write_text(text)
    sentence = refused(Registry(), "sink", "bad.py:plugin", tmp_path)
    assert sentence.startswith(f"plugin file '{path}' fails: ")
    assert reason in sentence
    # Mended, it loads: nothing of the failure is kept.
    path.write_text(LOCAL)
    assert Registry().get("sink", "bad.py:plugin", tmp_path).summary == "a local one"


def test_paths_start_from_the_working_folder_then_from_the_base(tmp_path, monkeypatch):
    here, base = tmp_path / "here", tmp_path / "base"
    for folder in (here, base):
        folder.mkdir()
        (folder / "both.wav").touch()
    (base / "only.wav").touch()
    monkeypatch.chdir(here)
    context = BuildContext(clock=ManualClock(), run="test", base=base)
    assert context.path("both.wav").resolve() == here / "both.wav"
    assert context.path("only.wav") == base / "only.wav"
    assert str(context.path("none.wav")) == "none.wav"
    assert context.path(base / "x.wav") == base / "x.wav"


def test_every_option_of_every_plugin_has_a_help_text():
    registry = Registry()
    for kind in GROUPS:
        for name in registry.names(kind):
            try:
                plugin = registry.get(kind, name)
            except PluginError as error:
                pytest.fail(str(error))
            assert plugin.summary
            texts = texts_of(plugin.options)
            for key in plugin.options.model_fields:
                assert texts.get(key), f"{kind} '{name}': {key} has no help text"
