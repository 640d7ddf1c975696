"""What a run came to, and the exit code that tells it."""

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
    """What a run came to; ``exit_code`` follows DESIGN section 9."""

    seconds: float = 0.0
    streams: int = 0
    lost_samples: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    forced: bool = False
    errors: list[str] = field(default_factory=list)
    config_error: bool = False

    @property
    def exit_code(self) -> int:
        """0 clean, 1 configuration, 2 runtime failure, 3 loss or force."""
        if self.errors:
            return ConfigError.exit_code if self.config_error else EXIT_RUNTIME
        lossy = self.forced or self.lost_samples > 0 or self.dropped.total() > 0
        return EXIT_LOSS if lossy else EXIT_CLEAN

    def sentences(self) -> list[str]:
        """What a person must know when the run has ended."""
        lines = list(self.errors)
        if self.lost_samples:
            lines.append(f"{self.lost_samples} samples were lost (see the gaps)")
        if self.dropped:
            kinds = ", ".join(f"{n} {kind}" for kind, n in self.dropped.most_common())
            lines.append(f"messages dropped by full or failing queues: {kinds}")
        if self.forced:
            lines.append("the run was stopped by force before all was written")
        return lines

    def note(self, error: Exception | None) -> None:
        """Take down what a lane or a sink ended with; None: nothing."""
        if error is None:
            return
        if isinstance(error, NeurovocalError):
            self.config_error |= isinstance(error, ConfigError)
            self.errors += str(error).split("\n")
        else:
            self.errors.append(f"{type(error).__name__}: {error}")
