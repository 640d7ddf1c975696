"""Copy the demo's recording, annotations and configuration into a folder."""

from importlib.resources import files
from pathlib import Path

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.outputs import write_whole

_NAMES = (
    "demo.yaml",
    "recordings/annotations.csv",
    "recordings/bengalese-finch.flac",
)


def copy_demo(folder: Path) -> list[Path]:
    """Copy the demo's files into a folder, so that they can be changed and used.

    Files that are there already, with the same content, stay.

    Returns
    -------
    list of Path
        The files, the configuration first.

    Raises
    ------
    ConfigError
        A file of the same name is another one, or the folder cannot be written to.
    """
    source = files("neurovocal.configs")
    contents = {folder / name: source.joinpath(name).read_bytes() for name in _NAMES}
    try:
        for path, content in contents.items():
            if path.exists() and path.read_bytes() != content:
                raise ConfigError(
                    f"'{path}' exists and is not the demo's: name another folder"
                )
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_whole(path, content)
    except OSError as error:
        raise ConfigError(f"--files {folder}: {error.strerror or error}") from error
    return list(contents)
