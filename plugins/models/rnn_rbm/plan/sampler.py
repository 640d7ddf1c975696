"""Sampler whose frames follow a plan."""

from collections.abc import Sequence

import numpy as np

from neurovocal.engine import Bundle, BundleError, ConfigError
from neurovocal.plugins.models.forecast import Forecaster
from neurovocal.plugins.models.onnx.session import Golden
from neurovocal.plugins.models.rnn_rbm.plan.condition import n_condition
from neurovocal.plugins.models.rnn_rbm.plan.song import SongPlan
from neurovocal.plugins.models.rnn_rbm.plan.tables import PlanTables, load_tables
from neurovocal.plugins.models.rnn_rbm.sampler import Feedback, Sampler, sampling_graph


class Planner:
    """A bundle's network that sings after a plan, with its tables.

    Parameters
    ----------
    bundle : Bundle

    Raises
    ------
    BundleError
        The bundle has no plan, or its files do not fit or do not reproduce their
        golden vectors.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.manifest.plan
        if spec is None:
            raise BundleError(no_plan(bundle))
        self.bundle, self.spec = bundle, spec
        if spec.n_condition != n_condition(len(spec.units)):
            raise BundleError(
                f"bundle '{bundle.folder}': the plan has n_condition "
                f"{spec.n_condition}, {len(spec.units)} units need "
                f"{n_condition(len(spec.units))}: make it again with `neurovocal plan`"
            )
        self.tables: PlanTables = load_tables(bundle, spec)
        self.graph = sampling_graph(bundle, spec)
        golden = Golden(bundle)
        feed = {
            "frame": golden["plan_frame"],
            "u": golden["plan_state"],
            "noise": golden["plan_noise"],
            "condition": golden["plan_condition"],
            "temperature": np.array(1.0, np.float32),
        }
        golden.check(self.graph, "plan_mean", self.graph.try_run(feed)[0])

    def song_plan(self) -> SongPlan:
        """Return a plan with a forecast of its own."""
        hop = self.bundle.manifest.front_end.hop_length
        return SongPlan(self.tables, self.spec.units, Forecaster(self.bundle), hop)


def no_plan(bundle: Bundle) -> str:
    """Return the sentence on a bundle without a plan, and whether it can have one."""
    manifest = bundle.manifest
    parts = {
        "classifier": manifest.classifier,
        "forecast": manifest.forecast,
        "RNN-RBM": manifest.rnn_rbm,
    }
    sentence = f"bundle '{bundle.folder}' has no plan to sing after"
    if lacking := [name for name, part in parts.items() if part is None]:
        return f"{sentence}, and no {' and no '.join(lacking)}, which a plan needs"
    return f"{sentence}: `neurovocal plan` adds one from annotated recordings"


def parse_units(text: str, units: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers, from 1, of the units in `text`, separated by spaces.

    Raises
    ------
    ConfigError
        There are none, or one is no unit.
    """
    words = text.replace(",", " ").split()
    if not words:
        raise ConfigError("units: name at least one")
    unknown = sorted({word for word in words if word not in units})
    if unknown:
        raise ConfigError(
            f"units: {', '.join(repr(word) for word in unknown)}: the bundle has "
            f"{' '.join(units)}; separate them by spaces"
        )
    return tuple(1 + list(units).index(word) for word in words)


class PlannedSampler(Sampler):
    """Draws frames that follow a plan.

    Parameters
    ----------
    planner : Planner
    plan : SongPlan
        From `planner`.
    feedback, temperature, gibbs_steps
        As for `Sampler`.
    """

    def __init__(
        self,
        planner: Planner,
        plan: SongPlan,
        *,
        feedback: Feedback = "mean_residual",
        temperature: float = 1.0,
        gibbs_steps: int | None = None,
    ) -> None:
        super().__init__(
            planner.graph,
            planner.bundle,
            feedback=feedback,
            temperature=temperature,
            gibbs_steps=gibbs_steps,
            plan=plan,
        )
        self._tables = planner.tables

    def begin(self, units: Sequence[int], seed: Sequence[int], *, free: bool) -> None:
        """Begin a song, in silence.

        Parameters
        ----------
        units : sequence of int
            Units to sing first, from 1.
        seed : sequence of int
            Seed of all draws.
        free : bool
            Whether drawn units follow them without end.
        """
        assert self.plan is not None
        self.start(self._tables.rest_frame, self._tables.rest_state, seed)
        self.plan.start(units, free=free, seed=seed)
