"""The applications that can be run, and the verbs of a server's applications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from attrs import frozen
from twisted.plugin import getPlugins

from pfsb.applications.interfaces import (
    BadRequest,
    Command,
    CommandDescription,
    IApplicationMaker,
    IReplicatedApplication,
)
from pfsb.support.spelling import nearest


def find_applications(names: Sequence[str]) -> list[IReplicatedApplication]:
    """Build the applications of these names, in this order. Each application is found as a plugin of Twisted.

    Raises `BadRequest` for a name without a plugin or with several, and for an application that cannot be imported.
    """
    makers: dict[str, list[IApplicationMaker]] = {}
    for maker in getPlugins(IApplicationMaker):
        makers.setdefault(maker.name, []).append(maker)
    return [_make(name, makers) for name in names]


def _make(name: str, makers: Mapping[str, Sequence[IApplicationMaker]]) -> IReplicatedApplication:
    found = makers.get(name, ())
    if not found:
        raise BadRequest(f'there is no application "{name}"; known are {", ".join(sorted(makers))}')
    if len(found) > 1:
        raise BadRequest(f'{len(found)} plugins are named "{name}"; each application needs a name of its own')
    try:
        return found[0].make()
    except (ImportError, AttributeError, ValueError) as error:  # namedAny raises these for a wrong name
        raise BadRequest(f'the application "{name}" cannot be loaded: {error}') from error


@frozen
class CatalogueEntry:
    """A verb of the catalogue: its application and its description."""

    application: IReplicatedApplication
    description: CommandDescription


class Catalogue:
    """The verbs of a server's applications."""

    def __init__(self, applications: Iterable[IReplicatedApplication]) -> None:
        """Collect the verbs of these applications. Raises `BadRequest` if two of them have a verb in common."""
        self.applications = tuple(applications)
        entries: dict[str, CatalogueEntry] = {}
        for application in self.applications:
            for description in application.commands:
                if other := entries.get(description.verb):
                    raise BadRequest(
                        f"the applications {other.application.name} and {application.name} both have the verb "
                        f"{description.verb}; they cannot run in one server"
                    )
                entries[description.verb] = CatalogueEntry(application, description)
        self.verbs: Mapping[str, CatalogueEntry] = MappingProxyType(entries)

    def entry(self, verb: str) -> CatalogueEntry:
        """The entry of `verb`, in upper or lower case. Raises `BadRequest` (UNKNOWN), which names the nearest verb."""
        try:
            return self.verbs[verb.upper()]
        except KeyError:
            raise BadRequest(f"unknown verb {verb.upper()}; {nearest(verb.upper(), self.verbs)}", "UNKNOWN") from None

    def check(self, parts: tuple[str, ...]) -> Command:
        """Normalise a command (verb, argument, ...) by the `check` of the application that has the verb.

        Raises `BadRequest` if no application has it, or the command is wrong.
        """
        if not parts:
            raise BadRequest("a verb is missing (example: HELP)")
        entry = self.verbs.get(parts[0])
        if entry is None:
            entry, parts = self.entry(parts[0]), (parts[0].upper(), *parts[1:])
        return entry.application.check(parts)
