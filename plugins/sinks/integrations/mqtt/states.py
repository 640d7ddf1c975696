"""States of streams for an MQTT broker, and how Home Assistant finds them."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from neurovocal.engine import Health, Label, Message, Offset, Stats
from neurovocal.engine.wire.codec import event_json
from neurovocal.plugins.sinks.integrations.delivery.items import (
    SUMMARY,
    Outgoing,
    iso_time,
    utf8,
)

# Each file of a folder is a stream: of more, only events are published.
MOST_STREAMS = 50
_NO_WORD = re.compile(r"[^A-Za-z0-9_-]+")
# Longest state that Home Assistant shows.
_MOST_CHARS = 255


class Topics:
    """Names of the topics of a station.

    Parameters
    ----------
    prefix : str
        First levels of all topics.
    station : str
        Name of the station, the next level.
    """

    def __init__(self, prefix: str, station: str) -> None:
        self.base = f"{prefix}/{level_of(station)}"
        self.availability = f"{self.base}/availability"
        self.summary = f"{self.base}/{SUMMARY}"

    def state(self, stream: str) -> str:
        """Return the topic of the state of a stream."""
        return f"{self.base}/{level_of(stream)}/state"

    def event(self, item: Outgoing) -> tuple[str, bool]:
        """Return the topic of an item, and whether it is retained."""
        if item.kind == SUMMARY:
            return self.summary, True
        return f"{self.base}/{level_of(item.stream)}/{item.kind}", False


def level_of(name: str) -> str:
    """Return a name as one level of a topic: without '/', '+' and '#'."""
    return quote(name, safe=" ", errors="surrogateescape") or "%"


@dataclass
class _StreamState:
    """Newest figures of a stream."""

    label: str | None = None
    posterior: float | None = None
    time: str | None = None
    segments: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    level_db: float | None = None
    lag_ms: float | None = None
    troubles: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> bytes:
        health = "; ".join(f"{stage}: {s}" for stage, s in self.troubles.items())
        values = {
            "label": self.label,
            "posterior": self.posterior,
            "time": self.time,
            "segments": self.segments,
            "labels": self.labels.total(),
            "units": dict(self.labels.most_common(100)),
            "level_db": self.level_db,
            "lag_ms": self.lag_ms,
            "problem": "ON" if self.troubles else "OFF",
            "health": (health or "healthy")[:_MOST_CHARS],
        }
        return json.dumps(values).encode()


class StationStates:
    """States of the streams of a station, as retained messages by topic.

    Counts are those of the present run.

    Parameters
    ----------
    topics : Topics
        Where they are published.
    station : str
        Name of the station.
    discovery : str or None
        Prefix of the topics in which Home Assistant looks for devices; None: it is not
        told.
    summaries : bool
        Whether a daily summary is published.
    """

    def __init__(
        self, topics: Topics, station: str, discovery: str | None, *, summaries: bool
    ) -> None:
        self._topics, self._station = topics, station
        self._discovery = discovery
        self._summaries = summaries
        self._streams: dict[str, _StreamState] = {}

    def begin(self) -> dict[str, bytes]:
        """Return the messages that describe the station itself."""
        if self._discovery is None or not self._summaries:
            return {}
        config = {
            "name": "Daily summary",
            "unique_id": self._id("summary"),
            "state_topic": self._topics.summary,
            "value_template": f"{{{{ value_json.text[:{_MOST_CHARS}] }}}}",
            "json_attributes_topic": self._topics.summary,
            "json_attributes_template": "{{ value_json.total | tojson }}",
            "icon": "mdi:calendar-text",
        }
        return self._config("sensor", config)

    def update(self, message: Message) -> dict[str, bytes]:
        """Note a message; return the retained messages that it changes."""
        name = message.info.stream
        state = self._streams.get(name)
        messages: dict[str, bytes] = {}
        if state is None:
            if len(self._streams) == MOST_STREAMS:
                return {}
            state = self._streams[name] = _StreamState()
            messages = self._announce(name)
        if not _note(state, message):
            return messages
        return {**messages, self._topics.state(name): state.as_json()}

    def _announce(self, stream: str) -> dict[str, bytes]:
        """Return the configurations of the sensors of a stream."""
        if self._discovery is None:
            return {}
        found: dict[str, bytes] = {}
        for kind, key, more in _SENSORS:
            config = {
                **more,
                "name": f"{utf8(stream)} {more['name']}",
                "unique_id": self._id(stream, key),
                "state_topic": self._topics.state(stream),
                "value_template": f"{{{{ value_json.{key} }}}}",
            }
            if key == "label":
                config["json_attributes_topic"] = config["state_topic"]
            found.update(self._config(kind, config))
        return found

    def _config(self, kind: str, config: dict[str, Any]) -> dict[str, bytes]:
        name = config["unique_id"]
        device = {
            "identifiers": [self._id()],
            "name": utf8(self._station),
            "manufacturer": "NeuroVocal",
            "model": "Station",
            "sw_version": version("neurovocal"),
        }
        complete = {
            **config,
            "availability_topic": self._topics.availability,
            "device": device,
        }
        topic = f"{self._discovery}/{kind}/{name}/config"
        return {topic: json.dumps(complete).encode()}

    def _id(self, *parts: str) -> str:
        """Return a name of letters, digits, '_' and '-', as discovery asks for."""
        levels = [level_of(part) for part in (self._station, *parts)]
        return _NO_WORD.sub("_", "-".join(("neurovocal", *levels)))


# Kind of entity, key in the state, and what Home Assistant shows.
_SENSORS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("sensor", "label", {"name": "last label", "icon": "mdi:bird"}),
    (
        "sensor",
        "labels",
        {"name": "labels", "state_class": "total_increasing", "icon": "mdi:counter"},
    ),
    (
        "sensor",
        "segments",
        {"name": "segments", "state_class": "total_increasing", "icon": "mdi:counter"},
    ),
    (
        "sensor",
        "level_db",
        {
            "name": "level",
            "unit_of_measurement": "dB",
            "state_class": "measurement",
            "icon": "mdi:microphone",
        },
    ),
    ("sensor", "health", {"name": "health", "entity_category": "diagnostic"}),
    (
        "binary_sensor",
        "problem",
        {
            "name": "problem",
            "device_class": "problem",
            "entity_category": "diagnostic",
        },
    ),
)


def _note(state: _StreamState, message: Message) -> bool:
    """Add a message to the figures of its stream; return True if it changed them."""
    event = message.event
    match event:
        case Label():
            if event.status != "final":
                return False
            state.label = event.unit[:_MOST_CHARS]
            state.posterior = json.loads(event_json(message))["posterior"]
            state.time = iso_time(message.utc_ns)
            state.labels[event.unit] += 1
        case Offset():
            state.segments += 1
        case Health():
            if event.state == "healthy":
                state.troubles.pop(event.stage, None)
            else:
                state.troubles[event.stage] = f"{event.state}, {event.detail}"
        case Stats():
            level, lag = event.values.get("level_db"), event.values.get("lag_ms")
            state.level_db = level if isinstance(level, float) else None
            state.lag_ms = lag if isinstance(lag, float) else None
        case _:
            return False
    return True
