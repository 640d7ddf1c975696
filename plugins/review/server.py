"""Routes of the review page: segments, spectrograms, sound, changes and export."""

import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar, get_args

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from neurovocal.engine import NS, AudioFileError, ConfigError, NeurovocalError
from neurovocal.engine.contracts.errors import CommandError
from neurovocal.engine.journal.reader import Selection
from neurovocal.plugins.review.audio import RecordingAudio, spectrogram, wav
from neurovocal.plugins.review.export import Format, export_dataset
from neurovocal.plugins.review.journal import read_journal
from neurovocal.plugins.review.segments import Collection, Kind, Order, Recording
from neurovocal.plugins.review.session import Edit, Query, ReviewSession
from neurovocal.plugins.review.store import ReviewEvent, ReviewStore, review_path
from neurovocal.plugins.web.server import page_file, read_body

log = logging.getLogger("neurovocal")

_MOST_BODY_BYTES = 64 * 1024
_MOST_LISTED = 1000
_LONGEST_SOUND_S = 30.0
_ULTRASOUND_HZ = 96_000
_RECENT_H = 2
_NO_SURPRISE = (
    "the journal keeps no surprise: to order by it, write `events: [onset, offset, "
    "label, near_miss, gap, surprise]` beside the options of its sink"
)
T = TypeVar("T")


