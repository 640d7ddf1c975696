"""Every error that NeuroVocal raises on purpose.

A message is one sentence that says what is wrong and what to do; the command
line prints it without a traceback and exits with the error's ``exit_code``.
"""

from collections.abc import Sequence

EXIT_CLEAN = 0
EXIT_CONFIG = 1
EXIT_RUNTIME = 2
EXIT_LOSS = 3


class NeurovocalError(Exception):
    """Base of all errors that are meant for the user."""

    exit_code = EXIT_RUNTIME


class ConfigError(NeurovocalError):
    """The configuration, the arguments or a file they name is wrong.

    Parameters
    ----------
    problems : sequence of str
        All mistakes that were found, one sentence each.
    """

    exit_code = EXIT_CONFIG

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class PluginError(ConfigError):
    """A plugin cannot be found, loaded or trusted."""


class BundleError(ConfigError):
    """A model bundle is missing, damaged or does not fit what it is used for."""


class TransientProblem(str):
    """A problem that a plugin's check finds and that may pass by itself.

    Such as a sound card that is not plugged in: as long as it is all that is wrong,
    the exit code says that starting again may help.
    """


class StageError(NeurovocalError):
    """A stage failed while the engine was running.

    Parameters
    ----------
    message : str
        One sentence.
    stage : str
        Name of the lane's stage, where it was one of those.
    """

    def __init__(self, message: str, stage: str = "") -> None:
        self.stage = stage
        super().__init__(message)


class DeviceError(NeurovocalError):
    """A sound device is missing, busy or cannot do what was asked."""


class AudioFileError(NeurovocalError):
    """A recording is missing, empty or cannot be read."""


class Disconnected(NeurovocalError):  # noqa: N818 (a state, not a mistake)
    """The source lost its device or connection; opening it again may help."""


class EndOfStream(Exception):  # noqa: N818 (control flow, like StopIteration)
    """The source has no more samples and never will."""


class CommandError(NeurovocalError):
    """A command was refused; nothing has changed."""


class StartInterrupted(BaseException):
    """A signal asked the run to stop while it was still starting.

    Not an `Exception`: handlers of a library that is being loaded do not swallow it.
    """
