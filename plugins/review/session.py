"""State of a review: the segments as found, and every change since, in order."""

import threading
import uuid
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from neurovocal.engine import NS
from neurovocal.engine.contracts.errors import CommandError
from neurovocal.plugins.review.segments import (
    UNKNOWN,
    Collection,
    Image,
    Kind,
    Order,
    Segment,
    checked_unit,
    image_of,
    sort_key,
)
from neurovocal.plugins.review.store import (
    Action,
    Change,
    ReviewEvent,
    ReviewStore,
    checked_author,
)

_MOST_KEPT_EVENTS = 1000


class Query(msgspec.Struct, frozen=True):
    """Which segments are listed, and in which order."""

    order: Order = "time"
    kind: Kind | None = "segment"
    unit: str | None = None
    recording: str | None = None
    unreviewed: bool = False


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person asks for.

    Parameters
    ----------
    action : str
        ``label``, ``confirm``, ``move``, ``split``, ``merge``, ``delete``, ``add``,
        ``undo`` or ``redo``.
    author : str
        Who asks.
    segment : str
        Its key; for ``add``, ``undo`` and ``redo`` empty.
    seen : int or None
        Number of the segment's last change that the person has seen: a newer one by
        somebody else is told.
    unit : str
        For ``label`` and ``add``.
    recording : str
        For ``add``.
    onset, offset : int
        For ``move`` and ``add``.
    at : int
        For ``split``.
    """

    action: Action
    author: str
    segment: str = ""
    seen: int | None = None
    unit: str = ""
    recording: str = ""
    onset: int = 0
    offset: int = 0
    at: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What an edit has changed, and what the person should know."""

    event: int
    segments: list[Segment]
    told: str = ""