class ReviewPage:
    """The review page of one journal or folder.

    Parameters
    ----------
    opening : callable
        Returns the session, with the segments and changes; called by the first request.
    export_folder : Path
        Where the page's button exports to: a number is added if it is there already.
    reload : callable, optional
        Reads the journal or folder again.
    stamp : callable
        Returns a value that differs once the journal or folder has changed.
    author : str
        Name that the page proposes for its user.
    live : bool
        Whether the page belongs to a run: then it links to the live page.
    """

    def __init__(
        self,
        opening: Callable[[], ReviewSession],
        export_folder: Path,
        *,
        reload: Callable[[], Collection] | None = None,
        stamp: Callable[[], object] = lambda: None,
        author: str = "",
        live: bool = False,
    ) -> None:
        self._opening = opening
        self._session: ReviewSession | None = None
        self._opened = threading.Lock()
        self.audio = RecordingAudio()
        self._export_folder = export_folder
        self._reload = reload
        self._stamp = stamp
        self._read_at: object = None
        self._author = author
        self._live = live
        self._exporting = threading.Lock()
        self._renewing = threading.Lock()

    @property
    def session(self) -> ReviewSession:
        """The session; raises NeurovocalError if it cannot be opened."""
        with self._opened:
            if self._session is None:
                self._read_at = self._stamp()
                self._session = self._opening()
            return self._session

    def close(self) -> None:
        """Close the audio files and the file of the changes."""
        self.audio.close()
        with self._opened:
            if self._session is not None:
                self._session.close()
                self._session = None

    def routes(self, *, at_root: bool = False) -> list[BaseRoute]:
        """Return the routes, ``review`` and ``review/api/...``.

        Parameters
        ----------
        at_root : bool
            Whether the page is served at ``/``, too.
        """
        get = {
            "state": self._state,
            "segments": self._segments,
            "window": self._window,
            "events": self._events,
            "spectrogram": self._spectrogram,
            "sound": self._sound,
        }
        post = {"edit": self._edit, "export": self._export, "reload": self._renew}
        pages: list[BaseRoute] = [page_file("review.html")]
        if at_root:
            pages.append(page_file("review.html", "/"))
        return [
            *pages,
            *(
                Route(f"/review/api/{name}", _answering(answer), methods=["GET"])
                for name, answer in get.items()
            ),
            *(
                Route(f"/review/api/{name}", _answering(answer), methods=["POST"])
                for name, answer in post.items()
            ),
        ]

    # ---- what the page reads ----

    def _state(self, request: Request, body: bytes) -> Response:
        """Return all that does not belong to a single segment."""
        session = self.session
        collection = session.collection
        last = session.refresh()
        reviewed, total = session.progress()
        segments = collection.segments
        lost = session.lost_originals()
        has_surprise = any(each.surprise is not None for each in segments)
        notes = list(collection.notes)
        if lost:
            notes.append(
                f"{lost} reviewed segments are not in '{collection.name}' any more"
            )
        if any(each.run for each in collection.recordings.values()):
            notes += [] if has_surprise else [_NO_SURPRISE]
        return _json(
            {
                "name": collection.name,
                "live": self._live,
                "author": self._author,
                "event": last,
                "reviewed": reviewed,
                "total": total,
                "units": session.units(),
                "notes": notes,
                "orders": {
                    "posterior": any(s.posterior is not None for s in segments),
                    "surprise": has_surprise,
                    "near_miss": any(s.kind == "near_miss" for s in segments),
                },
                "recordings": [
                    _shown(recording) for recording in collection.recordings.values()
                ],
                "export": str(self._free_folder()),
            }
        )

    def _segments(self, request: Request, body: bytes) -> Response:
        """Return a part of the list."""
        asked = request.query_params
        query = Query(
            _orders.convert(asked.get("order", "time")),
            _kinds.convert(asked["kind"]) if asked.get("kind") else None,
            asked.get("unit"),
            asked.get("recording"),
            asked.get("unreviewed") == "1",
        )
        first = _whole(asked.get("first", "0"))
        most = min(_whole(asked.get("most", "200")), _MOST_LISTED)
        found, total = self.session.select(query, first, most)
        return _json({"segments": found, "total": total, "first": first})

    def _window(self, request: Request, body: bytes) -> Response:
        """Return the segments of a part of a recording."""
        asked = request.query_params
        start, stop = _whole(asked.get("start", "0")), _whole(asked.get("stop", "0"))
        recording = self._recording(request)
        return _json({"segments": self.session.window(recording.id, start, stop)})

    def _events(self, request: Request, body: bytes) -> Response:
        """Return what was changed after an event, with the progress."""
        after = _whole(request.query_params.get("after", "0"))
        events = self.session.events(after)
        changed = {change.segment for event in events for change in event.changes}
        reviewed, total = self.session.progress()
        return _json(
            {
                "events": [_told(event) for event in events],
                "segments": [
                    segment
                    for each in changed
                    if (segment := self.session.get(each)) is not None
                ],
                "reviewed": reviewed,
                "total": total,
                "units": self.session.units(),
            }
        )

    def _spectrogram(self, request: Request, body: bytes) -> Response:
        """Return columns: length of the header, header, padding, unsigned bytes."""
        asked = request.query_params
        recording = self._recording(request)
        start, stop = _whole(asked.get("start", "0")), _whole(asked.get("stop", "0"))
        if stop <= start:
            raise CommandError("this part of the recording has no length")
        n_columns = _whole(asked.get("columns", "800"))
        columns = spectrogram(self.audio, recording, start, stop, n_columns)
        header = json.dumps(
            {
                "start": columns.start,
                "stop": columns.stop,
                "column_s": columns.column_s,
                "low_hz": columns.low_hz,
                "high_hz": columns.high_hz,
                "low_db": columns.low_db,
                "high_db": columns.high_db,
                "shape": columns.values.shape,
                "dtype": "u1",
            }
        ).encode()
        header += b" " * (-len(header) % 4)
        content = len(header).to_bytes(4, "little") + header + columns.values.tobytes()
        return Response(content, media_type="application/octet-stream")

    def _sound(self, request: Request, body: bytes) -> Response:
        """Return a part as WAV."""
        asked = request.query_params
        recording = self._recording(request)
        start, stop = _whole(asked.get("start", "0")), _whole(asked.get("stop", "0"))
        longest = round(_LONGEST_SOUND_S * recording.sample_rate)
        first, last = self.audio.range_of(
            recording, start, max(start, min(stop, start + longest))
        )
        try:
            speed = min(4.0, max(0.01, float(asked.get("speed", "1"))))
        except ValueError as error:
            raise CommandError("the speed is no number") from error
        samples = self.audio.read(recording, first, last)
        content = wav(samples, recording.audio_rate or recording.sample_rate, speed)
        return Response(content, media_type="audio/wav")

    # ---- what the page changes ----

    def _edit(self, request: Request, body: bytes) -> Response:
        """Change segments."""
        try:
            edit = _edits.decode(body)
        except msgspec.MsgspecError as error:
            raise CommandError(f"this is no change: {error}") from error
        answer = self.session.edit(edit)
        reviewed, total = self.session.progress()
        return _json(
            {
                "ok": True,
                "event": answer.event,
                "segments": answer.segments,
                "told": answer.told,
                "reviewed": reviewed,
                "total": total,
                "units": self.session.units(),
            }
        )

    def _export(self, request: Request, body: bytes) -> Response:
        """Export to a folder of the machine that serves the page."""
        try:
            asked = _exports.decode(body)
        except msgspec.MsgspecError as error:
            raise CommandError(f"this is no export: {error}") from error
        if not self._exporting.acquire(blocking=False):
            raise CommandError("an export is being written: wait until it is there")
        try:
            done = export_dataset(
                self.session,
                self.audio,
                self._free_folder(),
                asked.format,
                everything=asked.everything,
            )
        finally:
            self._exporting.release()
        return _json(
            {
                "ok": True,
                "folder": str(done.folder),
                "files": done.files,
                "segments": done.segments,
                "seconds": round(done.seconds, 3),
                "units": done.units,
                "notes": done.notes,
            }
        )

    def _renew(self, request: Request, body: bytes) -> Response:
        """Read the journal again if a run has written on."""
        with self._renewing:
            session, stamp = self.session, self._stamp()
            if self._reload is not None and stamp != self._read_at:
                session.replace(self._reload())
                self._read_at = stamp
        return _json({"ok": True})

    def _free_folder(self) -> Path:
        """Return the folder of the next export."""
        folder, number = self._export_folder, 2
        while folder.exists():
            folder = self._export_folder.with_name(
                f"{self._export_folder.name}-{number}"
            )
            number += 1
        return folder

    def _recording(self, request: Request) -> Recording:
        key = request.query_params.get("recording", "")
        found = self.session.collection.recordings.get(key)
        if found is None:
            raise CommandError("this recording is not there any more")
        return found


