"""How alike two lanes are that heard the same audio."""

from collections.abc import Iterable
from typing import Any

from neurovocal.engine.types import Event, Label, Offset

# Onsets that are as close as this are of the same segment.
_SAME_S = 0.02

_Named = tuple[int, int, str]  # onset, offset, unit


class Agreement:
    """Segments and final labels of an old and of a new lane, compared.

    Parameters
    ----------
    sample_rate : int
        Of both lanes, in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._near = round(_SAME_S * sample_rate)
        self._heard: tuple[list[Event], list[Event]] = ([], [])
        # Of streams that have ended: number in the old, in the new, in both.
        self._counts: dict[type, list[int]] = {Offset: [0, 0, 0], Label: [0, 0, 0]}

    def note_old(self, events: Iterable[Event]) -> None:
        """Take what the old lane said."""
        self._heard[0].extend(e for e in events if isinstance(e, Offset | Label))

    def note_new(self, events: Iterable[Event]) -> None:
        """Take what the new lane said."""
        self._heard[1].extend(e for e in events if isinstance(e, Offset | Label))

    def end_stream(self, since: int) -> None:
        """Positions begin anew: settle what was compared so far."""
        self._counts = {kind: self._count(kind, since) for kind in self._counts}
        for events in self._heard:
            events.clear()

    def of(self, kind: type, since: int) -> dict[str, Any]:
        """Compare segments (`Offset`) or labels (`Label`).

        Parameters
        ----------
        kind : type
            `Offset` or `Label`.
        since : int
            Sample after which both lanes heard this stream.

        Returns
        -------
        dict
            ``old`` and ``new``: how many; ``equal``: the share that is the same in
            both, None if there are none.
        """
        old, new, equal = self._count(kind, since)
        most = max(old, new)
        share = round(equal / most, 4) if most else None
        return {"old": old, "new": new, "equal": share}

    def _count(self, kind: type, since: int) -> list[int]:
        old, new = (_named(events, kind, since) for events in self._heard)
        here = [len(old), len(new), _equal(old, new, self._near)]
        return [a + b for a, b in zip(self._counts[kind], here, strict=True)]


def _named(events: list[Event], kind: type, since: int) -> list[_Named]:
    """Segments or final labels that began since then."""
    found = []
    for event in events:
        if isinstance(event, Label) and kind is Label:
            if event.status == "final":
                found.append((event.onset, event.offset or event.onset, event.unit))
        elif isinstance(event, Offset) and kind is Offset:
            found.append((event.onset, event.sample, ""))
    return sorted(each for each in found if each[0] > since)


def _equal(old: list[_Named], new: list[_Named], near: int) -> int:
    """How many are in both, at the same place and of the same unit."""
    equal, at = 0, 0
    for onset, _, unit in old:
        while at < len(new) and new[at][0] < onset - near:
            at += 1
        if at < len(new) and new[at][0] <= onset + near:
            equal += new[at][2] == unit
            at += 1
    return equal
