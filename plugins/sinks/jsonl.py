"""Writes events as lines of JSON that are the same in every run."""

from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import Message
from neurovocal.engine.wire.codec import event_json
from neurovocal.plugins.storage.text_file import (
    Existing,
    TextOutput,
    claim,
    on_existing,
    output_problems,
)


class JsonlOptions(Options):
    """Options of the JSON lines sink."""

    path: str = "-"
    """File to write; `-` is standard output."""
    values: bool = False
    """Whether frames and other arrays are written out, not only described."""
    append: bool = False
    """Whether to go on behind what the file holds. Without it a live run sets what an
    earlier run left aside, as `STEM.1.left.SUFFIX`; offline runs replace it."""


class JsonlSink:
    """One event a line, in canonical form: no run, time of day or latency in it.

    The same audio and configuration give the same bytes, however the audio was
    cut: compare two runs with ``cmp``. With several lanes their lines mix.

    Parameters
    ----------
    options : JsonlOptions
        Checked options.
    existing : {'replace', 'append', 'set aside'}
        What becomes of a file that is there.
    """

    # What the audio alone defines: health and anchors come by the clock.
    wants = frozenset({"onset", "offset", "label", "gap"})

    def __init__(self, options: JsonlOptions, existing: Existing = "replace") -> None:
        self._values = options.values
        self._output = TextOutput(options.path, existing=existing)

    def open(self) -> None:
        """Open the file; ConfigError when it cannot be written."""
        self._output.open()

    def write(self, message: Message) -> None:
        """Write one line."""
        self._output.write(event_json(message, values=self._values).decode() + "\n")

    def flush(self, timeout: float) -> None:
        """Hand everything to the operating system."""
        self._output.flush()

    def close(self) -> None:
        """Close the file."""
        self._output.close()


def _build(options: JsonlOptions, context: BuildContext) -> JsonlSink:
    return JsonlSink(options, on_existing(context, append=options.append))


plugin = Plugin(
    kind="sink",
    options=JsonlOptions,
    build=_build,
    summary="writes events as lines of JSON, the same in every run",
    resources=lambda options: claim(options.path),
    check=lambda options, context: output_problems(options.path),
)
