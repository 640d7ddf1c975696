"""``neurovocal control``: send commands to a running engine."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from neurovocal.engine.client.control import Control
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.text import did_you_mean, printable

_DEFAULT = "tcp://127.0.0.1:5557"
_COMMANDS = ("ping", "status", "set", "prime", "say", "swap", "promote", "drop", "stop")
_MOST_CONFUSIONS = 5
_TIMEOUT_S = 30.0  # `prime` may read a long recording


def control(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[ENDPOINT] COMMAND [NAME=VALUE...]",
            help="ping, status, set NAME=VALUE..., prime [RECORDING], say UNIT..., "
            "swap [CONFIG], promote, drop or stop.",
        ),
    ],
    lane: Annotated[
        str | None, typer.Option(help="Only this lane; default: all.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Which model; default: the one that takes commands."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keys that `neurovocal keys add` made."),
    ] = None,
    shadow: Annotated[
        bool,
        typer.Option(
            "--shadow",
            help="swap: keep the other lanes beside the present ones, compare them, "
            "until `control promote` or `control drop`.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The reply as JSON.")] = False,
) -> None:
    """Steer a running engine: `neurovocal control set synthesis=free temperature=0.8`.

    The engine's configuration has `control: {plugin: zmq}`; without ENDPOINT it is
    asked at tcp://127.0.0.1:5557. `status` lists what can be set. Exit code 2: the
    engine refused, or no reply came.
    """
    endpoint = _DEFAULT
    if ":" in words[0] and "=" not in words[0]:
        endpoint, *words = words
    if not words:
        raise ConfigError(
            f"which command? {', '.join(_COMMANDS[:-1])} or {_COMMANDS[-1]}"
        )
    command, *rest = words
    if shadow and command != "swap":
        raise ConfigError(
            "--shadow belongs to swap: neurovocal control swap --shadow F"
        )
    with Control(endpoint, timeout=_TIMEOUT_S, keys=keys) as socket:
        arguments = _arguments(command, rest)
        if shadow:
            arguments["shadow"] = True
        reply = socket.command(command, arguments, lane=lane, model=model)
    if as_json:
        typer.echo(json.dumps(reply))
        return
    for line in map(printable, _lines(reply)):
        typer.echo("".join(char if char.isprintable() else "?" for char in line))


def _arguments(command: str, words: list[str]) -> dict[str, Any]:
    if command == "prime" and len(words) == 1 and "=" not in words[0]:
        # The engine may run in another folder.
        return {"path": str(at_home(words[0]).absolute())}
    if command == "say" and words and "=" not in words[0]:
        return {"units": " ".join(words)}
    if command == "say" and not words:
        raise ConfigError("say needs units: neurovocal control say a b c")
    if command == "swap" and words and "=" not in words[0]:
        return {"config": words[0], **dict(map(_assignment, words[1:]))}
    if command not in _COMMANDS and not all("=" in word for word in words):
        meant = did_you_mean(command, _COMMANDS)
        raise ConfigError(f"'{command}' is no command: {meant}")
    return dict(map(_assignment, words))


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"'{text}' is not NAME=VALUE, such as temperature=0.8")
    try:
        return name, safe_yaml.load(value)
    except safe_yaml.YamlError as error:
        raise ConfigError(f"'{text}': the value cannot be read") from error


def _lines(reply: dict[str, Any]) -> list[str]:
    """Return the reply as lines for people."""
    if "lanes" in reply:
        lanes = [line for lane in reply["lanes"] for line in _lane_lines(lane)]
        return [f"run {reply['run']}", *lanes, *_swap_lines(reply.get("swap"))]
    if "promoted" in reply:
        head = f"{reply['promoted']} takes over at the next silence of each lane"
        return [head, *_shadow_lines(reply)]
    if "dropped" in reply:
        return [f"{reply['dropped']} is dropped", *_shadow_lines(reply)]
    if "shadow" in reply:
        return [
            f"{reply['shadow']} runs beside the present lanes: `neurovocal control "
            "status` compares them,",
            "`control promote` lets it take over, `control drop` ends it",
        ]
    if "shadow_s" in reply:
        wait = f"{reply['shadow_s']:g} s of audio"
        return [f"checked and built; the old lanes are compared with it for {wait}"]
    if "cancelled" in reply:
        return ["called off: the old lanes stay"]
    if "applied" in reply:
        return [_applied_line(applied) for applied in reply["applied"]]
    return [f"run {reply['run']}"] if "run" in reply else ["done"]


def _applied_line(applied: dict[str, Any]) -> str:
    where = f"sample {applied['sample']}"
    if "seconds" in applied:  # an engine of an earlier version does not tell them
        where = f"{applied['seconds']:.3f} s ({where})"
    return f"{applied['stream']}: from {where}"


def _swap_lines(swap: dict[str, Any] | None) -> list[str]:
    if not swap:
        return []
    why = f" ({swap['reason']})" if "reason" in swap else ""
    name = f" {swap['config']}" if "config" in swap else ""
    state = "shadow" if swap.get("stays") else f"swap: {swap['state']}"
    return [f"{state}{name}{why}", *_shadow_lines(swap)]


def _shadow_lines(reply: dict[str, Any]) -> list[str]:
    """Return how the shadow of each stream agrees with the present lane."""
    lines = []
    for one in reply.get("shadows", []):
        parts = [
            f"{what} {counts['old']}, shadow {counts['new']}, "
            f"{counts['equal']:.0%} equal"
            for what, counts in (
                ("segments", one["segments"]),
                ("labels", one["labels"]),
            )
            if counts["equal"] is not None
        ]
        lines.append(f"  '{one['stream']}', {one['seconds']:.0f} s of audio")
        lines += [f"    {part}" for part in parts or ["nothing heard yet"]]
        cost = f"    {one['load']:.0%} of a core, {one['lag_s']:.1f} s behind"
        lines.append(cost)
        for unit, other, number in one["confusions"][:_MOST_CONFUSIONS]:
            lines.append(f"    {number} times {_named(unit)}, shadow {_named(other)}")
        if more := len(one["confusions"]) - _MOST_CONFUSIONS:
            lines += [f"    and {more} other confusions"] if more > 0 else []
    return lines


def _named(unit: str | None) -> str:
    return "nothing heard" if unit is None else unit or "no label"


def _lane_lines(lane: dict[str, Any]) -> list[str]:
    if "streams" not in lane:
        return [f"lane '{lane['lane']}': {lane.get('error', 'has ended')}"]
    lines = [
        f"lane '{lane['lane']}', stream '{stream['stream']}': "
        f"{stream['seconds']:.1f} s, {_db(stream['level_db'])}, "
        f"lag {stream['lag_ms']:.1f} ms, {stream['source']['lost']} samples lost"
        for stream in lane["streams"]
    ]
    for model in lane["models"]:
        options = model.get("options", {})
        values = "  ".join(f"{name}={value}" for name, value in options.items())
        state = "switched off after failures" if model["failed"] else values
        lines.append(f"  {model['model']}: {state or 'takes no commands'}")
    return lines


def _db(level: float | None) -> str:
    return "silence" if level is None else f"{level:.1f} dB"
