"""Lane builder: the stages of a lane for one channel of a stream."""

import logging
from dataclasses import replace
from time import perf_counter_ns

from neurovocal.engine.audio.resampler import Resampler
from neurovocal.engine.config.plan import LaneStages, StagePlan, lane_info
from neurovocal.engine.contracts.options import OnError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.lane.stage import SupervisedStage, Timer

log = logging.getLogger("neurovocal")

# Where nothing needs frames, audio is processed in quanta of about this length.
_BARE_QUANTUM_S = 0.032


def build_lane(
    plan: LaneStages,
    source: StreamInfo,
    channel: int,
    context: BuildContext,
    *,
    wants_frames: bool,
    wants_trace: bool = False,
    timer: Timer = perf_counter_ns,
) -> Lane:
    """Build the stages of one channel of a source.

    Parameters
    ----------
    plan : LaneStages
        Checked plugins and options.
    source : StreamInfo
        Stream of the source; its rate may differ from the bundle's.
    channel : int
        Column of the source's blocks, counted from 0.
    context : BuildContext
        Clock, run and tile.
    wants_frames : bool
        A sink takes frames; models always need them.
    wants_trace : bool
        A sink takes the values from which the detector decides.
    timer : callable
        Returns nanoseconds, for the stages' metrics.

    Raises
    ------
    ConfigError
        A stage cannot work at this rate or with this bundle.
    """
    info = lane_info(source, plan.bundle, channel)
    context = replace(context, bundle=plan.bundle, info=info, stream=plan.name)

    def supervised(
        stage: StagePlan, built: object, default: OnError
    ) -> SupervisedStage:
        # A front end or detector that fails ends the lane; lane recovery rebuilds it.
        on_error = "fail" if default == "fail" else stage.config.on_error or default
        return SupervisedStage(
            stage.name, built, on_error, timer=timer, plugin=stage.config.plugin
        )

    features = None
    quantum = round(info.sample_rate * _BARE_QUANTUM_S)
    if plan.models or wants_frames:
        front_end = plan.features.build(context)
        features = supervised(plan.features, front_end, "fail")
        quantum = context.tile * front_end.hop_length
        context = replace(
            context,
            n_bins=front_end.n_bins,
            hop_length=front_end.hop_length,
            frame_length=front_end.frame_length,
        )
    detector = plan.detector.build(context)
    context = replace(
        context, detector_latency=detector.latency, models=plan.model_names
    )
    models = [supervised(m, m.build(context), "restart") for m in plan.models]
    watchers = [
        supervised(stage, stage.plugin.watch(stage.options, context), "restart")
        for stage in plan.watchers
        if stage.plugin.watch
    ]
    resampler = None
    if info.sample_rate > source.sample_rate:
        log.warning(
            "'%s' has %d Hz, the bundle was trained at %d Hz: what it knows of "
            "frequencies above %d Hz cannot be heard, expect worse labels",
            *(source.stream, source.sample_rate, info.sample_rate),
            source.sample_rate // 2,
        )
    if info.sample_rate != source.sample_rate:
        resampler = Resampler(source.sample_rate, info.sample_rate)
    return Lane(
        info,
        quantum,
        features,
        supervised(plan.detector, detector, "fail"),
        models,
        resampler,
        watchers,
        wants_trace=wants_trace,
    )
