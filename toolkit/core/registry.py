"""Plugins as strings: nothing is imported until it is used.

A registry maps a kebab-case name to `module:attribute`, a class that is made without arguments.
Third parties add names through the registry's entry-point group, such as `toolkit.runtimes`.
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
from toolkit.core.siblings import ours

DISTRIBUTION = "inference-toolkit"

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """Where a plugin lies, and the distribution and its extra that install what it needs.

    `options` are pip's, for packages that are not on PyPI. `command` makes what pip cannot put
    beside the rest: an environment of its own.
    """

    target: str
    extra: str | None = None
    distribution: str = DISTRIBUTION
    command: str | None = None
    options: str | None = None

    @property
    def install(self) -> str:
        """The exact command that installs what the plugin needs."""
        if self.command is not None:
            return self.command
        extra = f"[{self.extra}]" if self.extra else ""
        options = f" {self.options}" if self.options else ""
        return f"pip install '{self.distribution}{extra}'{options}"


class Registry(Generic[T]):
    """The plugins of one kind by name; `group` is open to third parties, None is closed."""

    def __init__(self, kind: str, entries: Mapping[str, Entry], group: str | None = None) -> None:
        self.kind = kind
        self._group = group
        self._own = dict(entries)

    @functools.cached_property
    def entries(self) -> Mapping[str, Entry]:
        """The built-in plugins, then those of installed third parties.

        A third party's plugin with a built-in name is left out, with a ToolkitWarning. So are two
        third parties' plugins of one name, without a warning: `entry` raises for their name.
        """
        return {
            **self._own,
            **{name: found[0] for name, found in self._theirs.items() if len(found) == 1},
        }

    @functools.cached_property
    def _theirs(self) -> Mapping[str, list[Entry]]:
        """The plugins of third parties by name, without those with a built-in name."""
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

        Raise UnknownNameError, with the nearest name, for one that is not there, and PluginError
        for one that several third parties use.
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
        """Imports the plugin and makes it.

        Raises UnknownNameError for an unknown name, and UnavailableError, with the command that
        installs what is missing, when the import fails.
        """
        entry = self.entry(name)
        module, _, attribute = entry.target.partition(":")
        try:
            with ours():
                plugin: T = getattr(importlib.import_module(module), attribute)()
        except ToolkitError:
            raise
        except ImportError as error:
            raise UnavailableError(
                f"The {self.kind} {name!r} could not be imported: {error}.",
                hint=f"Install what it needs: {entry.install}",
            ) from error
        except Exception as error:  # what a vendor's package raises on import is not ours to list
            raise UnavailableError(
                f"The {self.kind} {name!r} failed on import: {type(error).__name__}: {error}.",
                hint=f"Repair its installation: {entry.install}",
            ) from error
        return plugin
