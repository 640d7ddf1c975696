"""A whole rehearsal: tapes, the undisturbed truth, and one exercise after the other."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from threading import Event as Flag

from neurovocal.engine.config.located_yaml import Located
from neurovocal.engine.config.plan import LanePlan, Plan, base_of
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.rehearsal.baseline import truth
from neurovocal.engine.rehearsal.comparison import Sound
from neurovocal.engine.rehearsal.evidence import Evidence
from neurovocal.engine.rehearsal.recording import Tape, TapeMaker
from neurovocal.engine.rehearsal.sandbox import StandIn, StandInMaker
from neurovocal.engine.rehearsal.scenarios import LONGEST_S, Exercise, Stages, exercises
from neurovocal.engine.rehearsal.trial import Trial
from neurovocal.engine.rehearsal.verdict import Row, judge

# Of a process: to load models before the recording begins, and to end.
_OVERHEAD_S = 8.0
# The truth is found faster than it is played, by about as much.
_TRUTH_SPEED = 5.0
# Of tape: for what is played before an engine is told to stop.
_SPARE_S = 5.0
# Real sources are not asked: without sounds to compare, it only places spans.
_LIVE_RATE = 48_000


@dataclass(frozen=True, slots=True)
class RehearsalOptions:
    """What was asked for on the command line.

    Parameters
    ----------
    names : sequence of str
        Kinds of faults.
    recording : str, optional
        What is played; default: the configuration's own recording, or one that ships.
    seconds : float
        Least seconds of audio of an exercise.
    seed : int
        Decides when each fault strikes.
    jobs : int
        Exercises at the same time.
    live : bool
        Whether the real sources are heard: then sounds are not compared.
    """

    names: Sequence[str]
    recording: str | None
    seconds: float
    seed: int
    jobs: int
    live: bool


class Programme:
    """Rehearses a configuration.

    Parameters
    ----------
    located : Located
        The configuration, as it was read.
    wishes : Wishes
        What is rehearsed.
    folder : Path
        Takes everything that is written; it exists.
    plan_of : callable
        ``plan_of(located, base)`` checks everything about a configuration.

    Raises
    ------
    NeurovocalError
        The configuration or the recording cannot be rehearsed with.

    Attributes
    ----------
    reader : {'subscriber', 'journal', 'sinks'}
        Who is to have the sounds.
    exercises : list of Exercise
        What is carried out.
    absent : dict of str to str
        Faults that cannot be rehearsed here, and why.
    notes : list of str
        What differs from the configuration as it stands, and what that means.
    """

    def __init__(
        self,
        located: Located,
        wishes: RehearsalOptions,
        folder: Path,
        plan_of: Callable[[Located, Path], Plan],
    ) -> None:
        self._located = located
        self._wishes = wishes
        self._folder = folder
        self._base = base_of(located.name)
        registry = Registry()
        self._maker = StandInMaker(located, registry, self._base)
        self._tapes: list[Tape] = []
        context = BuildContext(clock=SystemClock(), run="tape", base=self._base)
        if not wishes.live:
            longest_s = max(wishes.seconds, LONGEST_S) + _SPARE_S
            makes = TapeMaker(registry, context, folder, longest_s)
            self._tapes = [
                makes.make(number, wishes.recording, own)
                for number, own in enumerate(self._maker.sources())
            ]
        sample = self._stand_in("check")
        # With the lines of the user's file, for mistakes.
        self._plan = plan_of(replace(located, data=sample.data), self._base)
        if wishes.live and not any(_is_live(lane) for lane in self._plan.lanes):
            raise ConfigError(
                "--live hears microphones, pipes and other live sources, and there is "
                "none: leave it out"
            )
        self._sample_rate = _rate_of(self._plan, self._tapes)
        self._tape_rate = self._tapes[0].sample_rate if self._tapes else _LIVE_RATE
        self.notes = [*self._played(), *sample.notes, *_resuming(sample)]
        self.reader = _reader_of(sample)
        self.exercises, self.absent = exercises(
            wishes.names, self._stages(sample), wishes.seed
        )
        if not self.exercises:
            reasons = [f"{name}: {why}" for name, why in self.absent.items()]
            raise ConfigError(f"nothing can be rehearsed: {'; '.join(reasons)}")
        self._stopping = Flag()

    @property
    def estimate_s(self) -> float:
        """About how long it takes."""
        seconds = [e.seconds(self._wishes.seconds) for e in self.exercises]
        rounds = (sum(seconds) + _OVERHEAD_S * len(seconds)) / self._wishes.jobs
        longest = max(seconds, default=0.0) + _OVERHEAD_S
        found_s = 0.0 if self._wishes.live else LONGEST_S / _TRUTH_SPEED
        return ceil(found_s + max(longest, rounds))

    def run(self, begun: Callable[[str], None]) -> Iterator[Row]:
        """Carry out the exercises; rows in the order in which they are done.

        Parameters
        ----------
        begun : callable
            Is told the name of each exercise that begins, from any thread.
        """
        sounds, labelled = self._truth(begun)
        with ThreadPoolExecutor(self._wishes.jobs) as pool:
            try:
                futures: list[Future[Row]] = [
                    pool.submit(self._carry_out, each, sounds, labelled, begun)
                    for each in self.exercises
                ]
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                self.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def stop(self) -> None:
        """End what goes on."""
        self._stopping.set()

    def _truth(self, begun: Callable[[str], None]) -> tuple[list[Sound], bool]:
        if not self._tapes:
            return [], bool(self._plan.lanes[0].models)
        begun("undisturbed")
        folder = self._folder / "undisturbed"
        folder.mkdir()
        try:
            data = self._located.data
            return truth(
                data, self._tapes, folder, self._base, self._sample_rate, self._stopping
            )
        except BaseException:
            self.stop()
            raise

    def _carry_out(
        self,
        exercise: Exercise,
        sounds: Sequence[Sound],
        labelled: bool,
        begun: Callable[[str], None],
    ) -> Row:
        begun(exercise.name)
        name = exercise.name.replace(" ", "-").replace("/", "-")
        stand_in = self._stand_in(name)
        record = Trial(
            exercise,
            stand_in,
            self._folder / name,
            self._base,
            exercise.seconds(self._wishes.seconds),
            self._stopping,
        ).run()
        evidence = Evidence(
            exercise, record, labelled, self._sample_rate, self._tape_rate
        )
        return judge(evidence, sounds, self.reader, stand_in.replay is not None)

    def _stand_in(self, name: str) -> StandIn:
        folder = self._folder / name
        folder.mkdir()
        return self._maker.make(folder, self._tapes)

    def _stages(self, sample: StandIn) -> Stages:
        plan = self._plan
        models = [m.config.plugin for lane in plan.lanes for m in lane.models]
        gate = [] if plan.gate is None else ["gate"]
        sinks = [*plan.sinks, *(sink for lane in plan.lanes for sink in lane.sinks)]
        return Stages(
            lane=tuple(dict.fromkeys(["features", "detector", *gate, *models])),
            sinks=tuple(dict.fromkeys(sink.stage.config.plugin for sink in sinks)),
            hang_s=plan.config.shared.supervise.hang_s,
            on_disk=sample.on_disk,
            socket=sample.endpoint,
            tape_rate=self._tape_rate,
            loud=self._tapes[0].loud if self._tapes else 0.1,
        )

    def _played(self) -> list[str]:
        """What stands in for the sources, for people."""
        if not self._tapes:
            return ["the real sources are heard: sounds cannot be compared"]
        origins = ", ".join(dict.fromkeys(tape.origin for tape in self._tapes))
        named = " and ".join(dict.fromkeys(self._maker.source_names()))
        words = f"{origins} is played live in place of source {named}"
        if self._wishes.recording is None:
            words += " (--recording names another)"
        return [words]


def _is_live(lane: LanePlan) -> bool:
    context = BuildContext(clock=SystemClock(), run="live")
    return bool(lane.source.build(context).live)


def _rate_of(plan: Plan, tapes: Sequence[Tape]) -> int:
    """The highest rate of any lane, in Hz: no sample is lost by counting at it."""
    bundles = [lane.bundle for lane in plan.lanes]
    rates = [b.manifest.front_end.sample_rate for b in bundles if b is not None]
    return max([*rates, *(tape.sample_rate for tape in tapes)], default=_LIVE_RATE)


def _reader_of(sample: StandIn) -> str:
    if sample.endpoint is not None:
        return "subscriber"
    return "sinks" if sample.journal is None else "journal"


def _resuming(sample: StandIn) -> list[str]:
    """What a subscriber can do about what it missed."""
    if sample.endpoint is None or sample.replay is not None:
        return []
    lack = (
        "there is no journal"
        if sample.journal is None
        else "the journal has no 'replay'"
    )
    return [f"{lack}: a subscriber cannot get back what it missed, only know of it"]
