"""Rehearsal of a configuration: recordings, the baseline, and a trial per scenario."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from threading import Event as Flag

from neurovocal.engine.config.located_yaml import Located, parse_located
from neurovocal.engine.config.plan import LanePlan, Plan, base_of
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.rehearsal.baseline import find_baseline
from neurovocal.engine.rehearsal.comparison import Vocalization
from neurovocal.engine.rehearsal.evidence import TrialEvidence
from neurovocal.engine.rehearsal.recording import LaneRecording, RecordingMaker
from neurovocal.engine.rehearsal.sandbox import SandboxedConfig, SandboxMaker
from neurovocal.engine.rehearsal.scenarios import (
    LONGEST_S,
    FaultTargets,
    Scenario,
    make_scenarios,
)
from neurovocal.engine.rehearsal.trial import Trial
from neurovocal.engine.rehearsal.verdict import TrialResult, judge
from neurovocal.engine.support import safe_yaml

# Of a process: to load models before the recording begins, and to end.
_OVERHEAD_S = 8.0
# Speed of the baseline's run, in seconds of audio per second.
_BASELINE_SPEED = 5.0
# Audio beyond the longest trial: the engine is stopped a little late.
_SPARE_S = 5.0
# Live sources are not asked for their rate: without vocalizations to compare, it only
# places spans.
_LIVE_RATE = 48_000


@dataclass(frozen=True, slots=True)
class RehearsalOptions:
    """Options of the command line.

    Parameters
    ----------
    names : sequence of str
        Kinds of faults.
    recording : str, optional
        File to play; default: the configuration's own recording, or one that ships.
    seconds : float
        Least seconds of audio of a trial.
    seed : int
        Seed of the times at which the faults start.
    jobs : int
        Number of trials at the same time.
    live : bool
        Whether the real sources are used: then vocalizations are not compared.
    """

    names: Sequence[str]
    recording: str | None
    seconds: float
    seed: int
    jobs: int
    live: bool


class Rehearsal:
    """Runs a trial of a configuration for each fault scenario.

    Parameters
    ----------
    located : Located
        The configuration, as it was read.
    options : RehearsalOptions
        Which faults, with which audio.
    folder : Path
        Existing folder that everything is written to.
    plan_of : callable
        ``plan_of(located, base)`` checks everything about a configuration.

    Raises
    ------
    NeurovocalError
        The configuration or the recording cannot be rehearsed with.

    Attributes
    ----------
    reader : {'subscriber', 'journal', 'sinks'}
        Where vocalizations are counted.
    scenarios : list of Scenario
        The trials to run.
    not_rehearsed : dict of str to str
        Reason, for each fault that cannot be rehearsed with this configuration.
    notes : list of str
        Sentences: what differs from the configuration as it is, and what that means.
    """

    def __init__(
        self,
        located: Located,
        options: RehearsalOptions,
        folder: Path,
        plan_of: Callable[[Located, Path], Plan],
    ) -> None:
        self._located = located
        self._options = options
        self._folder = folder
        self._base = base_of(located.name)
        registry = Registry()
        self._maker = SandboxMaker(located, registry, self._base)
        self._recordings: list[LaneRecording] = []
        context = BuildContext(clock=SystemClock(), run="tape", base=self._base)
        if not options.live:
            longest_s = max(options.seconds, LONGEST_S) + _SPARE_S
            recordings = RecordingMaker(registry, context, folder, longest_s)
            self._recordings = [
                recordings.make(number, options.recording, own)
                for number, own in enumerate(self._maker.sources())
            ]
        sample = self._sandboxed("check")
        # With the line numbers of the user's file, for mistakes.
        expanded = parse_located(safe_yaml.dump(sample.data), located.name).data
        self._plan = plan_of(replace(located, data=expanded), self._base)
        if options.live and not any(_is_live(lane) for lane in self._plan.lanes):
            raise ConfigError(
                "--live uses microphones, pipes and other live sources, and there is "
                "none: leave it out"
            )
        self._sample_rate = _rate_of(self._plan, self._recordings)
        self._recording_rate = _LIVE_RATE
        if self._recordings:
            self._recording_rate = self._recordings[0].sample_rate
        self.notes = [*self._source_notes(), *sample.notes, *_resume_notes(sample)]
        self.reader = _reader_of(sample)
        self.scenarios, self.not_rehearsed = make_scenarios(
            options.names, self._targets(sample), options.seed
        )
        if not self.scenarios:
            reasons = [f"{name}: {why}" for name, why in self.not_rehearsed.items()]
            raise ConfigError(f"nothing can be rehearsed: {'; '.join(reasons)}")
        self._stopping = Flag()

    @property
    def estimate_s(self) -> float:
        """Estimated duration of the rehearsal in seconds."""
        seconds = [e.seconds(self._options.seconds) for e in self.scenarios]
        rounds = (sum(seconds) + _OVERHEAD_S * len(seconds)) / self._options.jobs
        longest = max(seconds, default=0.0) + _OVERHEAD_S
        baseline_s = 0.0 if self._options.live else LONGEST_S / _BASELINE_SPEED
        return ceil(baseline_s + max(longest, rounds))

    def run(self, on_start: Callable[[str], None]) -> Iterator[TrialResult]:
        """Run all trials and yield their results in the order in which they end.

        Parameters
        ----------
        on_start : callable
            Called with the name of each trial that starts, from any thread.
        """
        baseline, labelled = self._find_baseline(on_start)
        with ThreadPoolExecutor(self._options.jobs) as pool:
            try:
                futures: list[Future[TrialResult]] = [
                    pool.submit(self._run_trial, each, baseline, labelled, on_start)
                    for each in self.scenarios
                ]
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                self.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def stop(self) -> None:
        """Give up the trials that are running."""
        self._stopping.set()

    def _find_baseline(
        self, on_start: Callable[[str], None]
    ) -> tuple[list[Vocalization], bool]:
        if not self._recordings:
            return [], bool(self._plan.lanes[0].models)
        on_start("undisturbed")
        folder = self._folder / "undisturbed"
        folder.mkdir()
        try:
            return find_baseline(
                self._located.unexpanded(),
                self._recordings,
                folder,
                self._base,
                self._sample_rate,
                self._stopping,
            )
        except BaseException:
            self.stop()
            raise

    def _run_trial(
        self,
        scenario: Scenario,
        baseline: Sequence[Vocalization],
        labelled: bool,
        on_start: Callable[[str], None],
    ) -> TrialResult:
        on_start(scenario.name)
        name = scenario.name.replace(" ", "-").replace("/", "-")
        sandboxed = self._sandboxed(name)
        record = Trial(
            scenario,
            sandboxed,
            self._folder / name,
            self._base,
            scenario.seconds(self._options.seconds),
            self._stopping,
        ).run()
        evidence = TrialEvidence(
            scenario, record, labelled, self._sample_rate, self._recording_rate
        )
        resumes = sandboxed.replay is not None
        return judge(evidence, baseline, self.reader, resumes)

    def _sandboxed(self, name: str) -> SandboxedConfig:
        folder = self._folder / name
        folder.mkdir()
        return self._maker.make(folder, self._recordings)

    def _targets(self, sample: SandboxedConfig) -> FaultTargets:
        plan = self._plan
        models = [m.config.plugin for lane in plan.lanes for m in lane.models]
        gate = [] if plan.gate is None else ["gate"]
        sinks = [*plan.sinks, *(sink for lane in plan.lanes for sink in lane.sinks)]
        return FaultTargets(
            lane=tuple(dict.fromkeys(["features", "detector", *gate, *models])),
            sinks=tuple(dict.fromkeys(sink.stage.config.plugin for sink in sinks)),
            hang_s=plan.config.shared.supervise.hang_s,
            on_disk=sample.on_disk,
            socket=sample.endpoint,
            recording_rate=self._recording_rate,
            loud_level=self._recordings[0].loud_level if self._recordings else 0.1,
        )

    def _source_notes(self) -> list[str]:
        """Return sentences on the audio that replaces the sources."""
        if not self._recordings:
            return ["the real sources are used: sounds cannot be compared"]
        origins = ", ".join(dict.fromkeys(each.origin for each in self._recordings))
        named = " and ".join(dict.fromkeys(self._maker.source_names()))
        note = f"{origins} is played live in place of source {named}"
        if self._options.recording is None:
            note += " (--recording names another)"
        return [note]


def _is_live(lane: LanePlan) -> bool:
    context = BuildContext(clock=SystemClock(), run="live")
    return bool(lane.source.build(context).live)


def _rate_of(plan: Plan, recordings: Sequence[LaneRecording]) -> int:
    """Return the highest rate of any lane, in Hz, so that counting loses no sample."""
    bundles = [lane.bundle for lane in plan.lanes]
    rates = [b.manifest.rate_of(0) for b in bundles if b is not None]
    return max([*rates, *(each.sample_rate for each in recordings)], default=_LIVE_RATE)


def _reader_of(sample: SandboxedConfig) -> str:
    if sample.endpoint is not None:
        return "subscriber"
    return "sinks" if sample.journal is None else "journal"


def _resume_notes(sample: SandboxedConfig) -> list[str]:
    """Return why a subscriber cannot get back missed messages, if it cannot."""
    if sample.endpoint is None or sample.replay is not None:
        return []
    lack = (
        "there is no journal"
        if sample.journal is None
        else "the journal has no 'replay'"
    )
    return [f"{lack}: a subscriber cannot get back what it missed, only know of it"]
