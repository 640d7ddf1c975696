"""Records what is published, and what the control and replay sockets answer."""

import json
import re
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from processes.waiting import PATIENCE_S, PROCESS_S

from golden.files import (
    CLOCKED_KINDS,
    DRAWN_KINDS,
    array_summary,
    clocked_lines,
    grouped,
)
from golden.inputs import make_inputs
from golden.masking import clock_form, compact, form_of, replaced
from golden.session import Entry, Session
from golden.subjects.peers import (
    Ended,
    Parts,
    asked,
    by_topic,
    peer,
    received,
    request,
    subscribe,
    wait_until_idle,
)
from golden.subjects.runs import ALL_KINDS, every_sink

_VOLATILE = ("run", "latency")
_PLACES = ("sample", "at", "position")  # of commands, which come at any time
_MODELS = (
    "models:\n  - {plugin: classifier}\n"
    "  - {plugin: rnn_rbm, options: {synthesis: predict, sound: true, seed: 7}}\n"
)
_LABELLING = "models: [{plugin: classifier}]\n"
_FAST = """\
version: 1
station: aviary-3
source:
  plugin: file
  options: {path: INPUTS/brief.wav, start_utc: '2026-05-01T04:00:00Z'}
bundle: bengalese-finch
"""
_SINK = (
    "  - {plugin: zmq, options: {endpoint: 'ENDPOINT', queue_length: 100000, "
    "wait_for_subscribers: 1, linger_s: 5}, queue: {events: 10000, bulk: 10000}, "
    "events: KINDS}\n"
)
_LIVE = """\
version: 1
station: aviary-3
tile: 2
source:
  plugin: file
  options: {path: INPUTS/short.wav, pace: realtime, repeat: 0}
bundle: bengalese-finch
models:
  - {plugin: classifier}
  - {plugin: rnn_rbm, options: {synthesis: predict, seed: 7}}
control: {plugin: zmq, options: {endpoint: 'CONTROL'}}
sinks:
  - {plugin: journal, options: {path: events.sqlite, replay: 'REPLAY'}}
  - {plugin: prometheus, options: {endpoint: 'METRICS'}}
  - {plugin: zmq, options: {endpoint: 'LIVE'}, events: [stats, control]}
"""


def record(session: Session) -> Iterator[Entry]:
    """Record everything that goes over sockets."""
    make_inputs(session)
    yield from _published(session)
    yield from _encrypted(session)
    yield from _listened(session)
    yield from _relayed(session)
    yield from _steered(session)
    yield _interrupted(session)


def _fast(session: Session, folder: Path, text: str, kinds: str = ALL_KINDS) -> str:
    """Write the configuration of a run that publishes; return its endpoint."""
    endpoint = f"tcp://127.0.0.1:{session.free_port()}"
    text = f"{text}sinks:\n{_SINK}".replace("ENDPOINT", endpoint).replace(
        "KINDS", kinds
    )
    (folder / "run.yaml").write_text(session.filled(text))
    return endpoint


def _published(session: Session) -> Iterator[Entry]:
    folder = session.place("wire/published")
    endpoint = _fast(session, folder, _FAST + _MODELS)
    with (
        peer(zmq.SUB, endpoint) as socket,
        session.started("run", "run.yaml", cwd=folder) as process,
    ):
        subscribe(socket, "nv1/")
        messages = received(socket, Ended(process))
    yield Entry("wire/published", "messages", messages_text(session, messages))
    yield Entry("wire/published", "run", _ended(session, folder, process.returncode))


def messages_text(session: Session, messages: list[Parts]) -> str:
    """Describe messages by topic: number, first and last headers, payloads.

    Each second statistics are published and anchors repeated: how often that is
    follows the clock, so that neither is described.
    """
    lines = []
    for topic, repeated in by_topic(messages).items():
        kind = topic.split("/")[1]
        if kind == "stats":
            continue
        first: dict[int, Parts] = {}
        for parts in repeated:
            first.setdefault(json.loads(parts[1])["seq"], parts)
        found = list(first.values())
        headers = [json.loads(parts[1]) for parts in found]
        seqs = [header["seq"] for header in headers]
        whole = seqs == list(range(len(seqs))) and {len(p) for p in found} == {3}
        lines.append(f"{topic}: three parts, no hole: {whole}")
        if kind in CLOCKED_KINDS:
            lines += clocked_lines(kind, kind, headers)
            continue
        lines += [f"fields {compact(form_of(headers[0]))}"]
        shown = []
        for header, (_, _, payload) in zip(headers, found, strict=True):
            line = compact(replaced(header, _VOLATILE))
            if payload:
                values = np.frombuffer(payload, "<f4").reshape(header["shape"])
                drawn = kind in DRAWN_KINDS and header.get("mode") != "predict"
                line += f" {array_summary(session, values, drawn=drawn)}"
            shown.append(line)
        lines += grouped(session, kind, shown, kind)
    return "\n".join(lines) or "no messages"


