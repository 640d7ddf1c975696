"""What a source of recordings says about when these began."""

from collections.abc import Iterator, Sequence
from datetime import tzinfo
from pathlib import Path

from neurovocal.engine.errors import AudioFileError
from neurovocal.plugins._recording import Header, inspect

_SHOWN = 5


def describe_starts(paths: Sequence[Path], zone: tzinfo | None) -> Iterator[str]:
    """Lines for ``neurovocal check``: when the first few recordings began."""
    for path in paths[:_SHOWN]:
        try:
            yield f"'{path}' began: {inspect(path, zone).start}"
        except AudioFileError as error:
            yield str(error)
    if len(paths) > _SHOWN:
        yield f"... and {len(paths) - _SHOWN} more recordings"


def doubtful_starts(headers: Sequence[Header]) -> Iterator[str]:
    """A sentence, if there are times that were found and are not believed."""
    doubtful = [header for header in headers if header.start.problem]
    if doubtful:
        first, more = doubtful[0], len(doubtful) - 1
        others = f" (and {more} more recordings alike)" if more else ""
        yield (
            f"when '{first.path}' began is not known: it says "
            f"{first.start.problem}{others}"
        )
