"""``neurovocal control``: send commands to a running engine."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from neurovocal.engine.client.control import Control
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.text import printable

_DEFAULT = "tcp://127.0.0.1:5557"
_TIMEOUT_S = 30.0  # `prime` may read a long recording


def control(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[ENDPOINT] COMMAND [NAME=VALUE...]",
            help="ping, status, set NAME=VALUE..., prime [RECORDING], swap or stop.",
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
        raise ConfigError("which command? ping, status, set, prime, swap or stop")
    command, *rest = words
    with Control(endpoint, timeout=_TIMEOUT_S, keys=keys) as socket:
        reply = socket.command(
            command, _arguments(command, rest), lane=lane, model=model
        )
    if as_json:
        typer.echo(json.dumps(reply))
        return
    for line in map(printable, _lines(reply)):
        typer.echo("".join(char if char.isprintable() else "?" for char in line))


def _arguments(command: str, words: list[str]) -> dict[str, Any]:
    if command == "prime" and len(words) == 1 and "=" not in words[0]:
        # The engine may run in another folder.
        return {"path": str(at_home(words[0]).absolute())}
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
        swap = reply.get("swap")
        why = f" ({swap['reason']})" if swap and "reason" in swap else ""
        swap_lines = [f"swap: {swap['state']}{why}"] if swap else []
        return [f"run {reply['run']}", *lanes, *swap_lines]
    if "shadow_s" in reply:
        wait = f"{reply['shadow_s']:g} s of audio"
        return [f"checked and built; the old lanes are compared with it for {wait}"]
    if "cancelled" in reply:
        return ["called off: the old lanes stay"]
    if "applied" in reply:
        return [f"{a['stream']}: from sample {a['sample']}" for a in reply["applied"]]
    return [f"run {reply['run']}"] if "run" in reply else ["done"]


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
