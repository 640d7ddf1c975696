"""Second check of a configuration: finds the plugins and makes the plan.

The first check (`schema`) knows the envelope; this one knows the plugins: their
options, the bundle, shapes, rates, ports and files. All mistakes are reported at
once, before any device, file or port is opened.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from neurovocal.engine.config.claims import (
    FileClaims,
    Owner,
    sentence_of,
    shared_sentence,
)
from neurovocal.engine.config.fault_targets import target_problems
from neurovocal.engine.config.located_yaml import Located, Location
from neurovocal.engine.config.partial import REFUSED
from neurovocal.engine.config.plan import LanePlan, Plan, SinkPlan, StagePlan
from neurovocal.engine.config.schema import Config, LaneConfig, SinkConfig, StageConfig
from neurovocal.engine.config.validation import validated, validation_problems
from neurovocal.engine.contracts.bundle import DEFAULT_DETECTOR, Bundle, load_bundle
from neurovocal.engine.contracts.errors import (
    ConfigError,
    DeviceError,
    LackingBundleProblem,
    OutputProblem,
    TransientProblem,
)
from neurovocal.engine.contracts.options import OnError, OptionProblem
from neurovocal.engine.contracts.plugin import BuildContext, FileAccess, Kind, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.support.names import path_problem
from neurovocal.engine.wire.keys import key_problems

# Policies that a kind of stage cannot have, and why.
_HOLE = "would be a hole that no gap declares"
_NO_SKIP = f"only 'fail' or 'restart' is possible here: what it left out {_HOLE}"
_NO_POLICY = "a control has no policy: a failing one is tried again"
_CLOSED = "a gate has no policy: while it fails no audio leaves"
_POLICY_HINTS: dict[Kind, dict[OnError, str]] = {
    "source": {
        "skip": "only 'fail' or 'restart' is possible here: audio that is left "
        f"out {_HOLE}"
    },
    "features": {"skip": _NO_SKIP},
    "detector": {"skip": _NO_SKIP},
    "model": {},
    "sink": {},
    "control": dict.fromkeys(get_args(OnError), _NO_POLICY),
    "gate": dict.fromkeys(get_args(OnError), _CLOSED),
}


def make_plan(
    config: Config,
    located: Located,
    registry: Registry,
    context: BuildContext,
    *,
    refused: Sequence[str] = (),
    needs_devices: bool = True,
) -> Plan:
    """Find every plugin; check all options, bundles and resources.

    Parameters
    ----------
    config, located
        From `neurovocal.engine.config.schema.load_config`.
    registry : Registry
        Finds the plugins.
    context : BuildContext
        Clock, run name and base folder; the rest is filled in here.
    refused : sequence of str
        Mistakes that are known already; the configuration is what is left without them.
    needs_devices : bool
        Whether a missing device is an error; otherwise the plan's `absent` names it.

    Raises
    ------
    ConfigError
        All mistakes at once, each with file and line.
    DeviceError
        A missing device is all that is wrong.
    """
    return _Planner(located, registry, context, refused).plan(config, needs_devices)


class _Planner:
    def __init__(
        self,
        located: Located,
        registry: Registry,
        context: BuildContext,
        refused: Sequence[str],
    ) -> None:
        self.located = located
        self.registry = registry
        self.context = context
        self.problems: list[str] = list(refused)
        self.absent: list[str] = []  # devices that may be there at a later start
        self._existing: list[tuple[Location, OutputProblem]] = []
        self._is_partial = bool(refused)
        self.stages: list[StagePlan] = []  # those with valid options
        self._bundles: set[Path] = set()  # folders of those that were loaded
        self._bundle_failed = False  # of the lane that is being planned
        self._is_fast = False  # its profile

    def plan(self, config: Config, needs_devices: bool) -> Plan:
        if config.shared.keys is not None:
            self._keys(config.shared.keys)
        privacy = config.shared.privacy
        mode = privacy.mode if privacy is not None else "off"
        context = replace(
            self.context,
            tile=config.shared.tile,
            privacy=mode,
            stream=config.shared.station,
        )
        lanes = [
            self._lane(lane, loc, config.shared.station, context)
            for lane, loc in zip(config.lanes, config.lane_locs, strict=True)
        ]
        sinks = self._sinks(config.sinks, (), context)
        lanes = [lane and self._with_watchers(lane, sinks, context) for lane in lanes]
        if None not in lanes:
            self._check_lanes_of_sinks(sinks, [lane for lane in lanes if lane], context)
        control = None
        if config.shared.control is not None:
            control = self._stage(
                "control", config.shared.control, ("control",), context
            )
        gate = None
        if privacy is not None and privacy.mode == "gate":
            # It listens to what each source delivers; the slowest one decides.
            known = [
                _known_stream(lane.name, lane.source, None, context, named=True)
                for lane in lanes
                if lane
            ]
            streams = sorted(filter(None, known), key=lambda info: info.sample_rate)
            own = replace(context, info=streams[0] if streams else None)
            gate = self._stage("gate", privacy.gate, ("privacy", "gate"), own)
        self._claims()
        self._file_claims()
        self._names(config)
        self._workers(config)
        without = not config.sinks and not any(lane.sinks for lane in config.lanes)
        if without and not self._is_partial:
            self._problem((), "there is no sink: nobody would get the labels")
        plan = Plan(
            config,
            [lane for lane in lanes if lane],
            sinks,
            context,
            control,
            self.located.name,
            gate,
            absent=self.absent,
        )
        if not self.problems:  # or faults would have no target because of them
            self._faults(plan)
        absent = self.absent if needs_devices else []
        if self.problems:
            raise ConfigError([*self.problems, *absent])
        if absent:
            raise DeviceError("\n".join(absent))
        return plan

    def _faults(self, plan: Plan) -> None:
        for index, fault in enumerate(plan.config.shared.faults):
            for key, problem in target_problems(fault, plan):
                where: Location = ("faults", index, *([key] if key else []))
                self._problem(where, problem)

    def _workers(self, config: Config) -> None:
        """Find what lanes in processes of their own cannot have."""
        if config.shared.workers == 1:
            return
        if config.shared.faults:
            self._problem(
                ("workers",), "faults are injected into a run of one process: remove it"
            )
        for stage in self.stages:
            if "stdin" in stage.plugin.resources(stage.options):
                self._problem(
                    ("workers",),
                    f"{stage.name} reads standard input, which only one process has: "
                    "remove it",
                )

    def _keys(self, name: str) -> None:
        folder = self.context.path(name)
        self.context = replace(self.context, keys=folder)
        for problem in key_problems(folder):
            self._problem(("keys",), problem)

    def _lane(
        self, lane: LaneConfig, loc: Location, station: str, context: BuildContext
    ) -> LanePlan | None:
        name = lane.name or station
        context = replace(context, stream=name)
        self._is_fast = lane.profile == "fast"
        bundle = self._bundle(lane, loc)
        context = replace(context, bundle=bundle)
        source = self._stage("source", lane.source, (*loc, "source"), context)
        named = bool(self.located.name)
        known = _known_stream(name, source, bundle, context, named=named)
        context = replace(context, info=known)
        features = self._features(lane, loc, bundle, context)
        detector = self._detector(lane, loc, bundle, context)
        models = [
            self._stage("model", model, (*loc, "models", index), context)
            for index, model in enumerate(lane.models)
        ]
        names = self._label_names([model for model in models if model], context)
        sinks = self._sinks(lane.sinks, loc, context)
        if source is None or features is None or detector is None or None in models:
            return None
        return LanePlan(
            name=name,
            source=source,
            is_fast=self._is_fast,
            is_labelled=bool(names),
            bundle=bundle,
            features=features,
            detector=detector,
            models=[model for model in models if model],
            sinks=sinks,
            signal=lane.signal,
        )

    def _label_names(
        self, models: Sequence[StagePlan], context: BuildContext
    ) -> Collection[str]:
        """Return under which names the models label; each must be that of one."""
        seen: dict[str, StagePlan] = {}
        for model in models:
            name = model.plugin.label_name(model.options, context)
            if name is None:
                continue
            if (other := seen.setdefault(name, model)) is model:
                continue
            remedy = "remove one of them"
            if "name" in model.plugin.options.model_fields:
                remedy = "give one of them another 'name' in its options"
            self._problem(
                model.loc,
                f"this {model.name} and the one at {_dotted(other.loc)} would both "
                f"label as '{name}', and nobody could tell their labels apart: "
                f"{remedy}",
            )
        return seen.keys()

    def _bundle(self, lane: LaneConfig, loc: Location) -> Bundle | None:
        self._bundle_failed = False
        if lane.bundle is None:
            return None
        if lane.features is not None:
            self._problem(
                (*loc, "features"),
                "a bundle brings its own front end: remove this key or the bundle",
            )
        try:
            bundle = load_bundle(lane.bundle, self.context.base)
            self._bundles.add(bundle.folder)
            return bundle
        except ConfigError as error:
            for problem in error.problems:
                self._problem((*loc, "bundle"), problem)
            self._bundle_failed = True
            return None

    def _features(
        self,
        lane: LaneConfig,
        loc: Location,
        bundle: Bundle | None,
        context: BuildContext,
    ) -> StagePlan | None:
        stage = lane.features or StageConfig(plugin="spectrogram")
        front_end = bundle.manifest.stated_front_end if bundle else None
        if front_end is not None:
            stage = StageConfig(plugin=front_end.plugin, options=front_end.options)
        return self._stage("features", stage, (*loc, "features"), context)

    def _detector(
        self,
        lane: LaneConfig,
        loc: Location,
        bundle: Bundle | None,
        context: BuildContext,
    ) -> StagePlan | None:
        """Plan the configuration's detector, or the bundle's, or the default."""
        recommended = bundle.manifest.detector if bundle else None
        if lane.detector is None and recommended is not None:
            fast = recommended.fast_options if self._is_fast else {}
            options = {**recommended.options, **fast}
            stage = StageConfig(plugin=recommended.plugin, options=options)
            return self._stage("detector", stage, (*loc, "bundle"), context)
        stage = lane.detector or StageConfig(plugin=DEFAULT_DETECTOR)
        return self._stage("detector", stage, (*loc, "detector"), context)

    def _sinks(
        self, sinks: Sequence[SinkConfig], loc: Location, context: BuildContext
    ) -> list[SinkPlan]:
        plans = []
        for index, sink in enumerate(sinks):
            own = replace(
                context, events=None if sink.events is None else tuple(sink.events)
            )
            stage = self._stage("sink", sink, (*loc, "sinks", index), own)
            if stage is not None:
                plans.append(SinkPlan(stage, sink))
        return plans

    def _with_watchers(
        self, lane: LanePlan, shared: Sequence[SinkPlan], context: BuildContext
    ) -> LanePlan:
        """Return the lane with the sinks that have a watcher for its events."""
        stages = [sink.stage for sink in [*shared, *lane.sinks]]
        watchers = [stage for stage in stages if stage.plugin.watch]
        context = _context_of(lane, context)
        for stage in watchers:
            for problem in stage.plugin.check_lane(stage.options, context):
                self._problem(stage.loc, f"lane '{lane.name}': {problem}")
        return replace(lane, watchers=watchers)

    def _check_lanes_of_sinks(
        self,
        shared: Sequence[SinkPlan],
        lanes: Sequence[LanePlan],
        context: BuildContext,
    ) -> None:
        """Check that each sink gets its triggers from one of its lanes at least."""
        lanes_of = [(sink.stage, lanes) for sink in shared]
        lanes_of += [(sink.stage, [lane]) for lane in lanes for sink in lane.sinks]
        for stage, its_lanes in lanes_of:
            contexts = [_context_of(lane, context) for lane in its_lanes]
            for problem in stage.plugin.check_lanes(stage.options, contexts):
                self._problem(stage.loc, problem)

    def _stage(
        self, kind: Kind, stage: StageConfig, loc: Location, context: BuildContext
    ) -> StagePlan | None:
        if self._is_partial and stage.plugin == REFUSED:
            return None
        try:
            plugin = self.registry.get(kind, stage.plugin, self.context.base)
        except ConfigError as error:
            self._problem((*loc, "plugin"), str(error))
            return None
        try:
            where = (*loc, "options")
            given = stage.options
            if self._is_fast and kind in ("detector", "model"):
                given = {**plugin.options.fast, **given}
            options = validated(plugin.options, given, self.located, where)
        except ValidationError as error:
            self.problems += validation_problems(
                error, plugin.options, self.located, where
            )
            self._check_rest(plugin, stage, error, where, context)
            return None
        if stage.on_error and (hint := _POLICY_HINTS[kind].get(stage.on_error)):
            self._problem((*loc, "on_error"), hint)
        # Without its bundle a model would only report that.
        if kind != "model" or not self._bundle_failed:
            try:
                for problem in plugin.check(options, context):
                    lacks_bundle = isinstance(problem, LackingBundleProblem)
                    if not lacks_bundle or not self._bundle_failed:
                        self._problem(loc, problem)
            except OSError as error:  # such as a name that is too long
                self._problem(loc, path_problem(error))
                return None
        name = f"{kind} '{stage.plugin}'"
        if kind == "sink":  # their counters are published by name
            same = sum(s.kind == kind and s.plugin is plugin for s in self.stages)
            name += f" {same + 1}" if same else ""
        self.stages.append(StagePlan(name, kind, plugin, options, stage, loc))
        return self.stages[-1]

    def _check_rest(
        self,
        plugin: Plugin[Any],
        stage: StageConfig,
        error: ValidationError,
        where: Location,
        context: BuildContext,
    ) -> None:
        """Check the options of a stage that remain without the refused ones.

        Only what is wrong with an option that was given counts: the rest may follow
        from the defaults that stand in for the refused ones.
        """
        refused: set[str | int] = set()
        for detail in error.errors():
            refused.update(detail["loc"][:1])
            if detail["type"] == "contradiction":
                refused.update(detail["ctx"]["options"])
        given = {k: v for k, v in stage.options.items() if k not in refused}
        with suppress(ValidationError, OSError):
            options = validated(plugin.options, given, self.located, where)
            for problem in plugin.check(options, context):
                if not isinstance(problem, OptionProblem):
                    continue
                if problem.option.partition(".")[0] in given:
                    self._problem(where[:-1], problem)

    def _claims(self) -> None:
        owners: dict[str, StagePlan] = {}
        for stage in self.stages:
            for resource in sorted(stage.plugin.resources(stage.options)):
                other = owners.setdefault(resource, stage)
                if other is not stage:
                    sentence = shared_sentence(stage.name, other.name, resource)
                    self._problem(stage.loc, sentence)
                    break  # a journal's files go with it

    def _file_claims(self) -> None:
        """Find outputs that are inputs: no stage may write a file of a reader."""
        claims = FileClaims()
        if (name := Path(self.located.name)).is_file():
            claims.add("the run", reads=[FileAccess(name)])
        for folder in self._bundles:
            reads = [FileAccess(folder, ("**/*",))]
            claims.add(f"the bundle '{folder.name}'", reads=reads)
        for stage in self.stages:
            plugin, options, context = stage.plugin, stage.options, self.context
            claims.add(
                stage.loc,
                plugin.reads(options, context),
                plugin.writes(options, context),
            )
        names: dict[Owner, str] = {stage.loc: stage.name for stage in self.stages}
        for writer, output, reader, read in claims.conflicts():
            sentence = sentence_of(
                names[writer], output, names.get(reader, str(reader)), read
            )
            where = writer if isinstance(writer, tuple) else ()
            self._problem(where, sentence)
            self._existing = [
                (loc, problem)
                for loc, problem in self._existing
                if loc != where or f"'{output.path}'" not in problem
            ]
        for loc, problem in self._existing:
            self._problem(loc, str(problem))

    def _names(self, config: Config) -> None:
        seen: set[str] = set()
        for lane, loc in zip(config.lanes, config.lane_locs, strict=True):
            name = lane.name or config.shared.station
            if name in seen and not self._is_partial:
                self._problem(
                    loc, f"two lanes are named '{name}': give each its own 'name'"
                )
            seen.add(name)

    def _problem(self, loc: Location, message: str) -> None:
        if isinstance(message, OptionProblem):
            loc = (*loc, "options", *message.option.split("."))
        if isinstance(message, OutputProblem):
            self._existing.append((loc, message))
            return
        transient = isinstance(message, TransientProblem)
        found = self.absent if transient else self.problems
        found.append(self.located.problem(loc, message))


def _known_stream(
    name: str,
    source: StagePlan | None,
    bundle: Bundle | None,
    context: BuildContext,
    *,
    named: bool,
) -> StreamInfo | None:
    """Return the stream of a lane if its rate is known before the source is opened."""
    front_end = bundle.manifest.stated_front_end if bundle else None
    rate = front_end.sample_rate if front_end else None
    # What a command's arguments name adapts itself: a preset's band is cut off.
    if rate is None and source is not None and named:
        rate = source.plugin.sample_rate(source.options, context)
    return None if rate is None else StreamInfo(name, rate, 1)


def _dotted(loc: Location) -> str:
    return ".".join(str(part) for part in loc)


def _context_of(lane: LanePlan, context: BuildContext) -> BuildContext:
    """Return the description of a lane for a sink's plugin."""
    return replace(
        context, stream=lane.name, bundle=lane.bundle, models=lane.model_names
    )