def _encrypted(session: Session) -> Iterator[Entry]:
    """Run with keys: a reader that is let in, and one that is not."""
    folder = session.place("wire/encrypted")
    for arguments in (
        ("new", "engine"),
        ("add", "engine", "alice"),
        ("new", "other"),
        ("add", "other", "eve"),
    ):
        session.run("keys", *arguments, cwd=folder)
    shutil.copy(folder / "alice" / "server.key", folder / "eve" / "server.key")
    text = f"keys: {folder / 'engine'}\n{_FAST}{_LABELLING}"
    endpoint = _fast(session, folder, text, "[label, onset, offset, anchor]")
    with (
        peer(zmq.SUB, endpoint, folder / "eve") as refused,
        peer(zmq.SUB, endpoint) as plain,
        peer(zmq.SUB, endpoint, folder / "alice") as socket,
        session.started("run", "run.yaml", cwd=folder) as process,
    ):
        for each in (refused, plain):
            each.setsockopt_string(zmq.SUBSCRIBE, "nv1/")
        time.sleep(1.0)
        subscribe(socket, "nv1/")
        messages = received(socket, Ended(process))
        others = [bool(each.poll(0)) for each in (refused, plain)]
    yield Entry("wire/encrypted", "messages", messages_text(session, messages))
    text = f"a key that is not let in hears: {others[0]}\nwithout a key: {others[1]}"
    yield Entry("wire/encrypted", "others", text)
    yield Entry("wire/encrypted", "run", _ended(session, folder, process.returncode))


_LISTENED = {
    "labels": ("--kinds", "label"),
    "labels as JSON": ("--json",),
    "marks": ("--kinds", "onset,offset,anchor,forecast"),
    "values": ("--kinds", "surprise,posteriors", "--json", "--values"),
    "frames": ("--kinds", "frames,surprise,posteriors,synthesis,audio,block"),
    "first three": ("--count", "3", "--stream", "brief.wav"),
}


def _listened(session: Session) -> Iterator[Entry]:
    """Let `neurovocal listen` be the subscriber, until the run has ended."""
    for name, options in _LISTENED.items():
        folder = session.place(f"wire/listen {name}")
        heard = session.place(f"wire/listen {name}/heard")
        bulky = name in ("values", "frames")
        models = _MODELS if bulky else _LABELLING
        endpoint = _fast(session, folder, _FAST + models)
        with (
            session.started("run", "run.yaml", cwd=folder) as process,
            session.started("listen", endpoint, *options, cwd=heard) as listener,
        ):
            process.wait(PROCESS_S)
            if "--count" not in options:
                wait_until_idle(listener)
                listener.send_signal(signal.SIGINT)
            listener.wait(PATIENCE_S)
        masked = session.masker.mask((heard / "stdout").read_text(encoding="utf-8"))
        lines = masked.splitlines()
        if name in ("values", "frames", "marks"):
            # Messages of several kinds come in no order that is fixed.
            lines = sorted(lines)
        if name == "values":
            lines = [_without_values(session, line) for line in lines]
        if not session.exact:
            lines = [_loose_line(session.masker.loose(line)) for line in lines]
        said = session.masker.mask((heard / "stderr").read_text(encoding="utf-8"))
        # How long the run takes to begin is not the program's doing.
        said = "".join(
            line for line in said.splitlines(keepends=True) if "heard from" not in line
        )
        shown = "\n".join(session.shortened(lines))
        text = f"exit code {listener.returncode}\n{shown}\n-- stderr\n{said}"
        yield Entry("wire/listen", name, text)


def _without_values(session: Session, line: str) -> str:
    fields = json.loads(line)
    values = np.asarray(fields.pop("values"), dtype=np.float32)
    return f"{compact(fields)} {array_summary(session, values)}"


def _loose_line(line: str) -> str:
    """Mark the posterior or score in a line of `neurovocal listen`."""
    line = re.sub(r"(  \S+ +)(\d\.\d{3})(  )", r"\1~\2\3", line)
    return re.sub(r"(score )(-?\d+(?:\.\d+)?)", r"\1~\2", line)


