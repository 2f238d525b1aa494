"""OrderedSettings: the settings of the cluster as a replicated application, with the verbs SETTINGS and SETTINGS SET.

Slot 1 of every cluster gives birth to the settings (Departure 34). Each server has it ordered which applications,
versions and rules it can run (ANNOUNCE), so that a change which some member could not follow is refused, equally on
every server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgpack
from attrs import evolve, frozen
from zope.interface import implementer

from pfsb.applications.application import Application, Verb
from pfsb.applications.arguments import Arguments
from pfsb.applications.catalogue import InstalledApplications
from pfsb.applications.interfaces import (
    BadRequest,
    Command,
    CommandDescription,
    Done,
    Fields,
    IContext,
    IReplicatedApplication,
    Refused,
    Result,
    Word,
)
from pfsb.applications.names import APPLICATION_CHARACTERS_MAX
from pfsb.paxos.members import Members, WrongMembers, decode_members, why_no_successor
from pfsb.sessions.cluster_settings import (
    APPLICATIONS_MAX,
    BIRTH_BYTES_MAX,
    HORIZON_MIN,
    RULES_KNOWN,
    RULES_OF_EPOCHS,
    VERSION_MAX,
    ClusterSettings,
    WrongSetting,
)
from pfsb.support.rights import Right

SHOW, SET = "SETTINGS", "SETTINGS SET"

PLACE_CHARACTERS_MAX = 300
"""Maximum number of characters of the address that a server announces to clients."""
VERSIONS_MAX = 64
"""Maximum number of versions of one application that a server can announce."""


@frozen
class Abilities:
    """Everything that one server is able to run."""

    apps: Mapping[str, tuple[int, ...]]
    """Name of each installed application -> the versions of it that the server can run."""
    rules: int = RULES_KNOWN
    """The latest version of the rules of execution that the server can follow."""
    client: str = ""
    """Where clients reach the server: host:port, tls://host:port, or the path of a unix socket; empty: not told."""

    def encode(self) -> bytes:
        """The abilities as bytes, which are equal for equal abilities. Without `client` they have the form that all
        versions of pfsb know."""
        apps = [(name, tuple(versions)) for name, versions in sorted(self.apps.items())]
        packed: bytes = msgpack.packb((self.rules, apps, self.client) if self.client else (self.rules, apps))
        return packed

    @classmethod
    def of(cls, versions: Mapping[str, Sequence[int]], rules: int = RULES_KNOWN) -> Abilities:
        """The abilities of a server with these versions of applications installed."""
        return cls({name: tuple(sorted(set(found))) for name, found in versions.items()}, rules)

    @classmethod
    def of_server(cls, installed: InstalledApplications) -> Abilities:
        """The abilities of a server that has these applications installed. A test may install applications that say by
        an attribute `rules` which rules of execution their server can follow."""
        return cls.of(installed.versions, getattr(installed, "rules", RULES_KNOWN))

    @classmethod
    def decode(cls, data: bytes) -> Abilities:
        """The abilities in bytes that `encode` has made. Raises `WrongSetting`, and nothing else, for all other
        bytes."""
        try:
            rules, apps, *client = msgpack.unpackb(data, use_list=False)
            found = dict(apps)
            (place,) = client or [""]
        except Exception as error:
            raise WrongSetting(f"{len(data)} bytes that are no abilities") from error
        if not _is_version(rules) or len(found) > APPLICATIONS_MAX or not all(map(_is_app, found.items())):
            raise WrongSetting("abilities of another shape than this version of pfsb has")
        if client and not is_place(place):
            raise WrongSetting("abilities of another shape than this version of pfsb has")
        return cls(found, rules, place)

    def lacks(self, settings: ClusterSettings) -> list[str]:
        """The things that `settings` ask for and this server cannot run, in words."""
        missing = [
            f"{name} version {version}" for name, version in settings.apps if version not in self.apps.get(name, ())
        ]
        return missing if settings.rules <= self.rules else [*missing, f"rules version {settings.rules}"]


def _is_version(value: object) -> bool:
    return type(value) is int and 1 <= value <= VERSION_MAX


def is_place(place: object) -> bool:
    """Whether a server can announce this as the place where clients reach it."""
    return type(place) is str and 0 < len(place) <= PLACE_CHARACTERS_MAX and place.isprintable()


def _is_app(item: tuple[object, object]) -> bool:
    name, versions = item
    is_name = type(name) is str and len(name) <= APPLICATION_CHARACTERS_MAX
    return is_name and type(versions) is tuple and len(versions) <= VERSIONS_MAX and all(map(_is_version, versions))


