"""What sinks share whose events a thread delivers to a service."""

from neurovocal.engine import Clock
from neurovocal.engine.support.names import at_home
from neurovocal.plugins.sinks.integrations.delivery.daily import DailySummary
from neurovocal.plugins.sinks.integrations.delivery.options import DeliveryOptions
from neurovocal.plugins.sinks.integrations.delivery.state import StateFile
from neurovocal.plugins.sinks.integrations.delivery.worker import DeliveryWorker


class DeliverySink:
    """Sink whose events a `DeliveryWorker` delivers, once `_worker` is set.

    Parameters
    ----------
    linger_s : float
        Time at the end of the run for what is left, in seconds.
    file : StateFile, optional
        Keeps what was delivered.
    """

    def __init__(self, linger_s: float, file: StateFile | None) -> None:
        self._linger_s = linger_s
        self._file = file
        self._worker: DeliveryWorker | None = None

    def flush(self, timeout: float) -> None:
        """Let the delivery look at its queue."""
        if self._worker is not None:
            self._worker.wake()

    def limit_close(self, seconds: float) -> None:
        """Give the service no more time than this when the sink is closed."""
        self._linger_s = min(self._linger_s, seconds)

    def close(self) -> None:
        """Deliver what is left within `linger_s`, and end the delivery."""
        if self._worker is not None:
            self._worker.stop(self._linger_s)
        if self._file is not None:
            self._file.release()


def begin_summary(
    options: DeliveryOptions,
    journal: str | None,
    station: str,
    file: StateFile | None,
    clock: Clock,
) -> DailySummary | None:
    """Return the daily summary of a journal; None where none is asked for.

    Raises
    ------
    ConfigError
        The time zone is not known.
    """
    at = options.time_of_summary()
    if at is None or journal is None or file is None:
        return None
    zone = options.zone()
    summary = DailySummary(at_home(journal), station, at, zone, file, clock)
    summary.begin()
    return summary
