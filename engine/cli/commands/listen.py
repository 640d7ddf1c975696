"""``neurovocal listen``: print an engine's events as lines."""

import logging
import shutil
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import msgspec
import typer

from neurovocal.engine.client import Received, Subscriber
from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.contracts.types import (
    Anchor,
    Comparison,
    Control,
    Event,
    Forecast,
    Gap,
    Health,
    Label,
    Latent,
    NearMiss,
    Offset,
    Onset,
    Stats,
    Suggestion,
    Trigger,
)
from neurovocal.engine.support.text import printable
from neurovocal.engine.wire.headers import array_of

log = logging.getLogger("neurovocal")

# Seconds without a message after which a note is printed.
_NOTE_AFTER_S = 2.0
_STREAM_WIDTH = 10
_NARROWEST = 20  # of the last column
_NARROW = 76


def listen(
    endpoint: Annotated[
        str, typer.Argument(help="Where the engine publishes.", metavar="ENDPOINT")
    ] = "tcp://127.0.0.1:5556",
    kinds: Annotated[
        str, typer.Option(help="Kinds of events, separated by commas.", metavar="K,K")
    ] = "label",
    stream: Annotated[
        list[str] | None,
        typer.Option(help="Only this stream; may be given several times."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: the header.")
    ] = False,
    values: Annotated[
        bool, typer.Option("--values", help="With --json: frames' values, too.")
    ] = False,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many messages.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keys that `neurovocal keys add` made."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="End after so many seconds without a message."),
    ] = None,
) -> None:
    """Print the events of a running engine, one a line, until Ctrl-C.

    Kinds: label, suggestion, forecast, latent, onset, offset, near_miss, gap, anchor,
    health, control, trigger, comparison, stats, frames, posteriors, trace, surprise,
    synthesis, audio, withheld, block. Lost messages are reported on stderr.
    """
    chosen = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    left = count
    # Programs that read the lines get neither headings nor lines that are wrapped.
    heads = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if heads else None
    with (
        suppress(KeyboardInterrupt),
        Subscriber(endpoint, chosen, stream, keys=keys) as subscriber,
    ):
        while left is None or left > 0:
            received = _next(subscriber, chosen, timeout)
            if received is None:
                break
            _warn(received, subscriber.missed)
            if as_json:
                typer.echo(_as_json(received, values))
            else:
                if left == count and heads:
                    typer.echo(heading(received, columns))
                    heads = False
                typer.echo(as_line(received, columns))
            left = None if left is None else left - 1
        if left:
            raise NeurovocalError(
                f"only {subscriber.received} of {count} messages came from "
                f"{endpoint} before {timeout:g} s of silence"
            )


def _next(
    subscriber: Subscriber, kinds: list[str], timeout: float | None
) -> Received | None:
    """Return the next message; print a note if the first one takes long."""
    if subscriber.received:
        return subscriber.receive(timeout)
    wait_s = _NOTE_AFTER_S if timeout is None else min(timeout, _NOTE_AFTER_S)
    received = subscriber.receive(wait_s)
    if received is not None or wait_s == timeout:
        return received
    labels = kinds == ["label"]
    hint = "; without a model there are no labels: --kinds onset,offset"
    typer.echo(
        f"nothing heard from {subscriber.endpoint} yet, waiting (is an engine there, "
        f"and does something sound?{hint if labels else ''})",
        err=True,
    )
    return subscriber.receive(None if timeout is None else timeout - wait_s)


def _warn(received: Received, n_missed: int) -> None:
    if received.restarted:
        typer.echo(f"the engine has restarted: run {printable(received.run)}", err=True)
    if received.missed:
        typer.echo(
            f"warning: {received.missed.count} messages of "
            f"'{printable(received.missed.topic)}' were missed, {n_missed} in all so "
            "far",
            err=True,
        )


def _as_json(received: Received, values: bool) -> str:
    fields: dict[str, Any] = msgspec.to_builtins(received.header)
    if received.missed:
        fields["missed"] = received.missed.count
    array = array_of(received.event) if values else None
    if array is not None:
        fields["values"] = array.tolist()
    return msgspec.json.encode(fields).decode()


def as_line(received: Received, columns: int | None = None) -> str:
    """Return an event as a line: time, lateness in ms, kind, stream, content.

    Parameters
    ----------
    received : Received
        The event.
    columns : int, optional
        Width at which the content is wrapped behind the other columns.
    """
    late = _late_ms(received)
    head = f"{_when(received):>12}  "
    if not _is_narrow(columns):
        head += f"{'' if late is None else f'{late:.1f}':>8}  "
    head += f"{received.kind:<10}  "
    if not _is_narrow(columns):
        head += f"{_name(received.stream, columns)}  "
    content = _content(received.event, received)
    if columns is None:
        return head + content
    return "\n".join(
        wrap(
            content,
            max(columns, len(head) + _NARROWEST),
            initial_indent=head,
            subsequent_indent=" " * len(head),
            drop_whitespace=False,
            break_on_hyphens=False,
        )
    )


