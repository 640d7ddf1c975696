"""Life of PortAudio and its streams: one order of calls for the whole process.

PortAudio, and the libraries below it, may be started, listed, opened, closed and ended
by one thread at a time. A stream is ended in this order, whichever thread asks for it:
its callback is told to end itself, its thread is joined, the stream is closed.
PortAudio is ended once, after all streams: ended before, it would close streams that
another thread is closing. A stream that does not end within a bounded time is left
behind; then PortAudio is not ended at all, and the process exits without it.
"""

import atexit
import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Lock, RLock, Thread
from typing import Any

from neurovocal.engine import DeviceError
from neurovocal.engine.support.process import before_exit, mute_libraries

# A device answers within some milliseconds, a sound server on a busy machine later.
_CALL_S = 10.0
# A callback comes every few milliseconds, unless the device has gone.
_CALLBACK_S = 0.5
_CLOSE_S = 2.0
_lock = RLock()
_streams: "set[Stream]" = set()
_module: Any = None


def portaudio() -> Any:
    """Return the ``sounddevice`` module.

    Raises
    ------
    DeviceError
        PortAudio is not installed.
    """
    global _module
    with exclusive():
        try:
            with mute_libraries():
                import sounddevice
        except OSError as error:
            raise DeviceError(
                "PortAudio is not installed: a sound card needs it "
                "(Debian: apt install libportaudio2)"
            ) from error
        if _module is not sounddevice:
            _silence_alsa()
            # It would end PortAudio while a thread still closes a stream.
            atexit.unregister(sounddevice._exit_handler)
            before_exit(shut_down)
            atexit.register(shut_down)
            _module = sounddevice
    return _module


@contextmanager
def exclusive() -> Iterator[None]:
    """Let one thread at a time use what all streams share.

    Raises
    ------
    DeviceError
        The thread before does not come back from PortAudio.
    """
    if not _lock.acquire(timeout=_CALL_S):
        raise DeviceError(
            f"the sound system has not answered for {_CALL_S:g} s: start again, and "
            "the sound server, too, if that does not help"
        )
    try:
        yield
    finally:
        _lock.release()


def _silence_alsa() -> None:
    """Keep ALSA from writing a line to stderr at each underrun, which is counted."""
    with suppress(OSError, AttributeError):
        # A function of C that does nothing: one of Python would hold up its threads.
        nothing = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p)
        ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(nothing)


def list_again(module: Any) -> None:
    """Restart PortAudio, which lists devices only when it starts; hold `exclusive`.

    It is not restarted while a stream is open, because that would end the stream.
    """
    if not _streams:
        with mute_libraries():
            module._terminate()
            module._initialize()


class Stream:
    """Open and started stream of samples.

    Parameters
    ----------
    kind : type
        ``InputStream`` or ``OutputStream``.
    name : str
        Name of its device.
    callback : callable
        PortAudio's; it is not called any more once `close` has returned.
    finished_callback : callable, optional
        Called when the device delivers no more.
    options : Any
        Of `kind`.

    Attributes
    ----------
    latency : float
        Latency in seconds, as PortAudio states it.
    """

    def __init__(
        self,
        kind: Any,
        name: str,
        callback: Callable[..., None],
        finished_callback: Callable[[], None] | None = None,
        **options: Any,
    ) -> None:
        self._name = name
        self._callback = callback
        self._finished = finished_callback
        # What the device still holds is played; to abort would discard it.
        self._complete = portaudio().CallbackStop
        self._is_output = kind is portaudio().OutputStream
        self._ends = False
        self._ended = Event()
        self._ending = Lock()
        self._closer: Thread | None = None
        self._stream: Any = None
        # Until it is closed: PortAudio's thread writes lines when a device is lost,
        # which is told in words of our own.
        self._muted = ExitStack()
        with exclusive(), ExitStack() as muted:
            muted.enter_context(mute_libraries())
            try:
                self._stream = kind(
                    callback=self._on_samples,
                    finished_callback=self._on_end,
                    **options,
                )
                self._stream.start()
            except BaseException:
                if self._stream is not None:
                    self._stream.close(ignore_errors=True)
                raise
            self._muted = muted.pop_all()
            _streams.add(self)
        self.latency = float(self._stream.latency)

    def _on_samples(self, *arguments: Any) -> None:
        if self._ends:
            if self._is_output:
                arguments[0][:] = 0
            raise self._complete
        self._callback(*arguments)

    def _on_end(self) -> None:
        self._ended.set()
        if self._finished is not None:
            self._finished()

    def close(self) -> bool:
        """End the stream; return False if that takes longer than a bounded time."""
        self.begin_close()
        assert self._closer is not None
        self._closer.join(_CLOSE_S + self.latency)
        return not self._closer.is_alive()

    def begin_close(self) -> None:
        """End the stream in a thread of its own, once."""
        self._ends = True
        with self._ending:
            if self._closer is None:
                # No daemon: the process does not leave while PortAudio is being used,
                # unless the command line gives up on it.
                self._closer = Thread(target=self._end, name=f"closing '{self._name}'")
                self._closer.start()

    def _end(self) -> None:
        # The thread of the callback ends itself. To cancel it, as `abort` does, would
        # stop it in the middle of Python, with the locks that it holds.
        self._ended.wait(_CALLBACK_S + self.latency)
        self._stream.stop(ignore_errors=True)  # joins that thread
        with _lock:
            self._stream.close(ignore_errors=True)
            _streams.discard(self)
            self._muted.close()


def shut_down() -> None:
    """Close all streams, and then PortAudio; leave it as it is if one does not end."""
    global _module
    module, left = _module, list(_streams)
    if module is None:
        return
    for stream in left:
        stream.begin_close()
    if all([stream.close() for stream in left]) and not _streams:
        _module = None

        def terminate() -> None:
            with _lock:
                while module._initialized:
                    module._terminate()

        # A sound server that is gone may hold it up for ever.
        ending = Thread(target=terminate, name="ending PortAudio", daemon=True)
        ending.start()
        ending.join(_CLOSE_S)
