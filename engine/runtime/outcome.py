"""Outcome of a run: losses, errors and the exit code."""

from collections import Counter
from dataclasses import dataclass, field

from neurovocal.engine.contracts.errors import (
    EXIT_CLEAN,
    EXIT_LOSS,
    EXIT_RUNTIME,
    ConfigError,
    NeurovocalError,
)


@dataclass(slots=True)
class Outcome:
    """Result of a run.

    Attributes
    ----------
    seconds : float
        Duration of the delivered audio in s, over all lanes.
    streams : int
        Streams that have begun.
    lost_samples : int
        Samples that are missing: see the gaps.
    dropped : Counter
        Messages that no sink got, by kind.
    forced : bool
        The run was stopped before all messages were written.
    cut_short : bool
        The run was stopped before its sources had ended.
    repeatable : bool
        Every source begins with the same audio in the next run.
    losses : list of str
        A sentence for each sink that could not write a part of its output.
    errors : list of str
        Sentences for the user.
    config_error : bool
        One of them is a mistake in the configuration.
    """

    seconds: float = 0.0
    streams: int = 0
    lost_samples: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    forced: bool = False
    cut_short: bool = False
    repeatable: bool = False
    losses: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    config_error: bool = False

    @property
    def exit_code(self) -> int:
        """0 clean, 1 configuration, 2 runtime failure, 3 loss or force."""
        if self.errors:
            return ConfigError.exit_code if self.config_error else EXIT_RUNTIME
        lossy = self.forced or self.lost_samples > 0 or self.dropped.total() > 0
        lossy |= bool(self.losses)
        return EXIT_LOSS if lossy else EXIT_CLEAN

    def sentences(self) -> list[str]:
        """Return the errors and losses, a sentence each."""
        lines = [*self.errors, *self.losses]
        if self.lost_samples:
            lines.append(f"{self.lost_samples} samples were lost (see the gaps)")
        if self.dropped:
            kinds = ", ".join(f"{n} {kind}" for kind, n in self.dropped.most_common())
            lines.append(f"messages dropped by full or failing queues: {kinds}")
        if self.forced:
            lines.append("the run was stopped by force before all was written")
        return lines

    def note(self, error: Exception | None) -> None:
        """Add the error that a lane or a sink ended with; None: it had none."""
        if error is None:
            return
        if isinstance(error, NeurovocalError):
            self.config_error |= isinstance(error, ConfigError)
            self.errors += str(error).split("\n")
        else:
            self.errors.append(f"{type(error).__name__}: {error}")
