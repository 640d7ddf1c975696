"""Contract of what fits a detector to examples, found by its entry point."""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from neurovocal.engine.contracts.errors import ConfigError

GROUP = "neurovocal.tuners"


class Tuner(Protocol):
    """Function that fits a detector to examples of calls."""

    def __call__(
        self,
        table: Path,
        recordings: Sequence[Path],
        *,
        label: str | None = None,
        channels: Sequence[int] = (),
        tell: Callable[[str], object],
    ) -> dict[str, Any]:
        """Return a detector as a configuration has it: ``plugin`` and ``options``.

        Parameters
        ----------
        table : Path
            Table of examples, of any annotation format.
        recordings : sequence of Path
            Recordings among which those of the examples are.
        label : str, optional
            Only segments with this label are examples.
        channels : sequence of int
            Channels of the examples, from 1; by default those that the table names, or
            the first.
        tell : callable
            Receives sentences for the user.

        Raises
        ------
        ConfigError
            The examples cannot be used; one sentence for each mistake.
        """
        ...


def load_tuner() -> Tuner:
    """Return the installed tuner; raises ConfigError if there is none."""
    points = list(entry_points(group=GROUP))
    if not points:
        raise ConfigError(
            "no tuner is installed that fits a detector to examples: install "
            "neurovocal again"
        )
    tuner: Tuner = points[0].load()
    return tuner