def _relayed(session: Session) -> Iterator[Entry]:
    """Put a relay between a run and a subscriber."""
    folder = session.place("wire/relay")
    between = session.place("wire/relay/between")
    kinds = "[label, onset, offset, anchor]"
    text = f"{_FAST}{_LABELLING}"
    endpoint = _fast(session, folder, text, kinds)
    relayed = f"tcp://127.0.0.1:{session.free_port()}"
    relay = ("relay", "--from", endpoint, "--to", relayed)
    with (
        session.started(*relay, cwd=between) as station,
        peer(zmq.SUB, relayed) as socket,
    ):
        subscribe(socket, "nv1/label/", "nv1/onset/", "nv1/offset/", "nv1/anchor/")
        with session.started("run", "run.yaml", cwd=folder) as process:
            messages = received(socket, Ended(process, station), quiet_s=1.0)
        station.terminate()
        station.wait(PATIENCE_S)
    yield Entry("wire/relay", "messages", messages_text(session, messages))
    yield Entry("wire/relay", "run", _ended(session, folder, process.returncode))
    yield Entry("wire/relay", "relay", _ended(session, between, station.returncode))


_COMMANDS: dict[str, Any] = {
    "ping": {"v": 1, "id": 1, "command": "ping"},
    "status": {"v": 1, "id": "s", "command": "status"},
    "set": {
        "v": 1,
        "id": 2,
        "command": "set",
        "arguments": {"temperature": 0.8, "synthesis": "continue"},
    },
    "set by model": {
        "v": 1,
        "command": "set",
        "model": "rnn_rbm",
        "arguments": {"gibbs_steps": 3},
    },
    "set by place": {"v": 1, "command": "set", "model": 1, "arguments": {"seed": 4}},
    "prime": {"v": 1, "command": "prime", "arguments": {"path": "INPUTS/other.wav"}},
    "prime from nothing": {"v": 1, "command": "prime", "arguments": {"path": "none"}},
    "set nothing": {"v": 1, "command": "set"},
    "set unknown": {"v": 1, "command": "set", "arguments": {"temperatur": 1}},
    "set wrong": {
        "v": 1,
        "command": "set",
        "arguments": {"temperature": -1, "seed": "x"},
    },
    "set fixed": {"v": 1, "command": "set", "arguments": {"baseline_s": 1}},
    "set the classifier": {
        "v": 1,
        "command": "set",
        "model": "classifier",
        "arguments": {"min_posterior": 1},
    },
    "unknown model": {"v": 1, "command": "set", "model": "x", "arguments": {"seed": 1}},
    "unknown lane": {"v": 1, "command": "status", "lane": "left"},
    "unknown command": {"v": 1, "id": 9, "command": "pime"},
    "swap of a path": {"v": 1, "command": "swap", "arguments": {"config": "../x.yaml"}},
    "swap of nothing": {"v": 1, "command": "swap", "arguments": {"config": "x.yaml"}},
    "swap with a mistake": {"v": 1, "command": "swap", "arguments": {"shado": 1}},
    "swap of a lane": {"v": 1, "command": "swap", "lane": "aviary-3"},
    "swap cancelled too early": {
        "v": 1,
        "command": "swap",
        "arguments": {"cancel": True},
    },
    "swap": {"v": 1, "command": "swap", "arguments": {"shadow_s": 30}},
    "swap twice": {"v": 1, "command": "swap", "arguments": {"shadow_s": 30}},
    "swap cancelled": {"v": 1, "command": "swap", "arguments": {"cancel": True}},
    "no version": {"id": 3, "command": "ping"},
    "another version": {"v": 2, "id": 3, "command": "ping"},
    "unknown field": {"v": 1, "id": 3, "command": "ping", "comand": "x"},
    "no command": {"v": 1, "id": 3},
    "command of a wrong type": {"v": 1, "id": [3], "command": 7},
    "long command": {"v": 1, "command": "x" * 100},
    "list": [1, 2],
}
_MALFORMED = {
    "not JSON": b"status",
    "not UTF-8": b"\xff\xfe",
    "empty": b"",
    "too long": b'{"v":1,"command":"' + b"x" * 70_000 + b'"}',
    "nested too deep": b"[" * 5000,
}
_REPLAYS: dict[str, Any] = {
    "topics": {"v": 1, "id": 1, "command": "topics", "kinds": ["label", "anchor"]},
    "topics of an unknown kind": {"v": 1, "id": 2, "command": "topics", "kinds": ["x"]},
    "from the beginning": {"kind": "label", "start": "journal", "most": 3},
    "after the third": {"kind": "label", "after": {"seq": 2}, "most": 2},
    "after a run that is not known": {
        "kind": "onset",
        "after": {"run": "ffffffffffff", "seq": 2},
        "start": "journal",
        "most": 1,
    },
    "another stream": {"kind": "label", "stream": "x", "start": "journal"},
    "kind without messages": {"kind": "withheld", "start": "journal"},
    "unknown kind": {"kind": "lable", "start": "journal"},
    "unknown start": {"kind": "label", "start": "now"},
    "too many": {"kind": "label", "start": "journal", "most": 5000},
    "none": {"kind": "label", "start": "journal", "most": 0},
    "unknown field": {"kind": "label", "start": "journal", "most": 1, "moust": 1},
    "no kind": {"kind": None},
    "another version": {"v": 2, "kind": "label"},
    "unknown command": {"command": "replays", "kind": "label"},
}


