"""Folder of a discovery: what is found, what people changed, and what is exported.

``discovery.json`` says what was asked for and which recordings were read. Every stage
writes a file of its own when it is finished, so that a run that was stopped goes on
from there. Changes by people are appended to ``changes.jsonl``.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.support.platform import reserve_bytes
from neurovocal.models.discovery.clusters import Clustering
from neurovocal.models.discovery.segments import Segments, SourceRecording
from neurovocal.models.toolkit.files import write_file, write_npz, writing
from neurovocal.plugins.features.patches import N_BINS, N_COLUMNS, PatchSpec

VERSION = 1
STATE = "discovery.json"
ANNOTATIONS = "annotations.csv"
CHANGES = "changes.jsonl"
_FOUND = "found.jsonl"
_SEGMENTS, _PATCHES, _FEATURES = "segments.npz", "patches.u8", "features.npz"
_MAP, _CLUSTERS = "map.npz", "clusters.npz"
_CHECKPOINT = "autoencoder.pt"
_ENCODER, _DECODER, _OUTLIERS = "encoder.onnx", "decoder.onnx", "outliers.csv"
_OWN = (
    *(STATE, ANNOTATIONS, CHANGES, _FOUND, _SEGMENTS, _PATCHES, _FEATURES),
    *(_MAP, _CLUSTERS, _CHECKPOINT, _ENCODER, _DECODER, _OUTLIERS),
)


_BY_PEOPLE = (CHANGES, ANNOTATIONS)
# What `--overwrite` has kept of the discoveries before.
_KEPT = re.compile(rf"({re.escape(CHANGES)}|{re.escape(ANNOTATIONS)})\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Request:
    """What a discovery is of: the same request goes on, another one is refused.

    Parameters
    ----------
    recordings : tuple of str
        Absolute paths.
    channels : tuple of int
        Channels that are searched.
    detector : dict
        Plugin and options.
    bundle : str
        Folder of the bundle whose detector and RNN-RBM are used; empty for none.
    seed, updates, min_size : int
        Seed of all draws; updates of the autoencoder; least size of a cluster, 0 for
        the default.
    membership : float
        Segments below stay unknown.
    """

    recordings: tuple[str, ...]
    channels: tuple[int, ...]
    detector: dict[str, Any]
    bundle: str
    seed: int
    updates: int
    min_size: int
    membership: float

    @property
    def fingerprint(self) -> str:
        """Digest of the request, and of size and time of each recording."""
        files: list[list[str | int]] = []
        for name in self.recordings:
            try:
                status = os.stat(name)
            except OSError:
                files.append([name])
            else:
                files.append([name, status.st_size, status.st_mtime_ns])
        content = json.dumps([VERSION, asdict(self), files], sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


class DiscoveryFolder:
    """Files of a discovery.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoint(self) -> Path:
        """File of the autoencoder's training."""
        return self.path / _CHECKPOINT

    @property
    def is_finished(self) -> bool:
        """Return whether all stages are done."""
        return bool(self.state().get("finished"))

    def state(self) -> dict[str, Any]:
        """Return the content of ``discovery.json``; empty where there is none.

        Raises
        ------
        ConfigError
            It cannot be read, or is of another version.
        """
        path = self.path / STATE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"'{path}' cannot be read: discover anew into another folder, or add "
                "--overwrite"
            ) from error
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise ConfigError(
                f"'{path}' is of another version: discover anew into another folder"
            )
        return content

    def update_state(self, **values: Any) -> None:
        """Add values to ``discovery.json``."""
        content = {"version": VERSION, **self.state(), **values}
        self._write_json(STATE, content)

    def problems(self, request: Request, *, overwrite: bool) -> list[str]:
        """Return why a discovery may not be written here."""
        path = self.path
        if os.path.lexists(path) and not path.is_dir():
            return [f"--out '{path}' is a file: name a folder"]
        others = self._others()
        for name in request.recordings:
            if Path(os.path.realpath(name)).parent == Path(os.path.realpath(path)):
                return [
                    f"--out '{path}' holds the recordings themselves: name a new folder"
                ]
        if not path.is_dir():
            return []
        ours = (path / STATE).is_file()
        if others and not ours:
            return [
                f"--out '{path}' holds other files ({', '.join(others[:3])}): name a "
                "new folder"
            ]
        if not ours or overwrite:
            return []
        state = self.state()
        if state.get("fingerprint") == request.fingerprint:
            return []
        kept = " (changes by hand are kept beside it)" if self._has_changes else ""
        return [
            f"--out '{path}' holds a discovery of other recordings or options: "
            f"name a new folder, or add --overwrite to begin anew{kept}"
        ]

    def begin(self, request: Request, *, overwrite: bool) -> None:
        """Make the folder and remember what is asked for.

        Raises
        ------
        DiskError
            The folder cannot be written to.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        fingerprint = request.fingerprint
        if overwrite and self.path.is_dir():
            self._keep_changes()
            for name in _OWN:
                (self.path / name).unlink(missing_ok=True)
        if self.state().get("fingerprint") != fingerprint:
            self._write_json(
                STATE,
                {
                    "version": VERSION,
                    "fingerprint": fingerprint,
                    "request": asdict(request),
                },
            )

    # ---- segments, recording by recording

    def found(self) -> list[tuple[SourceRecording, list[list[int]]]]:
        """Return recordings that were searched, with rows of their segments.

        A line that a kill has cut short is left out: its recording is searched again.
        """
        rows = []
        try:
            text = (self.path / _FOUND).read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        for line in text.splitlines():
            try:
                recording, segments = json.loads(line)
                rows.append((SourceRecording(**recording), segments))
            except (ValueError, TypeError):
                break
        return rows

    def keep_found(
        self, done: Sequence[tuple[SourceRecording, Sequence[Sequence[int]]]]
    ) -> None:
        """Write what was found until now, whole lines only."""
        lines = [
            json.dumps([asdict(recording), segments]) for recording, segments in done
        ]
        self._write(_FOUND, "".join(f"{line}\n" for line in lines).encode())

    def add_found(
        self, recording: SourceRecording, segments: Sequence[Sequence[int]]
    ) -> None:
        """Append a recording that was searched."""
        line = json.dumps([asdict(recording), segments]) + "\n"
        with writing(self.path / _FOUND), (self.path / _FOUND).open("ab") as file:
            file.write(line.encode())

    def keep_segments(self, segments: Segments, spec: PatchSpec | None) -> None:
        """Write all segments and the axes of their patches."""
        write_npz(
            self.path / _SEGMENTS,
            {
                "recording": segments.recording,
                "channel": segments.channel,
                "onset": segments.onset,
                "offset": segments.offset,
            },
        )
        self.update_state(patches=None if spec is None else asdict(spec))

    def segments(self) -> Segments:
        """Return all segments."""
        names = ("recording", "channel", "onset", "offset")
        arrays = self._arrays(_SEGMENTS)
        return Segments(**{name: arrays[name] for name in names})

    def recordings(self) -> list[SourceRecording]:
        """Return the recordings in the order of their indices."""
        return [recording for recording, _ in self.found()]

    def spec(self) -> PatchSpec:
        """Return the axes of the patches.

        Raises
        ------
        ConfigError
            ``discovery.json`` does not tell them.
        """
        try:
            return PatchSpec(**self.state()["patches"])
        except (KeyError, TypeError) as error:
            raise self.damage(self.path / STATE) from error

    # ---- patches, features, map, clusters

    def patches(self, n_segments: int, *, write: bool = False) -> NDArray[np.uint8]:
        """Return the patches, a mapped file uint8[n_segments, N_COLUMNS, N_BINS].

        Raises
        ------
        DiskError
            With `write`, the disk does not take the file.
        ConfigError
            Without `write`, the file is missing or too short.
        """
        path = self.path / _PATCHES
        shape = (n_segments, N_COLUMNS, N_BINS)
        size = int(np.prod(shape))
        if write and (not path.is_file() or path.stat().st_size != size):
            with writing(path), path.open("wb") as file:
                reserve_bytes(file.fileno(), size)
        if not write and (not path.is_file() or path.stat().st_size < size):
            raise self.damage(path)
        return np.memmap(path, np.uint8, "r+" if write else "r", shape=shape)

    def has_map(self) -> bool:
        """Return whether the map is made."""
        return (self.path / _MAP).is_file()

    def keep_features(self, features: Float32) -> None:
        """Write the features of all segments."""
        write_npz(self.path / _FEATURES, {"features": features}, compressed=False)

    def features(self) -> Float32 | None:
        """Return the features; None before they are computed."""
        if not (self.path / _FEATURES).is_file():
            return None
        features: Float32 = self._arrays(_FEATURES)["features"]
        return features

    def keep_outliers(self, table: bytes) -> None:
        """Write the segments by how unusual they are, as CSV."""
        self._write(_OUTLIERS, table)

    def keep_map(self, places: Float32) -> None:
        """Write the place of each segment on the map."""
        write_npz(self.path / _MAP, {"places": places}, compressed=False)

    def places(self) -> Float32:
        """Return the map, float32[n_segments, 2]."""
        places: Float32 = self._arrays(_MAP)["places"]
        return places

    def keep_clusters(self, clustering: Clustering) -> None:
        """Write the clusters that were found."""
        write_npz(
            self.path / _CLUSTERS,
            {"labels": clustering.labels, "membership": clustering.membership},
        )

    def clusters(self) -> Clustering:
        """Return the clusters that were found."""
        arrays = self._arrays(_CLUSTERS)
        return Clustering(arrays["labels"], arrays["membership"])

    # ---- changes by people

    def changes(self) -> list[dict[str, Any]]:
        """Return all changes, oldest first, without a line that a kill cut short.

        Raises
        ------
        ConfigError
            A line holds no change: those after it would be lost.
        """
        path = self.path / CHANGES
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
        found = []
        # Bytes: a text may hold other characters that end a line for Python.
        for number, line in enumerate(content.split(b"\n")[:-1], 1):
            try:
                change = json.loads(line)
            except ValueError:
                change = None
            if not isinstance(change, dict):
                raise self.unusable_change(number)
            found.append(change)
        return found

    def unusable_change(self, number: int) -> ConfigError:
        """Return the error of a line of the changes that cannot be applied."""
        return ConfigError(
            f"line {number} of '{self.path / CHANGES}' is no change that can be made: "
            "mend the line, or move the file away to go on without any change"
        )

    def add_change(self, change: dict[str, Any]) -> None:
        """Append a change and bring it to the disk.

        Raises
        ------
        DiskError
            The disk does not take it.
        """
        path = self.path / CHANGES
        line = json.dumps(change) + "\n"
        with writing(path), path.open("a+b") as file:
            # What a kill has left of a line is no change: nobody was told of it.
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def write_annotations(self, content: bytes) -> Path | None:
        """Write ``annotations.csv``; one that somebody has changed is kept.

        Returns
        -------
        Path or None
            Where the changed table is kept now, if there was one.
        """
        path = self.path / ANNOTATIONS
        kept = None
        if path.is_file():
            own = self.state().get("annotations")
            if hashlib.sha256(path.read_bytes()).hexdigest() != own:
                kept = self._free_name()
                with writing(kept):
                    os.replace(path, kept)
        write_file(path, content)
        self.update_state(annotations=hashlib.sha256(content).hexdigest())
        return kept

    def _free_name(self) -> Path:
        number = 1
        while (path := self.path / f"annotations-{number}.csv").exists():
            number += 1
        return path

    def _others(self) -> list[str]:
        if not self.path.is_dir():
            return []
        return sorted(
            name
            for name in os.listdir(self.path)
            if name not in _OWN
            and not name.startswith(".")
            and not _KEPT.fullmatch(name)
        )

    def _arrays(self, name: str) -> dict[str, Any]:
        """Return the arrays of a file.

        Raises
        ------
        ConfigError
            The file is damaged or missing.
        """
        path = self.path / name
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise self.damage(path) from error

    def damage(self, path: Path) -> ConfigError:
        """Return the error of a file that cannot be used."""
        return ConfigError(
            f"'{path}' is damaged or missing: run the discovery again with --overwrite"
        )

    def _keep_changes(self) -> None:
        """Rename what people changed and exported to the first free number."""
        if not self._has_changes:
            return
        number = 1
        while any((self.path / f"{name}.{number}").exists() for name in _BY_PEOPLE):
            number += 1
        with writing(self.path):
            for name in _BY_PEOPLE:
                if (self.path / name).exists():
                    os.replace(self.path / name, self.path / f"{name}.{number}")

    @property
    def _has_changes(self) -> bool:
        return (self.path / CHANGES).is_file()

    def _write_json(self, name: str, content: Any) -> None:
        self._write(name, (json.dumps(content, indent=1) + "\n").encode())

    def _write(self, name: str, content: bytes) -> None:
        write_file(self.path / name, content)
