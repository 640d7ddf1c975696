"""Routes of the discovery page: map, thumbnails, sound, changes and export."""

import io
import json
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from neurovocal.engine.contracts.errors import AudioFileError, NeurovocalError
from neurovocal.models.discovery.edits import EditedClusters
from neurovocal.models.discovery.folder import ANNOTATIONS, DiscoveryFolder
from neurovocal.plugins.features.patches import N_BINS, N_COLUMNS, RANGE_DB
from neurovocal.plugins.review.store import checked_author
from neurovocal.plugins.sources.audio_files.file import Recording, inspect
from neurovocal.plugins.web.server import page_file, read_body

_MOST_BODY_BYTES = 4 * 2**20
_MOST_PATCHES = 500
_ULTRASOUND_HZ = 96_000
_MARGIN_S = 0.05
_LONGEST_SOUND_S = 30.0
_LEAST_RATE, _MOST_RATE = 3000, 192_000  # that browsers play


class DiscoveryPage:
    """The page of a finished discovery.

    Parameters
    ----------
    folder : DiscoveryFolder
        Finished discovery.
    author : str
        Name that the page proposes for its user.
    """

    def __init__(self, folder: DiscoveryFolder, author: str = "") -> None:
        self._folder = folder
        self._author = author
        self._lock = threading.Lock()
        self.clusters = EditedClusters(folder)
        self._patches = folder.patches(len(self.clusters.segments))
        self._spec = folder.spec()

    def routes(self) -> list[BaseRoute]:
        """Return the routes, ``discover`` and ``discover/api/...``."""
        get = {
            "state": self._state,
            "points": self._points,
            "patches": self._patch_bytes,
            "sound": self._sound,
        }
        post = {"change": self._change, "export": self._export}
        return [
            page_file("discover.html"),
            page_file("discover.html", "/"),
            *(
                Route(f"/discover/api/{name}", _answering(answer), methods=["GET"])
                for name, answer in get.items()
            ),
            *(
                Route(f"/discover/api/{name}", _answering(answer), methods=["POST"])
                for name, answer in post.items()
            ),
        ]

    # ---- what the page reads ----

    def _state(self, request: Request, body: bytes) -> Response:
        """Return clusters, recordings and axes."""
        with self._lock:
            return JSONResponse(self._content())

    def _content(self) -> dict[str, Any]:
        edited = self.clusters
        spec = self._spec
        centres = spec.centres_hz
        return {
            "folder": str(self._folder.path),
            "author": self._author,
            "revision": edited.revision,
            "can_undo": edited.can_undo,
            "min_size": edited.min_size,
            "n_segments": len(edited.segments),
            "n_unknown": int((edited.labels < 0).sum()),
            "clusters": edited.clusters(),
            "recordings": [Path(r.path).name for r in edited.recordings],
            "patch": {
                "n_columns": N_COLUMNS,
                "n_bins": N_BINS,
                "range_db": RANGE_DB,
                "low_hz": float(centres[0]),
                "high_hz": float(centres[-1]),
                "longest_s": spec.longest_s,
            },
            "export": str(self._folder.path / ANNOTATIONS),
        }

    def _points(self, request: Request, body: bytes) -> Response:
        """Return all segments, an array after another, little-endian.

        float32 x and y interleaved, float32 onset in s, float32 duration in s, int32
        cluster, int32 recording, float32 membership.
        """
        with self._lock:
            edited = self.clusters
            segments = edited.segments
            rates = np.array([max(r.sample_rate, 1) for r in edited.recordings])
            rate = rates[segments.recording]
            arrays = [
                edited.places.astype("<f4"),
                (segments.onset / rate).astype("<f4"),
                ((segments.offset - segments.onset) / rate).astype("<f4"),
                edited.labels.astype("<i4"),
                segments.recording.astype("<i4"),
                edited.membership.astype("<f4"),
            ]
        content = b"".join(array.tobytes() for array in arrays)
        return Response(content, media_type="application/octet-stream")

    def _patch_bytes(self, request: Request, body: bytes) -> Response:
        """Return the patches of segments, ``ids=1,2,3``, uint8[n, columns, bins]."""
        ids = self._ids(request.query_params.get("ids", ""))
        if not ids or len(ids) > _MOST_PATCHES:
            return _error(f"name 1 to {_MOST_PATCHES} segments", 400)
        return Response(
            np.ascontiguousarray(self._patches[ids]).tobytes(),
            media_type="application/octet-stream",
            headers={"Cache-Control": "private, max-age=3600"},
        )

    def _ids(self, text: str) -> list[int]:
        """Return the numbers of segments in a list; empty if one is none."""
        n = len(self.clusters.segments)
        parts = text.split(",")
        good = all(
            part.isascii() and part.isdigit() and len(part) < 10 for part in parts
        )
        numbers = [int(part) for part in parts] if good else []
        return numbers if all(number < n for number in numbers) else []

    def _sound(self, request: Request, body: bytes) -> Response:
        """Return a segment, ``id=N``, as WAV; ultrasound is slowed down ten times."""
        ids = self._ids(request.query_params.get("id", ""))
        if len(ids) != 1:
            return _error("name one segment", 400)
        segments = self.clusters.segments
        recording = self.clusters.recordings[int(segments.recording[ids[0]])]
        rate = recording.sample_rate
        margin = round(_MARGIN_S * rate)
        onset = max(0, int(segments.onset[ids[0]]) - margin)
        offset = int(segments.offset[ids[0]]) + margin
        offset = min(offset, onset + round(_LONGEST_SOUND_S * rate))
        channel = int(segments.channel[ids[0]])
        try:
            samples = _read(Path(recording.path), onset, offset, channel)
        except AudioFileError as error:
            return _error(str(error), 404)
        slowed = 10 if rate > _ULTRASOUND_HZ else 1
        return Response(
            _wav(samples, rate // slowed),
            media_type="audio/wav",
            headers={"X-Slowed": str(slowed)},
        )

    # ---- what the page changes ----

    def _change(self, request: Request, body: bytes) -> Response:
        """Apply a change, ``{"author", "revision", "change": {...}}``."""
        try:
            asked = json.loads(body)
        except ValueError:
            asked = None
        if not isinstance(asked, dict) or not isinstance(asked.get("change"), dict):
            return _error("a change is a JSON object", 400)
        author = checked_author(str(asked.get("author") or self._author))
        with self._lock:
            if asked.get("revision") != self.clusters.revision:
                return _error("somebody else has changed the clusters: look again", 409)
            self.clusters.change(asked["change"], author)
            return JSONResponse(self._content())

    def _export(self, request: Request, body: bytes) -> Response:
        """Write the draft annotations."""
        with self._lock:
            kept = self._folder.write_annotations(self.clusters.annotations())
            return JSONResponse(
                {
                    "path": str(self._folder.path / ANNOTATIONS),
                    "kept": str(kept) if kept else None,
                    "segments": len(self.clusters.segments),
                    "train": f"neurovocal train {self._folder.path} --out BUNDLE",
                    "review": f"neurovocal review {self._folder.path}",
                }
            )


def _answering(answer: Callable[[Request, bytes], Response]) -> Any:
    """Return a route's function that answers in a thread, with errors as sentences."""

    async def respond(request: Request) -> Response:
        body = b""
        if request.method == "POST":
            if not request.headers.get("content-type", "").startswith(
                "application/json"
            ):
                return _error("send JSON", 415)
            read = await read_body(request, _MOST_BODY_BYTES)
            if read is None:
                return _error("the request is too large", 413)
            body = read
        try:
            return await run_in_threadpool(answer, request, body)
        except NeurovocalError as error:
            return _error(str(error), 400)

    return respond


def _error(sentence: str, status: int) -> Response:
    return JSONResponse({"error": sentence}, status)


def _read(path: Path, onset: int, offset: int, channel: int) -> Any:
    """Return samples ``[onset, offset)`` of a channel, loud enough to be heard."""
    with closing(Recording(inspect(path))) as recording:
        recording.open()
        recording.seek(onset)
        samples = np.nan_to_num(recording.read(offset - onset)[:, channel - 1])
    loudest = float(np.abs(samples).max(initial=0.0))
    return samples * (0.5 / loudest) if loudest > 0 else samples


def _wav(samples: Any, rate: int) -> bytes:
    """Return a 16-bit WAV file at a rate that browsers play."""
    import soundfile

    while rate < _LEAST_RATE:
        samples, rate = np.repeat(samples, 2), rate * 2
    while rate > _MOST_RATE:
        samples, rate = samples[::2], rate // 2
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, "PCM_16", format="WAV")
    return stream.getvalue()
