"""Test kit for plugins: conformance checks, test doubles and test signals.

Each ``check_...`` raises AssertionError with a sentence that names the violated
requirement. The kit needs no test framework.
"""

from neurovocal.engine.testing.doubles import (
    CollectSink,
    FailingSink,
    ScriptedSource,
    StalledSink,
)
from neurovocal.engine.testing.processors import check_model, check_processor
from neurovocal.engine.testing.signals import canonical, gather, recut, song
from neurovocal.engine.testing.sources_and_sinks import check_sink, check_source

__all__ = [
    "CollectSink",
    "FailingSink",
    "ScriptedSource",
    "StalledSink",
    "canonical",
    "check_model",
    "check_processor",
    "check_sink",
    "check_source",
    "gather",
    "recut",
    "song",
]