def _steered(session: Session) -> Iterator[Entry]:
    """Steer a run at the pace of hearing, and ask its journal for an older run."""
    folder = session.place("wire/steered")
    shutil.copy(every_sink(session) / "events.sqlite", folder / "events.sqlite")
    ends = {
        name: f"tcp://127.0.0.1:{session.free_port()}"
        for name in ("CONTROL", "REPLAY", "LIVE")
    }
    metrics = f"127.0.0.1:{session.free_port()}"
    text = _LIVE.replace("METRICS", metrics)
    for name, endpoint in ends.items():
        text = text.replace(name, endpoint)
    (folder / "run.yaml").write_text(session.filled(text))
    asking = session.place("wire/steered/asking")
    with (
        session.started("run", "run.yaml", cwd=folder) as process,
        peer(zmq.DEALER, ends["CONTROL"]) as control,
        peer(zmq.DEALER, ends["REPLAY"]) as replay,
        peer(zmq.SUB, ends["LIVE"]) as live,
    ):
        subscribe(live, "nv1/stats/", "nv1/control/")
        _wait_for_begin(control)
        yield from _answers(session, control)
        yield from _pages(session, replay)
        yield Entry("wire/metrics", "metrics", _metrics(metrics))
        for name, words in _CLI.items():
            result = session.run("control", ends["CONTROL"], *words, cwd=asking)
            yield Entry("wire/control-command", name, _told(session, result, words))
        process.wait(PROCESS_S)
        heard = received(live, Ended(process))
    yield Entry("wire/control", "events", _events_text(session, heard))
    said = _ended(session, folder, process.returncode, lines=False)
    yield Entry("wire/control-command", "run", said)


_CLI: dict[str, tuple[str, ...]] = {
    "ping": ("ping",),
    "status": ("status",),
    "status as JSON": ("status", "--json"),
    "set": ("set", "temperature=0.5", "synthesis=off"),
    "set a mistake": ("set", "temperatur=1"),
    "prime": ("prime", "INPUTS/other.wav"),
    "unknown lane": ("ping", "--lane", "left", "--model", "classifier"),
    "stop": ("stop",),
}


def _events_text(session: Session, messages: list[Parts]) -> str:
    """The form of statistics, and the commands that took effect, in their order."""
    headers = [json.loads(parts[1]) for parts in messages]
    stats = [header for header in headers if header["kind"] == "stats"]
    commands = [
        compact(replaced(header, (*_VOLATILE, *_PLACES, "seq", "utc_ns")))
        for header in headers
        if header["kind"] == "control"
    ]
    lines = [compact(clock_form(header)) for header in stats[:1]]
    return "\n".join(_any_repetition(session.masker.mask(x)) for x in lines + commands)


def _wait_for_begin(control: "zmq.Socket[bytes]") -> None:
    for _ in range(600):
        parts = asked(control, request(v=1, command="status"))
        if parts and json.loads(parts[0]).get("ok"):
            streams = json.loads(parts[0])["lanes"][0]["streams"]
            if streams and streams[0]["seconds"] > 1:
                return
        time.sleep(0.1)
    raise TimeoutError("the run does not begin")


def _answers(session: Session, control: "zmq.Socket[bytes]") -> Iterator[Entry]:
    for name, fields in _COMMANDS.items():
        body = json.dumps(fields).encode()
        body = session.filled(body.decode()).encode()
        yield Entry("wire/control", name, _reply(session, asked(control, body)))
    for name, body in _MALFORMED.items():
        parts = _asked_malformed(control, name, body)
        yield Entry("wire/control", name, _reply(session, parts))
    two = asked(control, request(v=1, command="ping"), b"more")
    yield Entry("wire/control", "two parts", _reply(session, two))