class ReviewSession:
    """Segments of a collection with the events of its review; threads may share it.

    Parameters
    ----------
    collection : Collection
        Segments as they were found.
    store : ReviewStore
        Events of the review.
    """

    def __init__(self, collection: Collection, store: ReviewStore) -> None:
        self._lock = threading.RLock()
        self._store = store
        self.collection = collection
        self._begin(collection)

    def close(self) -> None:
        """Close the file of the changes."""
        self._store.close()

    def replace(self, collection: Collection) -> None:
        """Take a newer reading of the same journal or folder; changes are kept."""
        with self._lock:
            self._begin(collection)

    def _begin(self, collection: Collection) -> None:
        self.collection = collection
        self._segments = {segment.id: segment for segment in collection.segments}
        self._found = set(self._segments)
        self._by_recording: dict[str, list[Segment]] = {}  # alive, in order of time
        self._longest: defaultdict[str, int] = defaultdict(int)  # of each, in samples
        self._reviewed = self._total = 0
        self._units: Counter[str] = Counter()
        self._members: defaultdict[str, set[str]] = defaultdict(set)
        for segment in collection.segments:
            self._members[segment.recording].add(segment.id)
            self._count(segment, 1)
        self._events: list[ReviewEvent] = []
        self._last = 0
        # Numbers of events that each author can undo, and do again.
        self._done: defaultdict[str, list[ReviewEvent]] = defaultdict(list)
        self._undone: defaultdict[str, list[ReviewEvent]] = defaultdict(list)
        self.refresh()

    # ---- reading ----

    def refresh(self) -> int:
        """Take in events that other programs have added; return the last number."""
        with self._lock:
            for event in self._store.after(self._last):
                self._apply(event)
            return self._last

    def select(
        self, query: Query, first: int = 0, most: int = 200
    ) -> tuple[list[Segment], int]:
        """Return some of the segments that a query selects, and their number."""
        with self._lock:
            self.refresh()
            places = {key: n for n, key in enumerate(self.collection.recordings)}
            key = sort_key(query.order)
            found = sorted(
                (each for each in self._segments.values() if _is_wanted(each, query)),
                key=lambda each: (
                    *key(each),
                    places.get(each.recording, len(places)),
                    each.onset,
                ),
            )
        return found[first : first + most], len(found)

    def window(self, recording: str, start: int, stop: int) -> list[Segment]:
        """Return the segments and near misses of a part of a recording."""
        with self._lock:
            self.refresh()
            return self._near(recording, start, stop)

    def get(self, segment: str) -> Segment | None:
        """Return a segment, also a deleted one; None if there is none."""
        with self._lock:
            return self._segments.get(segment)

    def progress(self) -> tuple[int, int]:
        """Return how many segments are reviewed, and how many there are.

        A deleted segment is a reviewed one; near misses count once they are reviewed.
        """
        with self._lock:
            return self._reviewed, self._total

    def units(self) -> list[tuple[str, int]]:
        """Return the units of all segments with their numbers, the commonest first."""
        with self._lock:
            counts = {unit: n for unit, n in self._units.items() if n}
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    def segments(self) -> list[Segment]:
        """Return all segments and near misses, deleted ones as well."""
        with self._lock:
            self.refresh()
            return list(self._segments.values())

    def events(self, after: int = 0, most: int = 200) -> list[ReviewEvent]:
        """Return the newest events with a larger number than `after`, in order."""
        with self._lock:
            self.refresh()
            at = bisect_left(self._events, after + 1, key=lambda each: each.event)
            return self._events[at:][-most:]

    def lost_originals(self) -> int:
        """Return how many changed segments are not in the journal or folder now."""
        with self._lock:
            added = {
                change.segment
                for event in self._events
                for change in event.changes
                if change.before is None
            }
            return len(set(self._segments) - self._found - added)

    # ---- changing ----

    def edit(self, edit: Edit) -> Answer:
        """Change segments, and keep the change as an event.

        Raises
        ------
        CommandError
            The change is not possible: nothing has changed.
        StageError
            The disk does not take the event: nothing has changed.
        """
        author = checked_author(edit.author)
        with self._lock, self._store.exclusive():
            self.refresh()
            of = None
            if edit.action in ("undo", "redo"):
                of, changes = self._reversal(author, edit.action)
            else:
                changes = _ACTIONS[edit.action](self, edit)
            told = self._told(author, edit, changes)
            number = self._store.add(
                author, edit.action, changes, None if of is None else of.event
            )
        with self._lock:
            self.refresh()
            changed = [self._segments[change.segment] for change in changes]
        return Answer(number, changed, told)

    def _apply(self, event: ReviewEvent) -> None:
        for change in event.changes:
            self._put(change.segment, change.after, event)
        self._last = event.event
        self._events.append(event)
        done, undone = self._done[event.author], self._undone[event.author]
        if event.action == "undo":
            undone += [done.pop()] if done else []
        elif event.action == "redo":
            done += [undone.pop()] if undone else []
        else:
            done.append(event)
            undone.clear()
            del done[:-_MOST_KEPT_EVENTS]

    def _put(self, key: str, image: Image, event: ReviewEvent) -> None:
        before = self._segments.get(key)
        if before is None:
            before = Segment(
                key, image.recording, image.onset, image.offset, alive=False
            )
        else:
            self._count(before, -1)
        self._members[image.recording].add(key)
        after = msgspec.structs.replace(
            before,
            onset=image.onset,
            offset=image.offset,
            unit=image.unit,
            kind=image.kind,
            alive=image.alive,
            reviewed=image.reviewed,
            author=event.author,
            event=event.event,
        )
        self._segments[key] = after
        self._count(after, 1)
        if (known := self._by_recording.get(image.recording)) is not None:
            if before.alive:
                known.pop(bisect_left(known, _place(before), key=_place))
            if after.alive:
                known.insert(bisect_left(known, _place(after), key=_place), after)

    def _count(self, segment: Segment, sign: int) -> None:
        """Add a segment to the counts, or take it out of them."""
        length = segment.offset - segment.onset
        self._longest[segment.recording] = max(self._longest[segment.recording], length)
        if segment.alive and segment.kind == "segment" and segment.unit:
            self._units[segment.unit] += sign
        is_open_miss = segment.kind == "near_miss" and not segment.reviewed
        is_merged = not segment.alive and not segment.reviewed
        if not is_open_miss and not is_merged:
            self._total += sign
            self._reviewed += sign * segment.reviewed

    def _near(self, recording: str, start: int, stop: int) -> list[Segment]:
        """Return what is alive and overlaps a part of a recording, in order of time."""
        known = self._of_recording(recording)
        first = start - self._longest[recording]
        low = bisect_left(known, first, key=lambda each: each.onset)
        high = bisect_left(known, stop, key=lambda each: each.onset)
        return [each for each in known[low:high] if each.offset > start]

    def _of_recording(self, key: str) -> Sequence[Segment]:
        """Return what is alive in a recording, in order of time."""
        if key not in self._by_recording:
            found = (self._segments[each] for each in self._members[key])
            self._by_recording[key] = sorted(
                (each for each in found if each.alive), key=_place
            )
        return self._by_recording[key]

    def _reversal(
        self, author: str, action: Action
    ) -> tuple[ReviewEvent, list[Change]]:
        """Return the event to undo or redo, and the changes that do it."""
        stack = (self._done if action == "undo" else self._undone)[author]
        if not stack:
            raise CommandError(f"there is nothing to {action} by {author}")
        event = stack[-1]
        changes = []
        for change in event.changes:
            gone = msgspec.structs.replace(change.after, alive=False, reviewed=False)
            before = change.before or gone
            old, new = (
                (change.after, before) if action == "undo" else (before, change.after)
            )
            now = self._segments[change.segment]
            if image_of(now) != old:
                raise CommandError(
                    f"{now.author} has changed this segment since: it stays as it is; "
                    "change it again instead"
                )
            changes.append(Change(change.segment, old, new))
        self._check(changes)
        return event, changes

    def _told(self, author: str, edit: Edit, changes: Iterable[Change]) -> str:
        """Return a sentence if somebody else's newer change was changed again."""
        if edit.seen is None or not edit.segment:
            return ""
        for change in changes:
            now = self._segments.get(change.segment)
            if now is None or now.event <= edit.seen or now.author == author:
                continue
            what = f"'{now.unit}'" if now.alive else "deleted"
            return (
                f"{now.author} had changed this segment to {what} at "
                f"{self._when(now.event)}: your change is the newer one and stands; "
                "undo brings the other back"
            )
        return ""

    def _when(self, number: int) -> str:
        at = bisect_left(self._events, number, key=lambda each: each.event)
        utc = datetime.fromtimestamp(self._events[at].utc_ns / NS, UTC)
        return f"{utc:%H:%M:%S} UTC"

    def _known(self, edit: Edit) -> Segment:
        segment = self._segments.get(edit.segment)
        if segment is None:
            raise CommandError("this segment is not there any more: load the page anew")
        return segment

    def _require_alive(self, edit: Edit) -> Segment:
        segment = self._known(edit)
        if not segment.alive:
            who = segment.author or "somebody"
            raise CommandError(
                f"{who} has deleted this segment, or merged it into another one"
            )
        return segment

    def _changed(self, segment: Segment, **values: object) -> Change:
        before = image_of(segment)
        return Change(segment.id, before, msgspec.structs.replace(before, **values))

    def _label(self, edit: Edit) -> list[Change]:
        """A deleted segment comes back: the newest change wins."""
        segment = self._known(edit)
        values = {"unit": checked_unit(edit.unit), "kind": "segment", "reviewed": True}
        return self._check([self._changed(segment, alive=True, **values)])

    def _confirm(self, edit: Edit) -> list[Change]:
        """A segment without a unit is a vocalization whose unit is not known."""
        segment = self._require_alive(edit)
        unit = segment.unit
        if segment.kind == "segment":
            unit = unit or UNKNOWN
        return [self._changed(segment, unit=unit, reviewed=True)]

    def _move(self, edit: Edit) -> list[Change]:
        segment = self._require_alive(edit)
        onset, offset = edit.onset, edit.offset
        reviewed = segment.reviewed or bool(segment.unit and segment.kind == "segment")
        change = self._changed(segment, onset=onset, offset=offset, reviewed=reviewed)
        return self._check([change])

    def _split(self, edit: Edit) -> list[Change]:
        """Both parts keep the unit and are to be reviewed."""
        segment = self._require_alive(edit)
        if segment.kind == "near_miss":
            raise CommandError("a near miss cannot be split: give it a unit first")
        if not segment.onset < edit.at < segment.offset:
            raise CommandError("the place to split at is not within the segment")
        right = msgspec.structs.replace(
            image_of(segment), onset=edit.at, reviewed=False
        )
        return [
            self._changed(segment, offset=edit.at, reviewed=False),
            Change(_new_key(), None, right),
        ]

    def _merge(self, edit: Edit) -> list[Change]:
        """The merged segment keeps the first unit and is to be reviewed."""
        segment = self._require_alive(edit)
        if segment.kind == "near_miss":
            raise CommandError("a near miss cannot be merged: give it a unit first")
        known = self._of_recording(segment.recording)
        at = bisect_left(known, segment.offset, key=lambda each: each.onset)
        later = (each for each in known[at:] if each.kind == "segment")
        if (after := next(later, None)) is None:
            raise CommandError("there is no segment after this one in its recording")
        return self._check(
            [
                self._changed(segment, offset=after.offset, reviewed=False),
                self._changed(after, alive=False, reviewed=False),
            ]
        )

    def _delete(self, edit: Edit) -> list[Change]:
        segment = self._require_alive(edit)
        return [self._changed(segment, alive=False, reviewed=True)]

    def _add(self, edit: Edit) -> list[Change]:
        if edit.recording not in self.collection.recordings:
            raise CommandError("this recording is not there any more")
        unit = checked_unit(edit.unit) if edit.unit else ""
        image = Image(
            edit.recording, edit.onset, edit.offset, unit, "segment", True, bool(unit)
        )
        return self._check([Change(_new_key(), None, image)])

    # ---- limits ----

    def _check(self, changes: list[Change]) -> list[Change]:
        """Return the changes; raise CommandError if one is outside, empty or overlaps.

        Segments that overlapped before, as in a faulty table, may be changed.
        """
        gone = {each.segment for each in changes}
        for change in changes:
            image = change.after
            if not image.alive:
                continue
            before = change.before
            moved = before is None or (before.onset, before.offset) != (
                image.onset,
                image.offset,
            )
            if moved:
                self._check_place(image)
            if image.kind != "segment":
                continue
            neighbours = [
                each
                for each in self._near(image.recording, image.onset, image.offset)
                if each.kind == "segment" and each.id not in gone
            ]
            for each in neighbours:
                if not _overlaps(image, each):
                    continue
                if before is not None and before.alive and _overlaps(before, each):
                    continue
                recording = self.collection.recordings.get(image.recording)
                rate = recording.sample_rate if recording else 1
                raise CommandError(
                    f"it would overlap '{each.unit or 'no unit'}' from "
                    f"{each.onset / rate:.3f} to {each.offset / rate:.3f} s: merge the "
                    "two, or move that one first"
                )
        return changes

    def _check_place(self, image: Image) -> None:
        recording = self.collection.recordings.get(image.recording)
        if image.onset >= image.offset:
            raise CommandError("a segment must end after its onset")
        if image.onset < 0:
            raise CommandError("a segment cannot begin before its recording")
        if recording is None:
            return
        rate = recording.sample_rate
        if recording.n_samples is not None and image.offset > recording.n_samples:
            raise CommandError(
                f"the recording ends at {recording.n_samples / rate:.3f} s, before "
                "this segment would"
            )
        for start, stop in recording.holes:
            if image.onset < stop and image.offset > start:
                raise CommandError(
                    f"samples are missing from {start / rate:.3f} to "
                    f"{stop / rate:.3f} s: no segment can lie across them"
                )


_ACTIONS: dict[Action, Callable[[ReviewSession, Edit], list[Change]]] = {
    "label": ReviewSession._label,
    "confirm": ReviewSession._confirm,
    "move": ReviewSession._move,
    "split": ReviewSession._split,
    "merge": ReviewSession._merge,
    "delete": ReviewSession._delete,
    "add": ReviewSession._add,
}


def _is_wanted(segment: Segment, query: Query) -> bool:
    return (
        segment.alive
        and (query.kind is None or segment.kind == query.kind)
        and (query.unit is None or segment.unit == query.unit)
        and (query.recording is None or segment.recording == query.recording)
        and not (query.unreviewed and segment.reviewed)
    )


def _overlaps(image: Image, other: Segment) -> bool:
    return image.onset < other.offset and other.onset < image.offset


def _place(segment: Segment) -> tuple[int, int, str]:
    return segment.onset, segment.offset, segment.id


def _new_key() -> str:
    return f"added-{uuid.uuid4().hex[:16]}"
