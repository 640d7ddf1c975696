"""Shadow thread: runs a shadow lane that stays, so that it costs the lane nothing.

The lane's thread only hands over what it has processed. A shadow that fails, hangs or
is too slow is dropped, and the lane goes on as if there had been none.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from time import monotonic
from typing import TypeAlias

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.types import Block, Comparison, StreamInfo
from neurovocal.engine.lane.lane import Part, Step
from neurovocal.engine.lane.shadow import ShadowLane

log = logging.getLogger("neurovocal")

# Audio that may wait for the shadow of a live source; about 2 MB a minute at 32 kHz.
_MOST_WAITING_S = 10.0
# A source that can wait does, while the shadow goes on.
_HANGS_S = 10.0
_ENDS_S = 1.0

Tell: TypeAlias = Callable[[StreamInfo, TimeBase, Comparison, int], None]
_Work: TypeAlias = Callable[[], None]


class ShadowThread:
    """Thread that feeds a shadow lane with what the present lane has processed.

    `feed`, `end`, `reset` and `give_up` are called by the lane's thread, the others by
    any.

    Parameters
    ----------
    shadow : ShadowLane
        The shadow, which only this thread calls until `give_up` returned it.
    cancel : callable
        ``cancel(reason)`` drops the shadows of all lanes.
    tell : callable
        ``tell(info, timebase, comparison, at)`` publishes a comparison in a stream.
    can_wait : bool
        Whether the lane may wait for the shadow: no audio is lost meanwhile.
    """

    def __init__(
        self,
        shadow: ShadowLane,
        cancel: Callable[[str], object],
        tell: Tell,
        *,
        can_wait: bool,
    ) -> None:
        self.shadow = shadow
        self._cancel = cancel
        self._publish = tell
        self._can_wait = can_wait
        self._stream = (shadow.present.info, TimeBase(shadow.present.info.sample_rate))
        self._work: deque[tuple[_Work, int]] = deque()  # and its samples
        self._changed = Condition()
        self._waiting = 0  # samples
        self._done = 0  # pieces of work, to see that it goes on
        self._busy = self._ending = False
        shadow.tell = self._tell
        self._thread = Thread(target=self._run, name="nv-shadow", daemon=True)
        self._thread.start()

    @property
    def cancelled(self) -> bool:
        """True if the shadow was dropped."""
        return self.shadow.cancelled

    @property
    def lag_s(self) -> float:
        """Seconds of audio that wait for the shadow."""
        return self._waiting / self.shadow.lane.info.sample_rate

    def feed(
        self,
        part: Part,
        steps: Sequence[Step],
        info: StreamInfo,
        timebase: TimeBase,
    ) -> None:
        """Hand over a part that the present lane has processed, and its steps."""
        shadow = self.shadow

        def work() -> None:
            self._stream = info, timebase
            shadow.join(part)
            for step in steps:
                shadow.observe(step)
            shadow.follow(part)

        self._put(work, len(part.samples) if isinstance(part, Block) else 0)

    def end(self, steps: Sequence[Step]) -> None:
        """Hand over the last steps of a stream; wait if that costs no audio."""

        def work() -> None:
            for step in steps:
                self.shadow.observe(step)
            self.shadow.end()

        self._put(work, 0)
        if self._can_wait:
            self._wait(lambda: self._idle, _HANGS_S)

    def reset(self) -> None:
        """Begin another stream."""
        self._put(self.shadow.reset, 0)

    def give_up(self, patience_s: float) -> ShadowLane | None:
        """End the thread with all work done, and return the shadow.

        Returns
        -------
        ShadowLane or None
            None: it was not done within `patience_s` seconds, and goes on.
        """
        if not self._wait(lambda: self._idle, patience_s):
            return None
        self.stop(patience_s)
        return self.shadow

    def stop(self, timeout_s: float = _ENDS_S) -> None:
        """End the thread without its work; one that hangs is left behind."""
        with self._changed:
            self._ending = True
            self._work.clear()
            self._waiting = 0
            self._changed.notify_all()
        self._thread.join(timeout_s)

    # ---- both sides ------------------------------------------------------------------

    @property
    def _idle(self) -> bool:
        return not self._work and not self._busy

    def _put(self, work: _Work, samples: int) -> None:
        if self.cancelled or self._ending:
            return
        most = _MOST_WAITING_S * self.shadow.lane.info.sample_rate
        if self._can_wait:
            fits = self._wait(lambda: self._waiting <= most, _HANGS_S)
        else:
            fits = self._waiting <= most
        if not fits:
            self._cancel(
                f"the new lane is {self.lag_s:.0f} s behind: it hangs or is too slow"
            )
            return
        with self._changed:
            self._work.append((work, samples))
            self._waiting += samples
            self._changed.notify_all()

    def _wait(self, reached: Callable[[], bool], patience_s: float) -> bool:
        """Wait; return False if the shadow does nothing for `patience_s` seconds."""
        with self._changed:
            done, until = self._done, monotonic() + patience_s
            while not reached() and not self.cancelled:
                if self._done != done and self._can_wait:
                    done, until = self._done, monotonic() + patience_s
                left = until - monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._work and not self._ending:
                    self._changed.wait()
                if self._ending:
                    return
                work, samples = self._work.popleft()
                self._busy = True
            try:
                work()
            except Exception as error:  # its stages' failures cancel it by themselves
                log.exception("a shadow failed")
                self._cancel(f"the new lane failed: {type(error).__name__}: {error}")
            with self._changed:
                self._busy = False
                self._waiting -= 0 if self._ending else samples
                self._done += 1
                self._changed.notify_all()

    def _tell(self, comparison: Comparison, at: int) -> None:
        self._publish(*self._stream, comparison, at)