@implementer(IReplicatedApplication)
class OrderedSettings(Application):
    """The settings in force, and what each server has announced that it can run."""

    name = "settings"
    version = 1
    commands: Sequence[CommandDescription] = (
        CommandDescription(SHOW, "SETTINGS", "Show the settings that all servers share.", changes=False),
        CommandDescription(
            SET,
            "SETTINGS SET name=value...",
            "Change settings that all servers share.",
            shrinks=True,
            right=Right.ADMIN,
        ),
    )

    def __init__(self, values: ClusterSettings | None = None) -> None:
        """`values` are the first settings, if the cluster is born already; None: slot 1 brings them."""
        self._values = values
        self.horizon_min = HORIZON_MIN
        """Minimum that users may choose for the setting `horizon`. The simulator lowers it at all servers alike."""
        self.announced: dict[int, Abilities] = {}
        """Server id -> the abilities that it has announced last."""
        self._members: Members | None = None
        self.places_changed = 0
        """How often this server has executed a change of the servers of the cluster, or of where clients reach one."""
        self.on_members: Callable[[Members], None] = lambda members: None
        """Called inside execution with the servers of the next epoch of the membership (Departure 60)."""
        self.on_change: Callable[[ClusterSettings], None] = lambda values: None
        """Called inside execution with the settings that are to be in force, at their birth and at each change.

        It raises `BadRequest`, equally on every server, for applications that cannot run together.
        """
        super().__init__(
            {SHOW: Verb(_check_show, (str,), self._show), SET: Verb(_check_set, (str, str, ...), self._set)}
        )

    @property
    def values(self) -> ClusterSettings:
        """The settings in force. They may be asked for once `is_born`."""
        assert self._values is not None, "slot 1 is not executed, so there are no settings yet"
        return self._values

    @property
    def is_born(self) -> bool:
        """Whether the settings are there: slot 1 is executed."""
        return self._values is not None

    @property
    def members(self) -> Members:
        """The servers of the present epoch, as far as slots are executed. They may be asked for once `is_born`."""
        return Members(self.values.members) if self._members is None else self._members

    @property
    def later_members(self) -> Members | None:
        """The servers of the present epoch if a change has brought them; None: the founding servers are there."""
        return self._members

    def shown(self) -> dict[str, int | str]:
        """All values by name, as SETTINGS and STATUS show them, with the servers of the present epoch as `members`."""
        return {**self.values.shown(), "members": ",".join(map(str, self.members.ids))}

    # ------------------------------------------------------------------ operations of the servers

    def give_birth(self, data: object) -> Result:
        """Execute BIRTH: put the encoded settings `data` in force as the first ones. Settings that exist already are
        never replaced."""
        if self._values is not None:
            return Refused("BADREQUEST", "the cluster has its settings already")
        if type(data) is not bytes:
            return Refused("BADREQUEST", "settings must be bytes")
        try:
            values = ClusterSettings.decode(data)
        except WrongSetting as error:
            return Refused("BADREQUEST", str(error))
        self.adopt(values)
        return Done()

    def announce(self, server_id: int, data: object) -> Result:
        """Execute ANNOUNCE: store the encoded abilities `data` of a server, in place of those that it has announced
        before."""
        if type(data) is not bytes or server_id not in self.members.ids:
            return Refused("BADREQUEST", "only a member announces what it can run, as bytes")
        try:
            found = Abilities.decode(data)
            if found.client and self.values.rules < RULES_OF_EPOCHS:
                raise WrongSetting(f"{len(data)} bytes that are no abilities")  # as in versions without these rules
        except WrongSetting as error:
            return Refused("BADREQUEST", str(error))
        self.places_changed += found.client != self.place_of(server_id)
        self.announced[server_id] = found
        return Done()

    def place_of(self, server_id: int) -> str:
        """Where clients reach a server, as it has announced last; empty: it has not told."""
        announced = self.announced.get(server_id)
        return "" if announced is None else announced.client

    def change_members(self, seq: int, data: object) -> Result:
        """Execute EPOCH in slot `seq`: end the present epoch, if the encoded members `data` are made for the epoch
        after it. A change that was made for another one, or that names wrong servers, changes nothing."""
        if type(data) is not bytes:
            return Refused("BADREQUEST", "members must be bytes")
        try:
            following = decode_members(data)
        except WrongMembers as error:
            return Refused("BADREQUEST", str(error))
        why_not = why_no_successor(self.members, following)
        if why_not is not None:
            return Refused("CONFLICT", why_not)
        self._members = evolve(following, since=seq)
        self.announced = {i: each for i, each in self.announced.items() if i in following.ids}
        self.places_changed += 1
        self.on_members(self._members)
        return Done((("epoch", following.epoch),))

    # ------------------------------------------------------------------ commands of users

    def _show(self, command: Command) -> Result:
        if not self.is_born:
            return Refused("BUSY", "the cluster has no settings yet: no leader was elected since it was made")
        return Done(rows=rows(self.shown()))

    def _set(self, command: Command, context: IContext) -> Result:
        """Change all settings that the command names, or none."""
        try:
            values = self.values.change(dict(_pair(part) for part in command[1:]), self.horizon_min)
        except WrongSetting as error:
            return Refused("BADREQUEST", f"{error}; no setting was changed")
        refusal = self._unable(values)
        if refusal is not None:
            return refusal
        try:
            self.adopt(values)
        except BadRequest as error:
            return Refused("CONFLICT", f"{error}; no setting was changed")
        return Done((("revision", context.revision),))

    def _unable(self, values: ClusterSettings) -> Refused | None:
        """The refusal of these settings if a member cannot run them, or has not announced yet what it can run
        (ANNOUNCE); None if every member can run them."""
        silent = [i for i in self.members.ids if i not in self.announced]
        if silent:
            names = ", ".join(map(str, silent))
            return Refused("CONFLICT", f"not announced yet what they can run: server {names}; no setting was changed")
        for server_id in self.members.ids:
            lacking = self.announced[server_id].lacks(values)
            if lacking:
                return Refused(
                    "CONFLICT",
                    f"server {server_id} cannot run {', '.join(lacking)}: install it there first; nothing was changed",
                )
        return None

    def adopt(self, values: ClusterSettings) -> None:
        """Call `on_change` with these settings, and put them in force. If `on_change` raises, the former settings stay
        in force."""
        self.on_change(values)
        self._values = values

    def put(
        self, values: ClusterSettings | None, announced: dict[int, Abilities], members: Members | None = None
    ) -> None:
        """Put the settings of a snapshot in force. `on_change` is not called: the whole state comes from the
        snapshot."""
        self._values, self.announced, self._members = values, announced, members
        self.places_changed += 1

    # ------------------------------------------------------------------ snapshots

    def snapshot(self) -> bytes:
        """The state as msgpack: (settings, [(server id, abilities), ...])."""
        announced = [(i, each.encode()) for i, each in sorted(self.announced.items())]
        packed: bytes = msgpack.packb((self.values.encode(), announced))
        return packed

    def restore(self, data: bytes) -> None:
        values, announced = msgpack.unpackb(data, use_list=False)
        self.announced = {server_id: Abilities.decode(abilities) for server_id, abilities in announced}
        self.adopt(ClusterSettings.decode(values))


