"""Options of the RNN-RBM, and arguments of its command."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from neurovocal.engine import Options
from neurovocal.engine.contracts.options import DAY_S, Seed
from neurovocal.plugins.models.rnn_rbm.sampler import Feedback

# Options that cannot change during a stream: surprise would jump.
FIXED = frozenset({"surprise", "baseline_s", "warm_up_ms"})


class RnnRbmOptions(Options):
    """Options of surprise and synthesis."""

    synthesis: Literal["off", "predict", "continue", "free", "planned", "prime"] = "off"
    """`predict`: the expectation of the next frame at each live frame; `continue`:
    after each segment, frames that continue it; `free`: frames without end, from a
    state of zeros; `planned`: the same after a plan of units that the forecast draws
    (a bundle with a plan); `prime`: as `free`, continuing the recording `prime`."""
    temperature: float = Field(default=1.0, gt=0, le=10)
    """Randomness of drawn frames: 1 is the model's own."""
    gibbs_steps: int | None = Field(default=None, ge=1, le=100)
    """Gibbs steps per drawn frame; the bundle's number by default."""
    seed: Seed = 0
    """Of all draws; a segment's frames depend on it and the segment alone."""
    continue_frames: int = Field(default=50, ge=1, le=100_000)
    """Frames that `continue` draws after a segment, at most."""
    continue_until: Literal["frames", "silence"] = "frames"
    """Whether a continuation ends early: when it becomes silent after sound."""
    prime: str | None = None
    """Recording that `prime` continues: the last ten seconds of its first channel."""
    pace: Literal["realtime", "fast"] = "realtime"
    """Whether frames without end keep up with the stream, or are drawn as fast as the
    lane runs: then they are ahead of the stream."""
    feedback: Feedback = "mean_residual"
    """Drawn frame, which is also the input of the next one: the expectation
    (`mean`), a draw from the visible units (`sampled`), or the expectation plus
    noise like the model's errors (`mean_residual`)."""
    sound: bool = False
    """Whether synthesized frames are turned into sound, too (`audio` events); this
    takes a fifth of a core for frames at 250 a second."""
    surprise: Literal["divergence", "free_energy"] = "divergence"
    """Measure of surprise: divergence of a frame from the expected one, or its free
    energy, which separates foreign sounds from the bird's own less well."""
    baseline_s: float = Field(default=60.0, ge=0.01, le=DAY_S)
    """Time constant of the running baseline of the surprise."""
    warm_up_ms: float = Field(default=100.0, ge=0, le=600_000)
    """Time after the start, and after a gap, in which the recurrent state still
    converges: surprise is 0, and the baseline does not move."""

    @field_validator("synthesis", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        # YAML 1.1 reads a bare `off` as false.
        return "off" if value is False else value

    @field_validator("prime")
    @classmethod
    def _primed(cls, prime: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("synthesis") == "prime" and prime is None:
            raise ValueError("synthesis 'prime' needs 'prime': the path of a recording")
        return prime


class PrimeOptions(Options):
    """Arguments of the command ``prime``."""

    path: str | None = None
    """Recording to continue; default: the last live segment."""


class SayOptions(Options):
    """Arguments of the command ``say``."""

    units: str = Field(min_length=1, max_length=10_000)
    """Units to sing next, separated by spaces: ``i i a b``."""
