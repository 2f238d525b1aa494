"""The applications that can be run, and the verbs of those that a server runs now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from attrs import field, frozen
from twisted.plugin import getPlugins

from pfsb.applications.admission import refuse_wrong_application
from pfsb.applications.interfaces import (
    BadRequest,
    Command,
    CommandDescription,
    IApplicationMaker,
    IReplicatedApplication,
)
from pfsb.applications.names import APPLICATION_CHARACTERS_MAX, is_application_name, is_verb
from pfsb.support.spelling import nearest


class InstalledApplications(Protocol):
    """The applications that a server is able to run."""

    @property
    def versions(self) -> Mapping[str, Sequence[int]]:
        """Name of each application -> the versions of it that can be made."""

    def make(self, name: str, version: int) -> IReplicatedApplication:
        """An application with its first state. Raises `BadRequest` for one that is not installed."""


def version_of(application: IReplicatedApplication) -> int:
    """The version of an application. An application without the attribute `version` never had another version than
    1."""
    version: int = getattr(application, "version", 1)
    return version


def _versions(maker: IApplicationMaker) -> Sequence[int]:
    versions: Sequence[int] = getattr(maker, "versions", (1,))
    return versions


_admitted: Final[dict[type, set[int]]] = {}
"""Class of an application -> those of its versions that were found right; they are not tried again."""


@frozen
class PluginApplications:
    """The applications that Twisted finds as plugins."""

    _makers: Mapping[str, Sequence[IApplicationMaker]] = field(init=False)

    @_makers.default
    def _find_makers(self) -> Mapping[str, Sequence[IApplicationMaker]]:
        makers: dict[str, list[IApplicationMaker]] = {}
        for maker in getPlugins(IApplicationMaker):
            makers.setdefault(maker.name, []).append(maker)
        return makers

    @property
    def versions(self) -> Mapping[str, Sequence[int]]:
        return {name: _versions(found[0]) for name, found in self._makers.items() if len(found) == 1}

    def latest(self, name: str) -> tuple[str, int]:
        """(name, latest version) of an application. Raises `BadRequest` for a name without a plugin or with several."""
        return name, max(_versions(self._maker(name)))

    def make(self, name: str, version: int) -> IReplicatedApplication:
        """An application with its first state. Raises `BadRequest` for one that is not installed, cannot be imported,
        or is none (`pfsb.applications.admission`)."""
        made = self._make(name, version)
        if (own := getattr(made, "name", name)) != name:
            # Its state would be lost at the next change of settings, which looks for it under the name of the plugin.
            raise BadRequest(f'the plugin "{name}" makes an application that is named {own!r:.80}: they must be equal')
        admitted = _admitted.setdefault(type(made), set())
        if version not in admitted:
            refuse_wrong_application(made, lambda: self._make(name, version))
            admitted.add(version)
        return made

    def _make(self, name: str, version: int) -> IReplicatedApplication:
        maker = self._maker(name)
        if version not in _versions(maker):
            known = ", ".join(map(str, _versions(maker)))
            raise BadRequest(f'the application "{name}" has no version {version} here; there is {known}')
        make_version: Callable[..., IReplicatedApplication] = maker.make
        try:
            return make_version(version) if hasattr(maker, "versions") else make_version()
        except (ImportError, AttributeError, ValueError, AssertionError, TypeError) as error:
            # namedAny raises some of these for a wrong name, and `Application` for descriptions that fit no verb.
            raise BadRequest(f'the application "{name}" cannot be loaded: {error}') from error

    def _maker(self, name: str) -> IApplicationMaker:
        found = self._makers.get(name, ())
        if not found:
            raise BadRequest(f'there is no application "{name}"; known are {", ".join(sorted(self._makers))}')
        if len(found) > 1:
            raise BadRequest(f'{len(found)} plugins are named "{name}"; each application needs a name of its own')
        return found[0]


@frozen
class GivenApplications:
    """Applications that the caller has made itself: a test, or a program that brings an application of its own."""

    _given: Mapping[str, IReplicatedApplication]

    @classmethod
    def of(cls, applications: Iterable[IReplicatedApplication]) -> GivenApplications:
        return cls({application.name: application for application in applications})

    @property
    def versions(self) -> Mapping[str, Sequence[int]]:
        return {name: (version_of(application),) for name, application in self._given.items()}

    def make(self, name: str, version: int) -> IReplicatedApplication:
        """The given object itself, if it has this name and version: so the object can be used once, at the birth of its
        cluster.

        Raises `BadRequest` if there is no such object.
        """
        application = self._given.get(name)
        if application is None or version_of(application) != version:
            raise BadRequest(f'there is no application "{name}" version {version}')
        return application


@frozen
class CatalogueEntry:
    """A verb of the catalogue: its application and its description."""

    application: IReplicatedApplication
    description: CommandDescription


def refuse_wrong_names(application: IReplicatedApplication) -> None:
    """Raise `BadRequest` with one line if an application, one of its verbs, or the help for it cannot be printed."""
    if not is_application_name(application.name):
        raise BadRequest(
            f"an application is named {application.name!r:.80}, and cannot run: a name has 1 to "
            f"{APPLICATION_CHARACTERS_MAX} letters, digits and _, and does not begin with a digit"
        )
    for description in application.commands:
        if not is_verb(description.verb):
            raise BadRequest(
                f"the application {application.name} has the verb {description.verb!r:.80}, and cannot run: a verb has "
                "1 to 32 capital letters, digits, _ and -, and begins with a letter"
            )
        for what, text in (("usage", description.usage), ("help", description.help)):
            if not (isinstance(text, str) and text.isprintable()):
                raise BadRequest(
                    f"the application {application.name} has a {what} of {description.verb} that is not one line of "
                    f"printable characters, and cannot run: {text!r:.80}"
                )


class Catalogue:
    """The applications that a server runs now, and their verbs.

    A setting of the cluster says which applications run. Until slot 1 is executed, the catalogue has the applications
    of the configuration, so that commands can be checked; `switch` replaces them. A reader that keeps something made of
    a catalogue is told of each switch (`watch`), or compares `edition` when it needs that thing.
    """

    def __init__(
        self, applications: Iterable[IReplicatedApplication], installed: InstalledApplications | None = None
    ) -> None:
        """`installed` makes further applications; None: there are none but `applications`.

        Raises `BadRequest` if two of the applications have a verb in common, or one has a name, or a verb, that cannot
        be a word of a line (`pfsb.applications.names`).
        """
        given = self._given = tuple(applications)
        self.installed: InstalledApplications = GivenApplications.of(given) if installed is None else installed
        self._watchers: list[Callable[[], None]] = []
        self._built_in: tuple[IReplicatedApplication, ...] = ()
        self._fill(given)

    def include(self, application: IReplicatedApplication) -> None:
        """Add an application that always runs, also after each `switch`. Raises `BadRequest` if it has a verb that
        another application has."""
        self._built_in = (*self._built_in, application)
        self._fill(self.applications)

    def watch(self, switched: Callable[[], None]) -> None:
        """Have `switched` called after each switch, inside execution: it may read the catalogue, and nothing more."""
        self._watchers.append(switched)

    def switch(self, applications: Iterable[IReplicatedApplication]) -> None:
        """Run these applications from now on, beside those that always run (`include`).

        Raises `BadRequest` if two of them have a verb in common; then the applications that ran before go on.
        """
        self._fill(tuple(applications))
        for switched in self._watchers:
            switched()

    def _fill(self, applications: Sequence[IReplicatedApplication]) -> None:
        chosen = self._without_built_in(applications)
        verbs = self._verbs_of(chosen)
        self.applications: Sequence[IReplicatedApplication] = (*chosen, *self._built_in)
        self.verbs: Mapping[str, CatalogueEntry] = MappingProxyType(verbs)

    def _without_built_in(self, applications: Iterable[IReplicatedApplication]) -> tuple[IReplicatedApplication, ...]:
        return tuple(application for application in applications if application not in self._built_in)

    def require_fitting(self, applications: Iterable[IReplicatedApplication]) -> None:
        """Raise the `BadRequest` that `switch` to these applications would raise."""
        self._verbs_of(self._without_built_in(applications))

    def _verbs_of(self, chosen: Iterable[IReplicatedApplication]) -> dict[str, CatalogueEntry]:
        entries: dict[str, CatalogueEntry] = {}
        for application in chosen:
            refuse_wrong_names(application)
        for application in (*chosen, *self._built_in):
            for description in application.commands:
                if other := entries.get(description.verb):
                    raise BadRequest(
                        f"the applications {other.application.name} and {application.name} both have the verb "
                        f"{description.verb}; they cannot run in one server"
                    )
                entries[description.verb] = CatalogueEntry(application, description)
        return entries

    @property
    def chosen(self) -> Sequence[IReplicatedApplication]:
        """The applications that run since the last `switch`, without those that always run (`include`)."""
        return self.applications[: len(self.applications) - len(self._built_in)]

    def is_present(self, application: IReplicatedApplication) -> bool:
        """Whether an application runs now, or is one that the catalogue was made of. If `installed` gives it once more,
        its state is the one that this server has, or begins with."""
        return any(each is application for each in (*self.applications, *self._given))

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


def catalogue_of_plugins(names: Sequence[str]) -> Catalogue:
    """The catalogue that runs the latest versions of these plugins, and can be switched to all others.

    Raises `BadRequest` for a name without a plugin or with several, and for an application that cannot be imported.
    """
    plugins = PluginApplications()
    return Catalogue([plugins.make(*plugins.latest(name)) for name in names], plugins)
