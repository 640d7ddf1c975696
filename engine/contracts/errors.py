"""Exceptions of the engine, and exit codes of the command line.

A message is one sentence with the problem and its remedy; the command line prints it
without a traceback and exits with the error's ``exit_code``. Values of environment
variables that a configuration names are masked in it.
"""

from collections.abc import Sequence

from neurovocal.engine.support.credentials import masked
from neurovocal.engine.support.text import plain

EXIT_CLEAN = 0
EXIT_CONFIG = 1
EXIT_RUNTIME = 2
EXIT_LOSS = 3


class NeurovocalError(Exception):
    """Base of all errors with a message for the user."""

    exit_code = EXIT_RUNTIME

    def __init__(self, message: str) -> None:
        super().__init__(masked(plain(message)))


class ConfigError(NeurovocalError):
    """Error in the configuration, the arguments or a file that they name.

    Parameters
    ----------
    problems : sequence of str
        All problems that were found, one sentence each.
    """

    exit_code = EXIT_CONFIG

    def __init__(self, problems: str | Sequence[str]) -> None:
        given = [problems] if isinstance(problems, str) else list(problems)
        self.problems = [_printable(one) for one in given]
        super().__init__("\n".join(self.problems))


def _printable(problem: str) -> str:
    """Return a problem of the same class with control characters escaped."""
    shown = str.__new__(type(problem), masked(plain(problem)))
    if hasattr(problem, "__dict__"):
        shown.__dict__.update(problem.__dict__)
    return shown


class PluginError(ConfigError):
    """A plugin cannot be found or loaded, or does not fit the engine."""


class BundleError(ConfigError):
    """A model bundle is missing, damaged or does not fit its use."""


class TransientProblem(str):
    """Problem found by a plugin's check that may disappear without a change.

    For example a sound card that is not connected. If there are no other problems, the
    exit code tells a service manager that a later start may succeed.
    """


class LackingBundleProblem(str):
    """Problem found by a plugin's check: the lane has no bundle, or an unfit one.

    It is not told where the bundle that was named could not be loaded.
    """


class OutputProblem(str):
    """Problem found by a plugin's check: the file at an output must not be replaced.

    It names the path in quotation marks, and is not told where the output is an input
    of the same run, which is told then.
    """


class StageError(NeurovocalError):
    """A stage failed while the engine was running.

    Parameters
    ----------
    message : str
        One sentence.
    stage : str
        Name of the stage, for stages of a lane.
    """

    def __init__(self, message: str, stage: str = "") -> None:
        self.stage = stage
        super().__init__(message)


class DeviceError(NeurovocalError):
    """A sound device is missing, busy or does not support the request."""


class AudioFileError(NeurovocalError):
    """A recording is missing, empty or cannot be read."""


class Disconnected(NeurovocalError):  # noqa: N818 (a state, not a mistake)
    """The source has lost its device or connection; it may be opened again."""


class EndOfStream(Exception):  # noqa: N818 (control flow, like StopIteration)
    """The source has no more samples."""


class CommandError(NeurovocalError):
    """A command was refused; nothing has changed."""


class StartInterrupted(BaseException):
    """A signal asked the run to stop while it was still starting.

    Not an `Exception`: handlers of a library that is being loaded do not swallow it.
    """