def heading(received: Received, columns: int | None = None) -> str:
    """Return the names of the columns of `as_line`."""
    time = "time, s" if received.utc_ns is None else "UTC"
    if _is_narrow(columns):
        return f"{time:>12}  {'kind':<10}  event"
    name = f"{'stream':<{_STREAM_WIDTH}}"
    return f"{time:>12}  {'late, ms':>8}  {'kind':<10}  {name}  event"


def _is_narrow(columns: int | None) -> bool:
    """Return whether there is no room for stream and lateness."""
    return columns is not None and columns < _NARROW


def _name(stream: str, columns: int | None) -> str:
    name = printable(stream)
    if columns is not None and len(name) > _STREAM_WIDTH:
        name = "…" + name[1 - _STREAM_WIDTH :]
    return f"{name:<{_STREAM_WIDTH}}"


def _when(received: Received) -> str:
    """Return UTC where it is known, else seconds from the stream's start."""
    if received.utc_ns is None:
        return f"{received.sample / received.sample_rate:.3f}"
    seconds, rest = divmod(received.utc_ns, 1_000_000_000)
    time = datetime.fromtimestamp(seconds, UTC)
    return f"{time:%H:%M:%S}.{rest // 1_000_000:03d}"


def _late_ms(received: Received) -> float | None:
    ledger = received.latency
    if ledger is None:
        return None
    stages = (ledger.wait_ms, ledger.queue_ms, ledger.compute_ms, ledger.publish_ms)
    return sum(stage for stage in stages if stage is not None)


def _content(event: Event, received: Received) -> str:
    rate = received.sample_rate
    match event:
        case Label():
            span = "goes on"
            if event.offset is not None:
                span = f"{(event.offset - event.onset) / rate * 1000:.0f} ms"
            unit = printable(event.unit)
            return f"{unit:<6} {event.posterior:.2f} {event.status:<11} {span}"
        case Forecast():
            unit = printable(event.unit)
            state = "begun" if event.status == "onset" else "to come"
            return f"{unit:<6} {event.posterior:.2f} segment {event.segment}, {state}"
        case Suggestion():
            name = printable(event.name)
            span = f"{(event.offset - event.onset) / rate * 1000:.0f} ms"
            return f"{name:<6} {event.posterior:.2f} {event.reason:<11} {span}"
        case Latent():
            first = " ".join(f"{value:.2f}" for value in event.values[:4])
            more = " ..." if len(event.values) > 4 else ""
            return f"segment {event.segment} at {first}{more}"
        case Onset():
            return f"segment {event.segment} begins, score {event.score:.3g}"
        case Offset():
            span = f"{(event.sample - event.onset) / rate * 1000:.1f} ms"
            cut = ", truncated" if event.truncated else ""
            return f"segment {event.segment} ends, {span}{cut}"
        case NearMiss():
            span = f"{(event.offset - event.onset) / rate * 1000:.1f} ms"
            scores = f"score {event.score:.3g} of {event.threshold:.3g}"
            more = f", {event.omitted} more before it" if event.omitted else ""
            return f"too {event.reason}: {span}, {scores}{more}"
        case Gap():
            span = f"{(event.stop - event.start) / rate * 1000:.1f} ms"
            return f"{span} missing: {printable(event.reason)}"
        case Anchor():
            return f"sample {event.sample} is at {event.utc_ns} ns UTC"
        case Health():
            return printable(f"{event.stage} {event.state}: {event.detail}")
        case Control():
            # The text of a configuration has many lines.
            short = {k: v for k, v in event.arguments.items() if k != "configuration"}
            arguments = msgspec.json.encode(short).decode()
            return printable(f"{event.command} {event.model} {arguments}")
        case Comparison():
            present, shadow = (
                "nothing" if unit is None else printable(unit) or "no label"
                for unit in (event.unit, event.shadow_unit)
            )
            verdict = "agrees" if event.agrees else f"shadow {shadow}"
            return f"{present:<8} {verdict}"
        case Trigger():
            units = printable(" ".join(unit or "?" for unit in event.units))
            name = printable(event.trigger)
            return f"{name}: {units} ({event.status}): {event.decision}"
        case Stats():
            return printable(msgspec.json.encode(event.values).decode())
        case _:
            array = array_of(event)
            shape = () if array is None else array.shape
            return f"{' x '.join(map(str, shape))} values"
