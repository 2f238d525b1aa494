"""ClusterSettings: the values that decide results, and that all servers therefore take from the log (Departure 34).

The first slot of every cluster holds them. A value in a server's configuration file counts only at the birth of the
cluster, in the file of its first leader. Limits that only bound what one machine spends, such as its number of
connections, are not here: they stay in the file (docs/operating.rst has both lists).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgpack
from attrs import Attribute, evolve, field, fields, frozen

from pfsb.applications.arguments import value_bytes_max
from pfsb.applications.names import is_application_name
from pfsb.support.limits import IDENTITY_BYTES, SERVER_ID_MAX, WINDOW_MAX
from pfsb.support.spelling import nearest

RULES_KNOWN: Final = 2
"""The latest version of the rules by which commands are executed that this server can follow; it can follow all earlier
versions, too. A change of how commands are executed raises this number if pfsb was released with the former rules: then
the code for the former rules must stay, for clusters whose setting `rules` names them."""
RULES_OF_EPOCHS: Final = 2
"""The first version of the rules by which the operation EPOCH, a change of the membership, is executed, and by which an
ANNOUNCE may tell where clients reach its server."""

APPLICATIONS_MAX: Final = 64
VERSION_MAX: Final = 1_000_000
BIRTH_BYTES_MAX: Final = 16_384
"""Maximum size, in bytes, of encoded settings."""

HORIZON_MIN: Final = 10_000
"""Minimum that a user may choose for the setting `horizon`, in slots. An update that is ordered more than `horizon`
slots after it was made does not run. With a horizon of a few slots, hardly any update would run in a busy cluster, not
even the one that raises the horizon."""

IDENTITY: Final = "cluster_identity"


class WrongSetting(ValueError):
    """Raised for a setting with an impossible name or value, and for bytes that are no settings. The text says what is
    wrong."""


@frozen
class Range:
    """The whole numbers that a setting may have, both ends included, and one line of help."""

    least: int
    most: int
    help: str


def _number(default: int, least: int, most: int, text: str) -> Any:
    return field(default=default, metadata={"range": Range(least, most, text)})


@frozen
class ClusterSettings:
    """A value for each setting of a cluster. Settings that the configuration file has, too, have the same names
    there."""

    members: tuple[int, ...]
    """Ids of the founding servers, ascending."""
    apps: tuple[tuple[str, int], ...]
    """(name, version) of each application that runs. In this order applications are told that time has passed, or that
    a session has ended."""
    cluster_identity: bytes = bytes(IDENTITY_BYTES)
    """Random bytes, drawn at the birth of the cluster, that tell it from any other cluster of the same name."""
    rules: int = _number(1, 1, RULES_KNOWN, "version of the rules of execution")
    session_window: int = _number(
        128, 1, 10_000, "unanswered commands of one session, and replies that are kept for it"
    )
    window: int = _number(16, 1, WINDOW_MAX, "proposals under way at once")
    horizon: int = _number(100_000, HORIZON_MIN, 1_000_000_000, "slots for which a client's update is valid")
    # Quotas (`pfsb.applications.interfaces.Quotas`): all sizes are in bytes of UTF-8, which are equal on all machines.
    value_bytes: int = _number(value_bytes_max, 1, value_bytes_max, "bytes of one value, and of one text in the chat")
    kv_bytes: int = _number(2**30, 1, 2**50, "bytes of all keys and values together")
    chat_bytes: int = _number(
        2**28, 1, 2**50, "bytes of all lines of the chat, and of the names of those who said them"
    )
    instance_bytes: int = _number(2**30, 1, 2**50, "bytes of all decided instances, each counted 64 larger than it is")
    session_locks: int = _number(10_000, 1, 10**6, "locks that one session may hold or wait for")
    session_waits: int = _number(10_000, 1, 10_000, "commands of one session that may wait (LOCK)")
    sessions: int = _number(100_000, 1, 10**8, "open sessions of all clients")
    reply_cache_bytes: int = _number(2**20, 1, 2**40, "bytes of the answers that are kept for one session")
    replies_bytes: int = _number(2**28, 1, 2**50, "bytes of the answers that are kept for all sessions together")

    def encode(self) -> bytes:
        """The settings as bytes, which are equal on every server: pairs of name and value, in the order of the names.

        A setting that is in `_ADDED` is left out while it has its default, and `decode` puts the default in. So the
        settings of a cluster that is older than such a setting keep their encoding until the setting is changed.
        """
        values = [(name, getattr(self, name)) for name in sorted(_NAMES)]
        packed: bytes = msgpack.packb([(name, value) for name, value in values if value != _ADDED.get(name)])
        return packed

    @classmethod
    def decode(cls, data: bytes) -> ClusterSettings:
        """The settings in bytes that `encode` has made. Raises `WrongSetting`, and nothing else, for bytes without
        valid settings."""
        try:
            values = dict(msgpack.unpackb(data, use_list=False))
        except Exception as error:
            raise WrongSetting(f"{len(data)} bytes that are no settings") from error
        if len(data) > BIRTH_BYTES_MAX or not _NAMES - _ADDED.keys() <= set(values) <= _NAMES:
            raise WrongSetting("settings with other names than this version of pfsb has")
        _check_members(values["members"])
        _check_apps(values["apps"])
        if type(values[IDENTITY]) is not bytes or len(values[IDENTITY]) != IDENTITY_BYTES:
            raise WrongSetting(f"{IDENTITY} must be {IDENTITY_BYTES} bytes")
        for name in RANGES:
            # The least value that users may choose is not asked for: it may rise from one version of the server to the
            # next, and what has been ordered must stay readable.
            _check_number(name, values.get(name, RANGES[name].least), 1)
        return cls(**values)

    def change(self, values: Mapping[str, str], horizon_min: int = HORIZON_MIN) -> ClusterSettings:
        """New settings: these ones with the changes in `values`, which has name -> value as text. Raises `WrongSetting`
        for a wrong name or value, such as a horizon below `horizon_min`."""
        return evolve(self, **{name: parse(name, text, horizon_min) for name, text in values.items()})

    def shown(self) -> dict[str, int | str]:
        """All values by name, as SETTINGS and STATUS show them."""
        numbers: dict[str, int | str] = {name: getattr(self, name) for name in RANGES}
        return {
            "apps": ",".join(show_app(name, version) for name, version in self.apps),
            **numbers,
            "members": ",".join(map(str, self.members)),
            "cluster": self.cluster_identity.hex(),
        }


def show_app(name: str, version: int) -> str:
    """An application as a setting names it: `kv`, and `kv:2` if the version is not the first."""
    return name if version == 1 else f"{name}:{version}"


def parse(name: str, text: str, horizon_min: int = HORIZON_MIN) -> Any:
    """The value of the setting `name` in `text`, as a user has typed it. Raises `WrongSetting`; for a horizon below
    `horizon_min`, too."""
    if name == "apps":
        return _parse_apps(text)
    if name not in RANGES:
        raise WrongSetting(f"there is no setting {name} that can be changed; {nearest(name, (*RANGES, 'apps'))}")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise WrongSetting(f"{name} must be a whole number, not {text[:40]!r} (example: {name}={RANGES[name].least})")
    number = int(text)
    _check_number(name, number, horizon_min if name == "horizon" else RANGES[name].least)
    return number


def _check_number(name: str, value: object, least: int) -> None:
    """Raises `WrongSetting` unless `value` is an integer from `least` to the maximum of the setting `name`.

    The setting `rules` may be higher than `RULES_KNOWN`, the latest version that this server can follow: only a server
    that has to execute commands by these rules must be able to follow them.
    """
    most = VERSION_MAX if name == "rules" else RANGES[name].most
    if type(value) is not int or not least <= value <= most:
        raise WrongSetting(f"{name} must be from {least} to {most}, not {value!r:.40}")


def _parse_apps(text: str) -> tuple[tuple[str, int], ...]:
    apps = []
    for part in text.split(","):
        name, _, version = part.partition(":")
        if version and not (version.isascii() and version.isdigit() and len(version) <= 7):
            raise WrongSetting(f"apps: {part!r:.60} must be a name, or a name and a version (example: apps=chat,kv:2)")
        apps.append((name, int(version or 1)))
    found = tuple(apps)
    _check_apps(found)
    return found


def _check_members(value: object) -> None:
    if (
        type(value) is not tuple
        or not value
        or not all(type(i) is int and 0 <= i <= SERVER_ID_MAX for i in value)
        or list(value) != sorted(set(value))
    ):
        raise WrongSetting("members must be ids of servers, ascending")


def _check_apps(value: object) -> None:
    if type(value) is not tuple or not 1 <= len(value) <= APPLICATIONS_MAX:
        raise WrongSetting(f"apps must be 1 to {APPLICATIONS_MAX} applications (example: apps=chat,lock,kv)")
    names = [_check_app(app) for app in value]
    for name in names:
        if names.count(name) > 1:
            raise WrongSetting(f"apps: {name} is there twice")


def _check_app(app: object) -> str:
    match app:
        case (str(name), int(version)) if type(version) is int:
            if not is_application_name(name):
                raise WrongSetting(f"apps: {name!r:.80} is no name of an application")
            if not 1 <= version <= VERSION_MAX:
                raise WrongSetting(f"apps: the version of {name} must be from 1 to {VERSION_MAX}, not {version}")
            return name
        case _:
            raise WrongSetting("apps must be pairs of a name and a version")


def _ranges() -> dict[str, Range]:
    found: dict[str, Range] = {}
    attribute: Attribute[Any]
    for attribute in fields(ClusterSettings):
        if "range" in attribute.metadata:
            found[attribute.name] = attribute.metadata["range"]
    return found


RANGES: Final[dict[str, Range]] = _ranges()
"""Name of each setting that is a number -> its range."""
QUOTAS: Final = (
    "value_bytes",
    "kv_bytes",
    "chat_bytes",
    "instance_bytes",
    "session_locks",
    "session_waits",
    "sessions",
    "reply_cache_bytes",
    "replies_bytes",
)
"""Names of the settings that are quotas of the replicated state."""
IN_FILES: Final = ("apps", *(name for name in RANGES if name not in QUOTAS))
"""Names of the settings that a server takes from its configuration at the birth of its cluster."""
_NAMES: Final = frozenset(attribute.name for attribute in fields(ClusterSettings))
_ADDED: Final = {"instance_bytes": fields(ClusterSettings).instance_bytes.default}
"""Name -> default of each setting that was added to pfsb later: the settings of an older cluster lack it."""
