"""Records what the program says about bad input."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from golden.inputs import make_inputs
from golden.session import Case, Entry, Session
from golden.subjects import bad_bundles, bad_configs


def record(session: Session) -> Iterator[Entry]:
    """Record the sentences about everything that is refused."""
    make_inputs(session)
    yield from session.record("errors/configurations", bad_configs.cases())
    yield from session.record("errors/overrides", bad_configs.override_cases())
    yield from session.record("errors/arguments", _argument_cases())
    yield from session.record("errors/recordings", _recording_cases())
    yield from session.record("errors/bundles", bad_bundles.cases())
    yield from session.record("errors/journals", _journal_cases(session))
    yield from session.record("errors/sockets", _socket_cases())
    yield from session.record("errors/keys", _key_cases(session))


def _argument_cases() -> Iterator[Case]:
    yield Case("unknown command", ("sing",))
    yield Case("unknown option", ("detect", "x.wav", "--treshold", "3"))
    yield Case("missing argument", ("check",))
    yield Case("too many arguments", ("check", "demo", "demo"))
    yield Case("unknown log level", ("--log-level", "loud", "plugins"))
    yield Case("unknown plugin", ("plugins", "spectogram"))
    yield Case("schema into no folder", ("schema", "--out", "no/such/schema.json"))
    yield Case(
        "init onto a file", ("init", "made.yaml", "--yes"), {"made.yaml": "mine"}
    )
    yield Case("bench of no recording", ("bench", "none.wav", "--seconds", "1"))
    yield Case("bench of too little", ("bench", "--seconds", "0.5"))
    yield Case("rehearse an unknown fault", ("rehearse", "demo", "--only", "dorp"))
    yield Case(
        "rehearse live with a recording",
        ("rehearse", "demo", "--live", "--recording", "INPUTS/short.wav"),
    )
    yield Case("rehearse nothing", ("rehearse", "none.yaml"))
    yield Case("rehearse too little", ("rehearse", "demo", "--seconds", "1"))
    yield Case("configuration with a suggestion", ("check", "dmo"))
    yield Case("configuration that is a folder", ("run", "."))
    yield Case("block length", ("run", "demo", "--block-length", "0"))
    yield Case("evaluate no bundle", ("evaluate", "finch", "INPUTS/tones"))
    yield Case("evaluate no data set", ("evaluate", "bengalese-finch", "none"))
    yield Case(
        "evaluate an unknown split",
        ("evaluate", "bengalese-finch", "INPUTS/tones", "--split", "a=b"),
    )
    yield Case(
        "evaluate a picture without synthesis",
        ("evaluate", "bengalese-finch", "INPUTS/tones", "--picture", "x.png"),
    )
    both = ("--synthesis", "--report", "page")
    yield Case(
        "evaluate synthesis with a report",
        ("evaluate", "bengalese-finch", "INPUTS/tones", *both),
    )
    yield Case("generate without an RNN-RBM", ("generate", "zebra-finch"))
    yield Case("generate no bundle", ("generate", "bengalese-fnch"))
    yield Case("generate cold", ("generate", "--temperature", "0"))
    yield Case("generate hot", ("generate", "--temperature", "11"))
    yield Case("generate an MP3", ("generate", "--out", "song.mp3"))
    yield Case("generate into no folder", ("generate", "--out", "no/such/song.wav"))
    yield Case("generate from nothing", ("generate", "--prime", "none.wav"))
    yield Case(
        "generate from text", ("generate", "--prime", "INPUTS/text.wav", "-s", "0.1")
    )
    yield Case("generate unknown feedback", ("generate", "--feedback", "loud"))


def _recording_cases() -> Iterator[Case]:
    for command in ("detect", "label"):
        yield Case(f"{command} nothing", (command, "none.wav"))
        yield Case(f"{command} text", (command, "INPUTS/text.wav"))
        yield Case(
            f"{command} into no folder",
            (command, "INPUTS/other.wav", "--out", "no/such/folder.csv"),
        )
    yield Case("empty file", ("detect", "INPUTS/empty.wav"))
    yield Case("header alone", ("detect", "INPUTS/header.wav"))
    yield Case("no samples", ("detect", "INPUTS/nothing.wav"))
    yield Case("truncated", ("detect", "INPUTS/truncated.wav"))
    yield Case("low rate", ("detect", "INPUTS/slow.wav"))
    yield Case("one bad of two", ("label", "INPUTS/mixed"))
    yield Case("folder without recordings", ("detect", "INPUTS/no-audio"))
    yield Case("pattern without recordings", ("detect", "INPUTS/*.mp3"))
    yield Case("no files", ("detect",))
    yield Case("the same file twice", ("detect", *["INPUTS/silence.wav"] * 2))
    other = ("detect", "INPUTS/other.wav")
    yield Case("words for channels", (*other, "--channels", "left"))
    yield Case("absent channel", (*other, "--channels", "3"))
    yield Case("channel 0", (*other, "--channels", "0"))
    yield Case("unknown zone", (*other, "--timezone", "Europe/Bärlin"))
    yield Case("block length 0", (*other, "--block-length", "0"))
    yield Case("words for a block length", (*other, "--block-length", "many"))
    yield Case("unknown form", (*other, "--format", "xml"))
    yield Case("unknown preset", (*other, "--config", "songbrid"))
    yield Case("output is a folder", (*other, "--out", "."))
    yield Case("unknown bundle", ("label", other[1], "--bundle", "bengalesefinch"))


_LIVE = """\
version: 1
source: {plugin: synthetic, options: {duration_s: 1}}
sinks: [{plugin: journal, options: {path: j.sqlite}}]
"""


def _journal_cases(session: Session) -> Iterator[Case]:
    text = {"j.sqlite": "not a journal at all, but long enough to be one\n" * 40}
    for command in ("export", "replay"):
        yield Case(f"{command} nothing", (command, "none.sqlite"))
        yield Case(f"{command} text", (command, "j.sqlite"), text)
    yield Case("export an empty file", ("export", "j.sqlite"), {"j.sqlite": ""})
    yield Case("export a folder", ("export", "."))
    yield Case("run onto text", ("run", "run.yaml"), {"run.yaml": _LIVE, **text})
    folder = session.place("errors/recorded")
    (folder / "run.yaml").write_text(_LIVE)
    session.run("run", "run.yaml", cwd=folder)
    journal = str(folder / "j.sqlite")

    def case(name: str, *options: str) -> Case:
        return Case(name, ("export", journal, *options))

    yield case("unknown run", "--run", "x")
    yield case("unknown stream", "--stream", "bird")
    yield case("unknown kind", "--kinds", "label,labl")
    yield case("time without a zone", "--since", "2026-05-01T04:00")
    yield case("no time", "--until", "yesterday")
    yield case("raven of gaps", "--format", "raven", "--kinds", "gap")
    yield case("unknown form", "--format", "xml")
    yield case("parquet to stdout", "--format", "parquet")
    yield case("into no folder", "--out", "no/such/t.csv")
    yield case("nothing that was asked for", "--kinds", "withheld")

    def newer(place: Path) -> None:
        _copy_of_newer(folder / "j.sqlite", place)

    yield Case("export a newer version", ("export", "j.sqlite"), prepare=newer)
    again = ("run", "run.yaml")
    files: dict[str, str | bytes] = {"run.yaml": _LIVE}
    yield Case("run onto a newer version", again, files, prepare=newer)
    yield Case("replay an unknown run", ("replay", journal, "--run", "x"))


def _copy_of_newer(journal: Path, folder: Path) -> None:
    """Copy a journal as if a later version of the program had written it."""
    shutil.copy(journal, folder / "j.sqlite")
    with closing(sqlite3.connect(folder / "j.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
        db.commit()


def _socket_cases() -> Iterator[Case]:
    soon = ("--count", "1", "--timeout", "0.3")
    yield Case("listen to no endpoint", ("listen", "localhost:5556"))
    yield Case("listen to a bad port", ("listen", "tcp://127.0.0.1:99999", *soon))
    yield Case("listen to an unknown kind", ("listen", "--kinds", "label,lable"))
    yield Case("listen without keys", ("listen", "--keys", "none", *soon))
    yield Case("listen to nobody", ("listen", "ipc://none.socket", *soon))
    yield Case("listen to no message", ("listen", "--count", "0"))
    yield Case("control without a command", ("control", "tcp://127.0.0.1:5557"))
    yield Case("control without words", ("control",))
    yield Case("control a bad endpoint", ("control", "udp://x", "status"))
    yield Case("control an assignment", ("control", "set", "temperature"))
    yield Case("control a bad value", ("control", "set", "temperature=[1"))
    yield Case("control without keys", ("control", "status", "--keys", "none"))
    yield Case("relay of nobody", ("relay",))
    yield Case("relay a bad endpoint", ("relay", "--from", "nowhere"))
    live = "tcp://127.0.0.1:5998"
    yield Case("relay to everybody", ("relay", "--from", live, "--to", "tcp://*:5997"))
    yield Case("relay one station twice", ("relay", "--from", live, "--from", live))
    replayed = ("--replay-to", "tcp://127.0.0.1:5996")
    yield Case("relay replay of nobody", ("relay", "--from", live, *replayed))
    yield Case("relay without keys", ("relay", "--from", live, "--keys", "none"))


def _key_cases(session: Session) -> Iterator[Case]:
    folder = session.place("errors/keys-made")
    for arguments in (("new", "engine"), ("add", "engine", "alice")):
        session.run("keys", *arguments, cwd=folder)
    engine = str(folder / "engine")
    yield Case("new onto keys", ("keys", "new", engine))
    yield Case("add without an engine", ("keys", "add", "none", "bob"))
    yield Case("add a bad name", ("keys", "add", engine, "../bob"))
    yield Case("add a known name", ("keys", "add", engine, "alice"))
    yield Case(
        "add onto keys", ("keys", "add", engine, "bob", "-o", engine[:-6] + "alice")
    )
    yield Case("remove nobody", ("keys", "remove", engine, "bob"))
    yield Case("list without keys", ("keys", "list", "none"))
    yield Case(
        "secret that others can read",
        ("check", "run.yaml"),
        {"run.yaml": f"keys: {engine}\n{_LIVE}"},
        prepare=lambda _: (folder / "engine" / "server.key_secret").chmod(0o644),
    )
