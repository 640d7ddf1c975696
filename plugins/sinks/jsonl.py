"""Write events as lines of JSON that are identical in every run on the same audio."""

from neurovocal.engine import BuildContext, Message, Options, Plugin
from neurovocal.engine.wire.codec import event_json
from neurovocal.plugins.storage.existing import text_kind
from neurovocal.plugins.storage.text_file import (
    Existing,
    TextOutput,
    existing_policy,
    file_access,
    file_claim,
    output_problems,
)

_KIND = text_kind("JSON lines of events", r'\{.*"kind":.*')


class JsonlOptions(Options):
    """Options of the JSON lines sink."""

    path: str = "-"
    """File to write; `-` is standard output."""
    values: bool = False
    """Whether frames and other arrays are written out, not only described."""
    append: bool = False
    """Whether to append to an existing file. Without it a live run renames
    the file to `STEM.1.left.SUFFIX`; offline runs replace it."""


class JsonlSink:
    """Writes a line per event in canonical form, without run, time of day or latency.

    The same audio and configuration give the same bytes, whatever the block length:
    compare two runs with ``cmp``. Lines of several lanes are interleaved.

    Parameters
    ----------
    options : JsonlOptions
        Checked options.
    existing : {'replace', 'append', 'set aside'}
        What happens to an existing file.
    """

    # Events that depend on the audio alone; health and anchors depend on the clock.
    wants = frozenset({"onset", "offset", "near_miss", "label", "gap"})

    def __init__(self, options: JsonlOptions, existing: Existing = "replace") -> None:
        self._values = options.values
        self._output = TextOutput(options.path, existing=existing, kind=_KIND)

    def open(self) -> None:
        """Open the file; raise ConfigError if it cannot be written."""
        self._output.open()

    def write(self, message: Message) -> None:
        """Write an event; raise StageError if the file does not take it."""
        self._output.write(event_json(message, values=self._values).decode() + "\n")

    def flush(self, timeout: float) -> None:
        """Hand all lines to the operating system."""
        self._output.flush()

    @property
    def uncommitted(self) -> int:
        """Return 0: the operating system has every line."""
        return 0

    def commit(self) -> None:
        """Bring all lines to the disk; raise StageError if that fails."""
        self._output.commit()

    def close(self) -> None:
        """Close the file."""
        self._output.close()


def _build(options: JsonlOptions, context: BuildContext) -> JsonlSink:
    return JsonlSink(options, existing_policy(context, append=options.append))


plugin = Plugin(
    kind="sink",
    options=JsonlOptions,
    build=_build,
    summary="writes events as lines of JSON, the same in every run",
    resources=lambda options: file_claim(options.path),
    check=lambda options, context: output_problems(options.path, _KIND),
    writes=lambda options, context: file_access(options.path),
)
