"""The conformance kit: what every plugin must survive, yours too.

Each ``check_...`` raises AssertionError with a sentence that says which promise
was broken. The doubles and the material that tests need are here as well, because
plugin authors need them too.
"""

from neurovocal.engine.conformance import check_model, check_processor
from neurovocal.engine.conformance_io import check_sink, check_source
from neurovocal.engine.doubles import (
    CollectSink,
    FailingSink,
    ScriptedSource,
    StalledSink,
)
from neurovocal.engine.specimens import canonical, gather, recut, song

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