def rows(shown: Mapping[str, int | str]) -> tuple[Fields, ...]:
    """The rows of SETTINGS: one for each setting."""
    return tuple(
        (("name", Word(name)), ("value", Word(value) if isinstance(value, str) else value))
        for name, value in shown.items()
    )


def _pair(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise WrongSetting(f"{part[:40]!r} must be name=value (example: session_window=64)")
    return name, value


def _check_show(asked: Arguments) -> Command:
    """Check a line with the verb SETTINGS. The normalised command shows the settings, or changes some if the next word
    is SET."""
    words = asked.words(0, APPLICATIONS_MAX, has_any_option=True)
    if not words:
        return (SHOW,)
    if words[0].upper() != "SET":
        raise asked.refused("SETTINGS alone shows the settings, SETTINGS SET name=value changes some")
    return _checked_changes(asked, words[1:])


def _check_set(asked: Arguments) -> Command:
    return _checked_changes(asked, asked.words(1, APPLICATIONS_MAX, has_any_option=True))


def _checked_changes(asked: Arguments, words: Sequence[str]) -> Command:
    if not words:
        raise asked.refused("which setting, and to which value? (example: SETTINGS SET session_window=64)")
    changes = [asked.text(word, "setting", BIRTH_BYTES_MAX) for word in words]
    names: list[str] = []
    for change in changes:
        try:
            names.append(_pair(change)[0])
        except WrongSetting as error:
            raise asked.refused(str(error)) from error
    for name in names:
        if names.count(name) > 1:
            raise asked.refused(f"{name} is there twice")
    return (SET, *changes)
