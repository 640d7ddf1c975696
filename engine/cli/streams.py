"""Standard input, output and error that are closed, or on a full disk."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_OUTPUT = "standard output"
_MODES = {0: "r", 1: "w", 2: "w"}


def open_missing() -> None:
    """Open the standard descriptors that are closed; call it before any file is opened.

    The next file that is opened would otherwise be one of them, and what is meant for
    people would be written into it. Input is empty then, and errors are discarded.
    Output cannot be written: a table that is lost is no success.
    """
    for descriptor, mode in _MODES.items():
        try:
            os.fstat(descriptor)
        except OSError:
            can_write = descriptor == 2
            os.open(os.devnull, os.O_WRONLY if can_write else os.O_RDONLY)
            name = ("stdin", "stdout", "stderr")[descriptor]
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


class _StandardOutput(io.TextIOWrapper):
    """Text stream whose errors name it, as those of files do."""

    def write(self, text: str, /) -> int:
        """Write text."""
        with _naming_output():
            return super().write(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with _naming_output():
            super().flush()


@contextmanager
def _naming_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, _OUTPUT) from error


def name_output() -> None:
    """Let errors of standard output name it."""
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        buffered = stream.line_buffering
        encoding, errors = stream.encoding, stream.errors
        sys.stdout = _StandardOutput(
            stream.detach(), encoding, errors, line_buffering=buffered
        )


def discard_output() -> None:
    """Discard what standard output has not taken: the interpreter would try again."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