def _asked_malformed(
    socket: "zmq.Socket[bytes]", name: str, body: bytes
) -> Parts | None:
    """Send a request that cannot be read; the longest has no reply to wait for."""
    if name == "too long":
        return asked(socket, body, timeout_s=1.0)
    return asked(socket, body)


def _reply(session: Session, parts: Parts | None) -> str:
    if parts is None:
        return "no reply"
    return "\n".join(_reply_part(session, part) for part in parts)


def _reply_part(session: Session, part: bytes) -> str:
    reply = json.loads(part)
    if "lanes" in reply:
        reply["lanes"] = clock_form(reply["lanes"])
    for stream in reply.get("applied", []):
        stream["seconds"] = "*"
    shown = compact(replaced(reply, ("run", "sample")))
    return _any_repetition(session.masker.mask(shown))


def _any_repetition(text: str) -> str:
    """Mask how often the recording has been repeated by now."""
    return re.sub(r"short\.wav(~\d+)?", "short.wav~*", text)


def _pages(session: Session, replay: "zmq.Socket[bytes]") -> Iterator[Entry]:
    run = ""
    for name, fields in _REPLAYS.items():
        wanted = {"v": 1, "id": 7, "command": "replay", "stream": "short.wav", **fields}
        if "topics" in name:
            wanted = fields
        if "after" in fields:
            wanted["after"] = {"run": run, **fields["after"]}
        parts = asked(replay, request(**wanted))
        text = _reply(session, parts[:1] if parts else None)
        for start in range(1, len(parts or ()), 3):
            topic, header, payload = (parts or [])[start : start + 3]
            shown = json.loads(header)
            run = run or shown["run"]
            shown = compact(replaced(shown, _VOLATILE))
            text += (
                f"\n{topic.decode()} {session.masker.loose(shown)} {len(payload)} bytes"
            )
        yield Entry("wire/replay", name, text)
    for name, body in _MALFORMED.items():
        parts = _asked_malformed(replay, name, body)
        yield Entry("wire/replay", name, _reply(session, parts))


def _metrics(address: str) -> str:
    """Names, types and help of the metrics; their values follow the clock."""
    with urllib.request.urlopen(
        f"http://{address}/metrics", timeout=PATIENCE_S
    ) as answer:
        text = answer.read().decode()
        kind = answer.headers["Content-Type"]
    values = [line for line in text.splitlines() if line[:1] != "#"]
    names = {re.sub(r'"[^"]*"', "*", line.rsplit(" ", 1)[0]) for line in values}
    notes = [line for line in text.splitlines() if line[:1] == "#"]
    return "\n".join([str(kind), *notes, *sorted(names)])


def _told(session: Session, result: Any, words: tuple[str, ...]) -> str:
    """What `neurovocal control` says, without figures of the moment."""
    out = result.out
    if words[:1] == ("status",):
        if "--json" in words:
            out = compact(clock_form(json.loads(out)))
        else:
            out = re.sub(r"-?\d+\.\d+ (s|dB|ms)\b", r"* \1", out)
    out = re.sub(r"from [\d.]+ s \(sample \d+\)", "from * s (sample *)", out)
    shown = _any_repetition(session.masker.mask(f"{out}\n-- stderr\n{result.err}"))
    command = f"$ neurovocal control ENDPOINT {' '.join(words)}"
    return f"{command}\nexit code {result.code}\n{shown}"


def _interrupted(session: Session) -> Entry:
    """Stop a run at the pace of hearing by a signal, once it has said something."""
    folder = session.place("wire/interrupted")
    text = (
        _LIVE.split("control:")[0]
        + "sinks: [{plugin: table, options: {path: t.csv}}]\n"
    )
    (folder / "run.yaml").write_text(session.filled(text))
    with session.started("run", "run.yaml", cwd=folder) as process:
        while process.poll() is None and not (folder / "stdout").stat().st_size:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(PROCESS_S)
    said = _ended(session, folder, process.returncode, lines=False)
    first = (folder / "stdout").read_text(encoding="utf-8").splitlines()[0]
    return Entry(
        "wire/stopped", "by a signal", f"{session.masker.loose(first)}\n{said}"
    )


def _ended(session: Session, folder: Path, code: int, *, lines: bool = True) -> str:
    """Exit code and messages of a program that was started; its lines, if wanted."""
    err = (folder / "stderr").read_text(encoding="utf-8")
    out = (folder / "stdout").read_text(encoding="utf-8")
    shown = [session.masker.loose(session.masker.mask(out))] if lines else []
    said = session.masker.mask(err)
    return "\n".join([f"exit code {code}", *shown, "-- stderr", said])
