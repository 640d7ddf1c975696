"""Registry of plugins: lookup by kind and name, importing only the plugin asked for."""

import importlib.util
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from neurovocal.engine.contracts.errors import PluginError
from neurovocal.engine.contracts.plugin import GROUPS, Kind, Plugin
from neurovocal.engine.contracts.stages import API_VERSION
from neurovocal.engine.support.names import at_home


class Registry:
    """Index of installed plugins by kind and name; also loads ``file.py:plugin``.

    Parameters
    ----------
    extra : mapping, optional
        ``{(kind, name): plugin}`` in addition to the installed ones (tests).
    """

    def __init__(
        self, extra: Mapping[tuple[Kind, str], Plugin[Any]] | None = None
    ) -> None:
        self._extra = dict(extra or {})
        self._points: dict[tuple[Kind, str], list[EntryPoint]] = {}
        installed = entry_points()  # each call reads the files of all distributions
        for kind, group in GROUPS.items():
            for point in installed.select(group=group):
                self._points.setdefault((kind, point.name), []).append(point)

    def names(self, kind: Kind) -> list[str]:
        """Return the sorted names of all plugins of a kind, without importing them."""
        keys = [*self._points, *self._extra]
        return sorted({name for k, name in keys if k == kind})

    def origin(self, kind: Kind, name: str) -> str:
        """Return the name of the distribution that a plugin comes from."""
        points = self._points.get((kind, name))
        dist = points[0].dist if points else None
        return dist.name if dist else "local"

    def get(self, kind: Kind, name: str, base: Path | None = None) -> Plugin[Any]:
        """Import a plugin and check its kind and API version.

        Parameters
        ----------
        kind : str
            Kind that the plugin must have.
        name : str
            Name of an installed plugin, or ``path/to/file.py:attribute``.
        base : Path, optional
            Folder that a relative ``file.py`` starts from.

        Raises
        ------
        PluginError
            The name is unknown or claimed by two distributions, or the plugin cannot
            be imported, is of another kind or was written for another API version.
        """
        if ".py:" in name:
            plugin = _load_file(name, base or Path.cwd())
        elif (kind, name) in self._extra:
            plugin = self._extra[kind, name]
        else:
            plugin = self._load_point(kind, name)
        if not isinstance(plugin, Plugin):
            raise PluginError(f"{kind} '{name}' is not a neurovocal Plugin object")
        if plugin.kind != kind:
            raise PluginError(f"'{name}' is a {plugin.kind} plugin, not a {kind}")
        if plugin.api != API_VERSION:
            raise PluginError(
                f"{kind} '{name}' was written for plugin API {plugin.api}, this "
                f"engine has {API_VERSION}: install a matching version of it"
            )
        return plugin

    def _load_point(self, kind: Kind, name: str) -> Any:
        points = self._points.get((kind, name), [])
        if not points:
            raise PluginError(
                f"unknown {kind} plugin '{name}' ({self._hint(kind, name)})"
            )
        if len(points) > 1:
            owners = " and ".join(p.dist.name if p.dist else "?" for p in points)
            raise PluginError(
                f"{kind} plugin '{name}' is claimed by {owners}: uninstall one"
            )
        try:
            return points[0].load()
        except Exception as error:  # the import may raise anything
            raise PluginError(f"{kind} '{name}' cannot be loaded: {error}") from error

    def _hint(self, kind: Kind, name: str) -> str:
        known = self.names(kind)
        if close := get_close_matches(name, known, n=1):
            return f"did you mean '{close[0]}'?"
        for other in GROUPS:
            if name in self.names(other):
                return f"it is a {other} plugin"
        return f"known: {', '.join(known)}" if known else "none is installed"


def _load_file(name: str, base: Path) -> Any:
    """Load ``file.py:attribute``, once per file: modules are cached by full path."""
    filename, _, attribute = name.rpartition(":")
    path = at_home(filename)
    path = path if path.is_absolute() or path.exists() else base / path
    if not path.is_file():
        raise PluginError(f"plugin file '{path}' does not exist")
    module_name = f"neurovocal_local_{path.resolve().as_posix()}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise PluginError(f"plugin file '{path}' cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise PluginError(f"plugin file '{path}' fails: {error!r}") from error
    if not hasattr(module, attribute):
        raise PluginError(f"plugin file '{path}' has no '{attribute}'")
    return getattr(module, attribute)