def review_of_run(journal: Path, author: str) -> ReviewPage:
    """Return the review page of a run that is going on.

    It has the last hours only: the engine has to go on meanwhile. Its journal is opened
    by the first request, and read again whenever the page is loaded.

    Parameters
    ----------
    journal : Path
        The journal that the run writes.
    author : str
        Name that the page proposes for its user.
    """

    def read() -> Collection:
        since_ns = time.time_ns() - _RECENT_H * 3600 * NS
        selection = Selection(since_ns=since_ns)
        found = read_journal(journal, selection, published=True)
        note = (
            f"these are the last {_RECENT_H} hours: `neurovocal review {journal}` "
            "shows everything"
        )
        return msgspec.structs.replace(found, notes=[note, *found.notes])

    return ReviewPage(
        lambda: ReviewSession(read(), ReviewStore(review_path(journal))),
        export_folder(journal),
        reload=read,
        stamp=lambda: stamp_of(journal),
        author=author,
        live=True,
    )


def export_folder(reviewed: Path) -> Path:
    """Return the folder that the page's button exports to: beside what is reviewed."""
    path = reviewed.absolute()
    stem = path.stem if path.is_file() else path.name
    return path.with_name(f"{stem}-reviewed")


def stamp_of(*paths: Path | None) -> list[int]:
    """Return when files, their write-ahead logs and the files of folders changed."""
    stamps = []
    for path in paths:
        if path is None:
            continue
        path = path.absolute()
        inside = path.iterdir() if path.is_dir() else ()
        for each in (path, path.with_name(f"{path.name}-wal"), *inside):
            with suppress(OSError):
                stamps.append(each.stat().st_mtime_ns)
    return stamps


class _ExportAsked(msgspec.Struct, forbid_unknown_fields=True):
    """What is exported."""

    format: Format = "csv"
    everything: bool = False


class _Choice(Generic[T]):
    """Reads one of a few words."""

    def __init__(self, words: Sequence[T]) -> None:
        self._words = words

    def convert(self, text: str) -> T:
        """Return the word; raise CommandError if it is none of them."""
        for word in self._words:
            if word == text:
                return word
        raise CommandError(f"'{text[:40]}' is no choice here")


_orders: _Choice[Order] = _Choice(get_args(Order))
_kinds: _Choice[Kind] = _Choice(get_args(Kind))
_edits = msgspec.json.Decoder(Edit)
_exports = msgspec.json.Decoder(_ExportAsked)


def _answering(
    answer: Callable[[Request, bytes], Response],
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that computes in a thread, and answers errors in a sentence.

    A change must be sent as JSON: no form of another site can send that.
    """

    async def respond(request: Request) -> Response:
        body = b""
        if request.method == "POST":
            kind = request.headers.get("content-type", "").partition(";")[0].strip()
            if kind != "application/json":
                return _refused("send JSON", 415)
            sent = await read_body(request, _MOST_BODY_BYTES)
            if sent is None:
                return _refused("this is too long", 413)
            body = sent
        try:
            return await run_in_threadpool(answer, request, body)
        except AudioFileError as error:
            return _refused(str(error), 404)
        except (CommandError, ConfigError) as error:
            return _refused(str(error), 409)
        except NeurovocalError as error:
            log.warning("review: %s", error)
            return _refused(str(error), 500)

    return respond


def _refused(sentence: str, status: int) -> Response:
    return JSONResponse({"ok": False, "error": sentence}, status)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _whole(text: str) -> int:
    try:
        return max(0, int(float(text)))
    except (ValueError, OverflowError) as error:
        raise CommandError(f"'{text[:40]}' is no whole number") from error


def _shown(recording: Recording) -> dict[str, object]:
    rate = recording.audio_rate or recording.sample_rate
    return {
        "id": recording.id,
        "name": recording.name,
        "run": recording.run,
        "sample_rate": recording.sample_rate,
        "n_samples": recording.n_samples,
        "hop_length": recording.hop_length,
        # A browser's numbers have 53 bits: milliseconds are enough here.
        "utc_ms": None if recording.utc_ns is None else recording.utc_ns / 1e6,
        "problem": recording.problem or ("" if recording.audio else "no sound"),
        "slow": 0.1 if rate > _ULTRASOUND_HZ else 0.25,
        "ultrasound": rate > _ULTRASOUND_HZ,
    }


def _told(event: ReviewEvent) -> dict[str, object]:
    units = [change.after.unit for change in event.changes if change.after.alive]
    return {
        "event": event.event,
        "utc_ms": event.utc_ns / 1e6,
        "author": event.author,
        "action": event.action,
        "of": event.of,
        "segments": [change.segment for change in event.changes],
        "unit": units[0] if units else "",
    }
