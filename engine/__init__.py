"""Public API of the engine for plugin authors: contracts, data, errors and audio kit.

Names are imported when they are first used, so that a program that needs only
`neurovocal.engine.client` does not load what plugins need. Programs that read journals
import `neurovocal.engine.journal`, tests of plugins `neurovocal.engine.testing`.
Modules of the engine import each other, never this one.
"""

from importlib import import_module

# As in `typing`, whose import takes longer than all else before Ctrl-C is handled.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from neurovocal.engine.audio.capture_clock import CaptureClock
    from neurovocal.engine.audio.channels import Channels, channels_problem
    from neurovocal.engine.audio.live_input import LiveInput, LiveSource
    from neurovocal.engine.audio.non_finite import finite_items
    from neurovocal.engine.audio.resampler import Resampler
    from neurovocal.engine.audio.ring import AudioRing
    from neurovocal.engine.audio.segmenter import (
        Segmenter,
        SegmenterOptions,
        SegmenterRules,
    )
    from neurovocal.engine.audio.traces import TraceKeeper
    from neurovocal.engine.contracts.abilities import (
        Advances,
        CausesCommands,
        Consumes,
        Describes,
        Follows,
        HasEndpoint,
        HasPage,
        KnowsFrequencies,
        KnowsScale,
        KnowsStart,
        ReportsFailures,
        ReportsNotices,
        ReportsProgress,
        ReportsStats,
        ReportsTrouble,
        RunAware,
        SelectsKinds,
        Traces,
    )
    from neurovocal.engine.contracts.bundle import Bundle
    from neurovocal.engine.contracts.clock import NS, Clock, to_samples
    from neurovocal.engine.contracts.commits import (
        AwaitsCommit,
        CompletesStreams,
        KeepsEvents,
        ReportsLosses,
    )
    from neurovocal.engine.contracts.errors import (
        AudioFileError,
        BundleError,
        ConfigError,
        DeviceError,
        Disconnected,
        EndOfStream,
        NeurovocalError,
        OutputProblem,
        StageError,
        TransientProblem,
    )
    from neurovocal.engine.contracts.options import Options
    from neurovocal.engine.contracts.plugin import BuildContext, FileAccess, Plugin
    from neurovocal.engine.contracts.stages import (
        CaptureTimed,
        CommandedModel,
        ControlChannel,
        Detector,
        Features,
        Gate,
        Model,
        ModelCommand,
        ModelItem,
        ResumableSource,
        SampleModelItem,
        Sink,
        Source,
        SourceItem,
        StepEvents,
        StreamItem,
        VoiceInterval,
        Watcher,
    )
    from neurovocal.engine.contracts.types import (
        KINDS,
        Anchor,
        Audio,
        Block,
        Comparison,
        Event,
        Float32,
        Forecast,
        Frames,
        Gap,
        Health,
        Label,
        Latent,
        Mark,
        Message,
        NearMiss,
        Offset,
        Onset,
        Posteriors,
        Stats,
        StreamEnd,
        StreamInfo,
        Suggestion,
        Surprise,
        Synthesis,
        Trace,
        Trigger,
        Withheld,
    )

__all__ = [
    "KINDS",
    "NS",
    "Advances",
    "Anchor",
    "Audio",
    "AudioFileError",
    "AudioRing",
    "AwaitsCommit",
    "Block",
    "BuildContext",
    "Bundle",
    "BundleError",
    "CaptureClock",
    "CaptureTimed",
    "CausesCommands",
    "Channels",
    "Clock",
    "CommandedModel",
    "Comparison",
    "CompletesStreams",
    "ConfigError",
    "Consumes",
    "ControlChannel",
    "Describes",
    "Detector",
    "DeviceError",
    "Disconnected",
    "EndOfStream",
    "Event",
    "Features",
    "FileAccess",
    "Float32",
    "Follows",
    "Forecast",
    "Frames",
    "Gap",
    "Gate",
    "HasEndpoint",
    "HasPage",
    "Health",
    "KeepsEvents",
    "KnowsFrequencies",
    "KnowsScale",
    "KnowsStart",
    "Label",
    "Latent",
    "LiveInput",
    "LiveSource",
    "Mark",
    "Message",
    "Model",
    "ModelCommand",
    "ModelItem",
    "NearMiss",
    "NeurovocalError",
    "Offset",
    "Onset",
    "Options",
    "OutputProblem",
    "Plugin",
    "Posteriors",
    "ReportsFailures",
    "ReportsLosses",
    "ReportsNotices",
    "ReportsProgress",
    "ReportsStats",
    "ReportsTrouble",
    "Resampler",
    "ResumableSource",
    "RunAware",
    "SampleModelItem",
    "Segmenter",
    "SegmenterOptions",
    "SegmenterRules",
    "SelectsKinds",
    "Sink",
    "Source",
    "SourceItem",
    "StageError",
    "Stats",
    "StepEvents",
    "StreamEnd",
    "StreamInfo",
    "StreamItem",
    "Suggestion",
    "Surprise",
    "Synthesis",
    "Trace",
    "TraceKeeper",
    "Traces",
    "TransientProblem",
    "Trigger",
    "VoiceInterval",
    "Watcher",
    "Withheld",
    "channels_problem",
    "finite_items",
    "to_samples",
]

# Module of each name. Linters and editors read the imports above, Python this.
_MODULES = {
    "audio.capture_clock": "CaptureClock",
    "audio.channels": "Channels channels_problem",
    "audio.live_input": "LiveInput LiveSource",
    "audio.non_finite": "finite_items",
    "audio.resampler": "Resampler",
    "audio.ring": "AudioRing",
    "audio.segmenter": "Segmenter SegmenterOptions SegmenterRules",
    "audio.traces": "TraceKeeper",
    "contracts.abilities": (
        "Advances CausesCommands Consumes Describes Follows HasEndpoint HasPage "
        "KnowsFrequencies KnowsScale KnowsStart ReportsFailures ReportsNotices "
        "ReportsProgress ReportsStats ReportsTrouble RunAware SelectsKinds Traces"
    ),
    "contracts.bundle": "Bundle",
    "contracts.clock": "NS Clock to_samples",
    "contracts.commits": "AwaitsCommit CompletesStreams KeepsEvents ReportsLosses",
    "contracts.errors": (
        "AudioFileError BundleError ConfigError DeviceError Disconnected "
        "EndOfStream NeurovocalError OutputProblem StageError TransientProblem"
    ),
    "contracts.options": "Options",
    "contracts.plugin": "BuildContext FileAccess Plugin",
    "contracts.stages": (
        "CaptureTimed CommandedModel ControlChannel Detector Features Gate Model "
        "ModelCommand ModelItem ResumableSource SampleModelItem Sink Source SourceItem "
        "StepEvents StreamItem VoiceInterval Watcher"
    ),
    "contracts.types": (
        "KINDS Anchor Audio Block Comparison Event Float32 Forecast Frames Gap Health "
        "Label Latent Mark Message NearMiss Offset Onset Posteriors Stats StreamEnd "
        "StreamInfo Suggestion Surprise Synthesis Trace Trigger Withheld"
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

if not TYPE_CHECKING:  # otherwise type checkers would accept any name

    def __getattr__(name: str) -> object:
        """Import a public name from its module and keep it."""
        if name not in _HOMES:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """Return the public names and those of modules that are loaded."""
        return sorted({*globals(), *__all__})
