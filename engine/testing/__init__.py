"""The conformance kit: what every plugin must survive, yours too.

Each ``check_...`` raises AssertionError with a sentence that says which promise
was broken. The doubles and the material that tests need are here as well, because
plugin authors need them too.
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
