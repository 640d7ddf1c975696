"""Sound files of a dataset, read as `detect` and `label` read them.

Headers are compared with the bytes that there are: a file whose sizes were never filled
in, or wrapped at 4 GiB, is read to its end here, too.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from neurovocal.engine.contracts.errors import AudioFileError
from neurovocal.plugins.sources.audio_files.file import (
    Recording,
    RecordingHeader,
    inspect,
)

_COUNTED_AT_ONCE = 2**16


def read_header(path: Path) -> RecordingHeader:
    """Return a recording's header with its number of samples, counted if need be.

    Raises
    ------
    AudioFileError
        The file cannot be read, or is cut off; the file's name is not in the message.
    """
    header = _inspect(path)
    if header.n_samples is None:
        header = replace(header, n_samples=_count(header))
    if header.truncated:
        raise AudioFileError(
            f"is cut off after {header.duration_s:.3f} s: convert it anew, or leave it "
            "out"
        )
    if header.container.unread:
        raise AudioFileError(header.container.unread)
    return header


@contextmanager
def opened(path: Path) -> Iterator[Recording]:
    """Open a recording for reading; it is closed at the end.

    Raises
    ------
    AudioFileError
        The file cannot be read; its name is not in the message.
    """
    with closing(Recording(_inspect(path))) as recording:
        recording.open()
        yield recording


def _inspect(path: Path) -> RecordingHeader:
    """Read a header; errors leave the naming of the file to the caller."""
    try:
        return inspect(path)
    except AudioFileError as error:
        raise AudioFileError(str(error).removeprefix(f"'{path}' ")) from error


def _count(header: RecordingHeader) -> int:
    """Return the number of samples of a recording whose header does not state it."""
    count = 0
    with closing(Recording(header)) as recording:
        recording.open()
        while n_read := len(recording.read(_COUNTED_AT_ONCE)):
            count += n_read
    return count
