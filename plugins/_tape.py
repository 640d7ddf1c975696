"""A recording that plays by itself, as an animal does: the sound card's side."""

from collections.abc import Iterator
from threading import Event as Flag
from threading import Thread

from neurovocal.engine.capture_clock import CaptureClock
from neurovocal.engine.errors import AudioFileError
from neurovocal.engine.ring import AudioRing
from neurovocal.engine.timebase import NS, Clock
from neurovocal.engine.types import Float32
from neurovocal.plugins._recording import Header, Recording

_STOP_LOOK_S = 0.1
_JOIN_S = 5.0


class Tape:
    """The recording's samples one after the other, `repeat` times over.

    Parameters
    ----------
    header : Header
        From `inspect`.
    start : int
        First sample that is played.
    repeat : int
        How often it is played; 0: without end.

    Attributes
    ----------
    position : int
        Samples played since the very beginning, those that nobody heard included.
    """

    def __init__(self, header: Header, start: int, repeat: int) -> None:
        self._header = header
        self._start = start
        self._passes_left = repeat or None
        self.position = 0

    def skip(self, n_samples: int) -> None:
        """Let samples pass that nobody hears."""
        self.position += n_samples
        self._start += n_samples
        length = self._header.n_samples
        if length is None or self._start < length:
            return
        passes, self._start = divmod(self._start, length)
        if self._passes_left is not None:
            self._passes_left = max(0, self._passes_left - passes)

    def read(self, n_samples: int) -> Iterator[Float32]:
        """Yield float32[<= n_samples, n_channels] until all has been played."""
        while self._passes_left is None or self._passes_left > 0:
            recording = Recording(self._header)
            recording.open()
            try:
                recording.seek(self._start)
                while len(samples := recording.read(n_samples)):
                    yield samples
            finally:
                recording.close()
            if recording.problem is not None:
                raise AudioFileError(recording.problem)
            self._start = 0
            if self._passes_left is not None:
                self._passes_left -= 1


class TapePlayer(Thread):
    """Writes each block when its last sample has been played: the sound card.

    A thread that the machine kept waiting writes what is due at once, as the buffer
    of a device does.

    Parameters
    ----------
    tape : Tape
        What is played.
    ring : AudioRing
        Closed when it has ended.
    capture : CaptureClock
        Learns when each block was played, which is known exactly.
    clock : Clock
        Time.
    began_ns : int
        Monotonic time at which the tape's position 0 was played.
    block_length : int
        Samples per block.

    Attributes
    ----------
    error : AudioFileError or None
        Why it ended before the tape did.
    latest_ms : float
        How late a block was ever written.
    """

    def __init__(
        self,
        tape: Tape,
        ring: AudioRing,
        capture: CaptureClock,
        clock: Clock,
        began_ns: int,
        block_length: int,
    ) -> None:
        super().__init__(name="nv-playback", daemon=True)
        self._tape, self._ring, self._capture = tape, ring, capture
        self._clock, self._began_ns = clock, began_ns
        self._block_length = block_length
        self._stopping = Flag()
        self.error: AudioFileError | None = None
        self.latest_ms = 0.0

    def stop(self) -> None:
        """End the thread; what it wrote can still be read."""
        self._stopping.set()
        if self.ident is not None:
            self.join(_JOIN_S)

    def run(self) -> None:
        """Play until the tape's end, or `stop`."""
        try:
            self._play()
        except AudioFileError as error:
            self.error = error
        finally:
            self._ring.close()

    def _play(self) -> None:
        rate, clock = self._capture.sample_rate, self._clock
        position = self._tape.position
        for samples in self._tape.read(self._block_length):
            begin_ns = self._began_ns + position * NS // rate
            position += len(samples)
            due_ns = self._began_ns + position * NS // rate
            while not clock.wait_until(due_ns, _STOP_LOOK_S):
                if self._stopping.is_set():
                    return
            if self._stopping.is_set():
                return
            now = clock.monotonic_ns()
            self.latest_ms = max(self.latest_ms, (now - due_ns) / 1e6)
            self._capture.update(len(samples), begin_ns)
            self._ring.write(samples, now)
