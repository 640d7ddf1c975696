"""Clusters as people leave them: names, merges, splits and moved segments.

Every change is an event with author and time; nothing is overwritten, and an event
``undo`` takes the last change back.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.support.label_words import clean_label, is_silence
from neurovocal.models.discovery.clusters import (
    UNKNOWN,
    Clustering,
    Labels,
    by_size,
    find_clusters,
    medoid,
)
from neurovocal.models.discovery.clusters import examples as examples_of
from neurovocal.models.discovery.folder import DiscoveryFolder
from neurovocal.models.discovery.segments import Segments, SourceRecording

UNKNOWN_LABEL = "unknown"
_LONGEST_NAME = 64
_N_EXAMPLES = 12
# Errors of files that somebody has edited by hand.
_UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError)


@dataclass(slots=True)
class _State:
    """Cluster number of each segment, and the names of clusters that have one."""

    labels: Labels
    names: dict[int, str]
    next_number: int

    def copy(self) -> "_State":
        """Return a copy that can be changed."""
        return _State(self.labels.copy(), dict(self.names), self.next_number)


class EditedClusters:
    """Clusters of a finished discovery with the changes of people.

    Parameters
    ----------
    folder : DiscoveryFolder
        Finished discovery.

    Attributes
    ----------
    segments : Segments
    recordings : list of SourceRecording
    places : float32[n_segments, 2]
        The map.
    revision : int
        Number of events.

    Raises
    ------
    ConfigError
        A file of the folder is damaged.
    """

    def __init__(self, folder: DiscoveryFolder) -> None:
        self._folder = folder
        try:
            self._read(folder)
        except _UNREADABLE as error:
            raise folder.damage(folder.path) from error
        self._events = folder.changes()
        self._states = [self._found.copy()]
        for number, event in enumerate(self._events, 1):
            try:
                self._replay(event)
            except _UNREADABLE as error:
                raise folder.unusable_change(number) from error

    def _read(self, folder: DiscoveryFolder) -> None:
        """Read what was found, and check that the files belong together."""
        state = folder.state()
        self._request = state["request"]
        self.segments: Segments = folder.segments()
        self.recordings: list[SourceRecording] = folder.recordings()
        self.places: Float32 = folder.places()
        features = folder.features()
        n = len(self.segments)
        if features is None or len(features) != n or self.places.shape != (n, 2):
            raise ValueError("features or map are of other segments")
        self._features = features
        found = folder.clusters()
        self.membership: Float32 = found.membership
        if len(found.labels) != n or self.membership.shape != (n,):
            raise ValueError("the clusters are of other segments")
        if self.segments.recording.max(initial=-1) >= len(self.recordings):
            raise ValueError("a recording is missing")
        self._found = _found_state(found, float(self._request["membership"]))
        self.min_size = int(state["min_size"])

    @property
    def labels(self) -> Labels:
        """Cluster number of each segment, `UNKNOWN` for none."""
        return self._states[-1].labels

    @property
    def revision(self) -> int:
        """Number of events."""
        return len(self._events)

    @property
    def can_undo(self) -> bool:
        """Return whether there is a change that can be taken back."""
        return len(self._states) > 1

    def name(self, number: int) -> str:
        """Return the name of a cluster: that of people, or ``c1``, ``c2``, ..."""
        return self._states[-1].names.get(number, f"c{number + 1}")

    def clusters(self) -> list[dict[str, Any]]:
        """Return number, name, size, medoid and examples of each, by falling size."""
        found = []
        numbers, counts = np.unique(self.labels[self.labels >= 0], return_counts=True)
        order = np.lexsort((numbers, -counts))
        for at in order:
            number = int(numbers[at])
            members = np.flatnonzero(self.labels == number)
            centre = medoid(self._features, members)
            found.append(
                {
                    "number": number,
                    "name": self.name(number),
                    "named": number in self._states[-1].names,
                    "size": len(members),
                    "medoid": centre,
                    "examples": examples_of(
                        self._features, members, centre, _N_EXAMPLES
                    ),
                }
            )
        return found

    def change(self, event: Mapping[str, Any], author: str) -> None:
        """Check a change, apply it and append it to the events.

        Parameters
        ----------
        event : mapping
            ``kind`` and its own values: ``name`` (cluster, name), ``merge``
            (clusters), ``move`` (segments, cluster: a number, null for unknown, or
            "new"), ``split`` (cluster, min_size), ``recluster`` (min_size), ``undo``.
        author : str
            Who changes it.

        Raises
        ------
        ConfigError
            The change is not possible; nothing has changed.
        """
        checked = self._checked(event)
        checked |= {
            "author": author,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        if checked["kind"] == "undo" and not self.can_undo:
            raise ConfigError("there is no change to take back")
        before = [state.copy() for state in self._states[-1:]]
        n_states = len(self._states)
        self._replay(checked)
        try:
            self._folder.add_change(checked)
        except Exception:
            if checked["kind"] == "undo":
                self._states += before
            else:
                del self._states[n_states:]
            raise
        self._events.append(checked)

    def annotations(self) -> bytes:
        """Return the draft annotations as CSV: file, onset_s, offset_s, label.

        Names of files are relative to the folder. A column ``channel`` is added where
        another channel than the first has segments.
        """
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, lineterminator="\n")
        with_channel = bool((self.segments.channel != 1).any())
        header = ["file", "onset_s", "offset_s", "label"]
        writer.writerow([*header, "channel"] if with_channel else header)
        names = [
            os.path.relpath(recording.path, self._folder.path.absolute())
            for recording in self.recordings
        ]
        segments = self.segments
        for k in range(len(segments)):
            number = int(segments.recording[k])
            rate = self.recordings[number].sample_rate
            label = int(self.labels[k])
            row = [
                names[number],
                f"{segments.onset[k] / rate:.6f}",
                f"{segments.offset[k] / rate:.6f}",
                UNKNOWN_LABEL if label == UNKNOWN else self.name(label),
            ]
            writer.writerow([*row, str(segments.channel[k])] if with_channel else row)
        return stream.getvalue().encode("utf-8", "surrogateescape")

    def _checked(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return a change with what is needed to repeat it."""
        kind = event.get("kind")
        if kind == "undo":
            return {"kind": kind}
        if kind == "name":
            number = self._number(event.get("cluster"))
            return {"kind": kind, "cluster": number, "name": self._name(event, number)}
        if kind == "merge":
            numbers = event.get("clusters")
            if not isinstance(numbers, list) or len(numbers) < 2:
                raise ConfigError("choose two clusters or more to merge")
            chosen = [self._number(each) for each in numbers]
            return {"kind": kind, "clusters": list(dict.fromkeys(chosen))}
        if kind == "move":
            return self._checked_move(event)
        if kind in ("split", "recluster"):
            return self._checked_split(event)
        raise ConfigError(f"'{kind}' is no kind of change")

    def _checked_move(self, event: Mapping[str, Any]) -> dict[str, Any]:
        chosen = event.get("segments")
        n = len(self.segments)
        if not isinstance(chosen, list) or not chosen:
            raise ConfigError("choose segments to move")
        if not all(type(each) is int and 0 <= each < n for each in chosen):
            raise ConfigError(f"segments have numbers from 0 to {n - 1}")
        to = event.get("cluster")
        if to == "new":
            to = self._states[-1].next_number
        elif to is not None:
            to = self._number(to)
        return {"kind": "move", "segments": sorted(set(chosen)), "cluster": to}

    def _checked_split(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Cluster the segments of one cluster, or all, with another least size."""
        min_size = event.get("min_size")
        if type(min_size) is not int or not 2 <= min_size <= 100_000:
            raise ConfigError("the least size of a cluster is a number from 2 on")
        seed = int(self._request["seed"])
        if event.get("kind") == "recluster":
            found = find_clusters(self.places, self._features, min_size, seed)
            limit = float(self._request["membership"])
            labels = _found_state(found, limit).labels
            return {
                "kind": "recluster",
                "min_size": min_size,
                "labels": labels.tolist(),
            }
        number = self._number(event.get("cluster"))
        members = np.flatnonzero(self.labels == number)
        found = find_clusters(
            self.places[members], self._features[members], min_size, seed
        )
        parts = [
            members[found.labels == part].tolist()
            for part in range(int(found.labels.max(initial=UNKNOWN)) + 1)
        ]
        if len(parts) < 2:
            raise ConfigError(
                f"'{self.name(number)}' does not fall into clusters of {min_size} "
                "segments or more: lower the least size, or move segments by hand"
            )
        rest = members[found.labels == UNKNOWN].tolist()
        return {
            "kind": "split",
            "cluster": number,
            "min_size": min_size,
            "parts": parts,
            "rest": rest,
        }

    def _number(self, value: Any) -> int:
        if type(value) is not int or not (self.labels == value).any() or value < 0:
            raise ConfigError(f"there is no cluster {value}")
        return value

    def _name(self, event: Mapping[str, Any], number: int) -> str:
        given = event.get("name")
        if not isinstance(given, str):
            raise ConfigError("a name is text")
        name = clean_label(given)
        if any(not letter.isprintable() for letter in name):
            raise ConfigError("a name has printable characters only")
        if len(name) > _LONGEST_NAME:
            raise ConfigError(f"a name has {_LONGEST_NAME} characters at most")
        if name and is_silence(name):
            raise ConfigError(f"'{name}' means silence in annotations: choose another")
        others = {
            self.name(int(each))
            for each in np.unique(self.labels)
            if each not in (UNKNOWN, number)
        }
        if name in others:
            raise ConfigError(f"another cluster is called '{name}': merge the two")
        return name

    def _replay(self, event: Mapping[str, Any]) -> None:
        """Apply a change that was checked when it was made."""
        if event["kind"] == "undo":
            if self.can_undo:
                self._states.pop()
            return
        state = self._states[-1].copy()
        kind = event["kind"]
        if kind == "name":
            if event["name"]:
                state.names[event["cluster"]] = event["name"]
            else:
                state.names.pop(event["cluster"], None)
        elif kind == "merge":
            first, *others = event["clusters"]
            state.labels[np.isin(state.labels, others)] = first
            for other in others:
                name = state.names.pop(other, None)
                if name is not None:
                    state.names.setdefault(first, name)
        elif kind == "move":
            to = event["cluster"]
            state.labels[event["segments"]] = UNKNOWN if to is None else to
            if to is not None:
                state.next_number = max(state.next_number, to + 1)
        elif kind == "split":
            for part in event["parts"][1:]:
                state.labels[part] = state.next_number
                state.next_number += 1
            state.labels[event["rest"]] = UNKNOWN
        elif kind == "recluster":
            labels = np.array(event["labels"], np.int32)
            if labels.shape != state.labels.shape:
                raise ValueError("the labels are of other segments")
            state.labels = labels
            state.names = {}
            state.next_number = int(state.labels.max(initial=UNKNOWN)) + 1
        self._states.append(state)


def _found_state(found: Clustering, least_membership: float) -> _State:
    """Return clusters without the segments that hardly belong to them."""
    labels = np.where(found.membership < least_membership, UNKNOWN, found.labels)
    labels = by_size(labels.astype(np.int32))
    return _State(labels, {}, int(labels.max(initial=UNKNOWN)) + 1)


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return some names of many, for a sentence."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
