"""Options that all deliveries share, and what `neurovocal check` says about them."""

import re
from collections.abc import Iterator
from datetime import UTC, time, tzinfo
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from neurovocal.engine import KINDS, BuildContext, ConfigError, Options
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.engine.contracts.types import BULK_KINDS
from neurovocal.engine.journal.store import is_journal
from neurovocal.engine.support.credentials import remember_variable
from neurovocal.engine.support.names import at_home, resolved
from neurovocal.engine.support.safe_yaml import YamlError, load
from neurovocal.plugins.storage.text_file import output_problems

_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_MOST_SECRET_BYTES = 4096
# Kinds that a delivery sends if the configuration lists none.
USUAL_KINDS = frozenset({"label", "trigger", "gap", "health"})
UNSENT_KINDS = BULK_KINDS | {"stats", "anchor"}


class DeliveryOptions(Options):
    """Options of a sink that delivers events to a service."""

    state: str | None = Field(default=None, min_length=1)
    """File that keeps what was delivered; default: beside the journal, such as
    `run.sqlite.webhook.json`."""
    labels: Literal["final", "all"] = "final"
    """Whether provisional labels, which a final one replaces, are delivered, too."""
    summary_at: str | None = None
    """Local time of day, such as `07:00`, at which the counts of the 24 hours before
    are sent; null: never. It needs `journal`."""
    timezone: str = "UTC"
    """Time zone of `summary_at`, such as `Europe/Berlin`."""

    @field_validator("summary_at", mode="before")
    @classmethod
    def _is_time(cls, value: Any) -> Any:
        if isinstance(value, str) and _TIME.fullmatch(value) is None:
            raise ValueError("a time of day has four digits, such as 07:00 or 19:30")
        return value

    def time_of_summary(self) -> time | None:
        """Return the time of day of the summary, or None."""
        return None if self.summary_at is None else time.fromisoformat(self.summary_at)

    def zone(self) -> tzinfo:
        """Return the time zone.

        Raises
        ------
        ConfigError
            It is not known on this machine.
        """
        if self.timezone.upper() == "UTC":
            return UTC
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"timezone '{self.timezone}' is not known here: write UTC, or a name "
                "such as Europe/Berlin (the names come with the system's package "
                "tzdata)"
            ) from error


def state_path(options: DeliveryOptions, journal: str | None, name: str) -> Path | None:
    """Return the file of the state; None where nothing is kept."""
    if options.state is not None:
        return at_home(options.state)
    return None if journal is None else at_home(f"{journal}.{name}.json")


def delivered_kinds(context: BuildContext) -> frozenset[str]:
    """Return the kinds of events that are delivered."""
    kinds = USUAL_KINDS if context.events is None else frozenset(context.events)
    return kinds - UNSENT_KINDS


def delivery_problems(
    options: DeliveryOptions, context: BuildContext, journal: str | None, name: str
) -> Iterator[str]:
    """Yield a sentence for each mistake in the shared options."""
    yield from _kind_problems(context, name)
    try:
        options.zone()
    except ConfigError as error:
        yield OptionProblem("timezone", str(error))
    if options.summary_at is not None and journal is None:
        yield OptionProblem(
            "summary_at", "a summary counts a journal: name it with the option journal"
        )
    if journal is not None:
        yield from _journal_problems(journal, context, name)
    if (path := state_path(options, journal, name)) is not None:
        yield from output_problems(str(path))


def _kind_problems(context: BuildContext, name: str) -> Iterator[str]:
    unsent = sorted(set(context.events or ()) & BULK_KINDS)
    if unsent:
        choice = ", ".join(sorted(frozenset(KINDS.values()) - UNSENT_KINDS))
        yield (
            f"sink '{name}' sends no {', '.join(unsent)}, only events without arrays: "
            f"{choice}"
        )
    elif not delivered_kinds(context):
        yield f"sink '{name}' has no events to send: list label, for example"


def _journal_problems(journal: str, context: BuildContext, name: str) -> Iterator[str]:
    try:
        is_journal(at_home(journal))
    except ConfigError as error:
        yield OptionProblem("journal", str(error))
        return
    kept = _journals_of(context.config_text)
    if kept is not None and resolved(at_home(journal)) not in kept:
        known = ", ".join(str(path) for path in kept) or "none"
        yield OptionProblem(
            "journal",
            f"no sink 'journal' of this configuration writes '{journal}' (it has: "
            f"{known}), and sink '{name}' would send nothing",
        )


def _journals_of(config: str) -> dict[Path, None] | None:
    """Return the journals that a configuration writes; None if that is not known."""
    try:
        data = load(config)
    except YamlError:
        return None
    if not isinstance(data, dict):
        return None
    found: dict[Path, None] = {}
    lanes = data.get("lanes")
    for part in (data, *(lanes if isinstance(lanes, list) else ())):
        sinks = part.get("sinks") if isinstance(part, dict) else None
        for sink in sinks if isinstance(sinks, list) else ():
            if not isinstance(sink, dict) or sink.get("plugin") != "journal":
                continue
            options = sink.get("options")
            path = options.get("path") if isinstance(options, dict) else None
            if not isinstance(path, str) or "${" in path:
                return None
            found[resolved(at_home(path))] = None
    return found


def read_secret(path: str, option: str) -> str:
    """Return the first line of a file that holds a secret, which logs then hide.

    Raises
    ------
    ConfigError
        The file cannot be read, is empty or too long.
    """
    try:
        with at_home(path).open("rb") as file:
            content = file.read(_MOST_SECRET_BYTES + 1)
        secret = content.decode().strip()
    except OSError as error:
        raise ConfigError(
            f"{option} '{path}' cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError:
        raise ConfigError(f"{option} '{path}' is no text in UTF-8") from None
    if not secret or "\n" in secret or len(content) > _MOST_SECRET_BYTES:
        raise ConfigError(f"{option} '{path}' has to hold one line")
    remember_variable(option, secret)
    return secret
