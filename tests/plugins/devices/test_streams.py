"""Order in which PortAudio's streams and PortAudio itself are ended."""

import os
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pytest
from processes.waiting import PATIENCE_S

from neurovocal.plugins.devices import streams
from neurovocal.plugins.devices.streams import Stream, shut_down


class Stop(Exception):  # noqa: N818 (as PortAudio's binding calls it)
    pass


class Calls(list):
    """Calls in their order, with a device that calls back when a test says so."""

    def __init__(self, monkeypatch):
        self.stopping = Event()
        self.stopping.set()
        calls = self

        class Raw:
            latency = 0.0

            def __init__(self, callback, finished_callback, **options):
                self.callback, self.finished = callback, finished_callback

            def start(self):
                calls.append("start")

            def stop(self, ignore_errors):
                calls.append("stop")
                calls.stopping.wait(PATIENCE_S)

            def close(self, ignore_errors):
                calls.append("close")

        def terminate():
            module._initialized -= 1
            calls.append("terminate")

        module = SimpleNamespace(
            OutputStream=Raw, CallbackStop=Stop, _initialized=1, _terminate=terminate
        )
        self.module = module
        monkeypatch.setattr(streams, "portaudio", lambda: module)
        monkeypatch.setattr(streams, "_module", module)
        monkeypatch.setattr(streams, "_streams", set())
        monkeypatch.setattr(streams, "_CALLBACK_S", 0.0)
        monkeypatch.setattr(streams, "_CLOSE_S", 0.0)


@pytest.fixture
def calls(monkeypatch):
    made = Calls(monkeypatch)
    yield made
    made.stopping.set()


def opened(calls, callback=lambda *_: None):
    return Stream(calls.module.OutputStream, "card", callback)


def ended(stream):
    stream.begin_close()
    stream._closer.join(30)


def test_the_callback_is_not_called_any_more_once_the_end_was_asked_for(calls):
    heard = []
    stream = opened(calls, lambda out, *_: heard.append(len(out)))
    raw, out = stream._stream, np.ones((4, 1), np.float32)
    raw.callback(out, 4, None, None)
    ended(stream)
    with pytest.raises(Stop):
        raw.callback(out, 4, None, None)
    assert heard == [4]
    assert not out.any()
    assert calls == ["start", "stop", "close"]


def test_a_stream_is_ended_once_whoever_asks(calls):
    stream = opened(calls)
    others = [Thread(target=stream.close) for _ in range(4)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    ended(stream)
    ended(stream)
    assert calls == ["start", "stop", "close"]


def test_portaudio_is_ended_once_after_all_streams(calls, monkeypatch):
    monkeypatch.setattr(streams, "_CLOSE_S", 30.0)
    opened(calls)
    opened(calls)
    shut_down()
    shut_down()
    assert sorted(calls[2:6]) == ["close", "close", "stop", "stop"]
    assert calls[6:] == ["terminate"]


def test_portaudio_is_not_ended_under_a_stream_that_does_not_end(calls):
    stream = opened(calls)
    calls.stopping.clear()
    assert not stream.close()
    shut_down()
    assert calls == ["start", "stop"]
    calls.stopping.set()
    ended(stream)
    assert calls == ["start", "stop", "close"]


def test_libraries_are_muted_while_a_stream_is_open(calls, capfd):
    """PortAudio's thread writes lines when a device is lost."""
    first, second = opened(calls), opened(calls)
    ended(first)
    os.write(2, b"Expression 'alsa_snd_pcm' failed")
    ended(second)
    os.write(2, b"spoken")
    assert capfd.readouterr().err == "spoken"


def test_libraries_speak_again_if_a_stream_cannot_be_opened(calls, capfd):
    def fail(self):
        raise OSError("busy")

    calls.module.OutputStream.start = fail
    with pytest.raises(OSError, match="busy"):
        opened(calls)
    os.write(2, b"spoken")
    assert capfd.readouterr().err == "spoken"
