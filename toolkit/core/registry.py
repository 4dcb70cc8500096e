"""Registries of plugins, which are named by strings and imported only when they are used.

A registry maps a kebab-case name to `module:attribute`, a class that is instantiated without
arguments. Other packages add names via the registry's entry-point group, such as
`toolkit.runtimes`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from toolkit.core.errors import (
    PluginError,
    ToolkitError,
    ToolkitWarning,
    UnavailableError,
    unknown_name,
)
from toolkit.core.import_isolation import toolkit_imports

DISTRIBUTION = "inference-toolkit"

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """Import path of a plugin, and how its dependencies are installed.

    `target` is `module:attribute`. The dependencies are those of `distribution` with `extra`;
    `options` are passed to pip, for packages that are not on PyPI. `command` replaces pip where the
    plugin needs a separate environment.
    """

    target: str
    extra: str | None = None
    distribution: str = DISTRIBUTION
    command: str | None = None
    options: str | None = None

    @property
    def install(self) -> str:
        """Command that installs the dependencies of the plugin."""
        if self.command is not None:
            return self.command
        extra = f"[{self.extra}]" if self.extra else ""
        options = f" {self.options}" if self.options else ""
        return f"pip install '{self.distribution}{extra}'{options}"


class Registry(Generic[T]):
    """Plugins of one kind by name.

    `group` is the entry-point group through which other packages add plugins, None if they cannot.
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry], group: str | None = None) -> None:
        self.kind = kind
        self._group = group
        self._own = dict(entries)

    @functools.cached_property
    def entries(self) -> Mapping[str, Entry]:
        """Built-in plugins, followed by those of other installed packages.

        A plugin of another package that has a built-in name is left out, with a ToolkitWarning
        unless it is the built-in plugin itself. Plugins of several packages that share a name are
        left out without a warning, since `entry` raises for that name.
        """
        return {
            **self._own,
            **{name: found[0] for name, found in self._theirs.items() if len(found) == 1},
        }

    @functools.cached_property
    def _theirs(self) -> Mapping[str, list[Entry]]:
        """Plugins of other packages by name, without those that have a built-in name."""
        found: dict[str, list[Entry]] = {}
        if self._group is None:
            return found
        for point in importlib.metadata.entry_points(group=self._group):
            maker = point.dist.name if point.dist else DISTRIBUTION
            if point.name not in self._own:
                entry = Entry(point.value, distribution=maker)
                found.setdefault(point.name, []).append(entry)
            elif point.value != self._own[point.name].target:
                warnings.warn(
                    f"The package {maker} brings a {self.kind} named {point.name!r} "
                    f"({point.value}), which is the name of a built-in one. The built-in one is "
                    f"used. Uninstall {maker}, or ask its maker for another name.",
                    ToolkitWarning,
                    stacklevel=2,
                )
        return found

    def names(self) -> list[str]:
        return list(self.entries)

    def entry(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises UnknownNameError, with the closest name, if there is none, and PluginError if several
        other packages use the name.
        """
        if len(several := self._theirs.get(name, [])) > 1:
            raise PluginError(
                f"Several installed packages bring a {self.kind} named {name!r}: "
                f"{', '.join(f'{one.distribution} ({one.target})' for one in several)}.",
                hint="Uninstall all of them but one.",
            )
        if name not in self.entries:
            raise unknown_name(self.kind, name, self.entries)
        return self.entries[name]

    def create(self, name: str) -> T:
        """Import the plugin and instantiate it.

        Raises the errors of `entry`, and UnavailableError, with the command that installs the
        dependencies, if the plugin cannot be imported or instantiated.
        """
        entry = self.entry(name)
        module, _, attribute = entry.target.partition(":")
        try:
            with toolkit_imports():
                plugin: T = getattr(importlib.import_module(module), attribute)()
        except ToolkitError:
            raise
        except ImportError as error:
            raise UnavailableError(
                f"The {self.kind} {name!r} could not be imported: {error}.",
                hint=f"Install what it needs: {entry.install}",
            ) from error
        except Exception as error:  # a package may raise anything on import
            raise UnavailableError(
                f"The {self.kind} {name!r} failed on import: {type(error).__name__}: {error}.",
                hint=f"Repair its installation: {entry.install}",
            ) from error
        return plugin
