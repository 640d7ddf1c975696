"""The journal: events of runs in SQLite, and how programs read them."""

from neurovocal.engine.journal.periods import Summary
from neurovocal.engine.journal.reader import Selection, read_messages
from neurovocal.engine.journal.store import RecordedEvent, RunRecord, read_events, runs
from neurovocal.engine.journal.summary import summarize

__all__ = [
    "RecordedEvent",
    "RunRecord",
    "Selection",
    "Summary",
    "read_events",
    "read_messages",
    "runs",
    "summarize",
]
