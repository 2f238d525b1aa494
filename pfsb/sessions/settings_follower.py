"""SettingsFollower: the part of one server in the settings of its cluster (Departure 34).

SettingsFollower proposes the values of the server's own configuration file if the server is the first to lead, tells
the protocol of the settings that are in force, says which values of the file do not count, and has it ordered what this
server can run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, evolve, field
from twisted.logger import Logger

from pfsb.applications.catalogue import Catalogue, InstalledApplications, refuse_wrong_names, version_of
from pfsb.config.config import Config
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions.cluster_settings import IN_FILES, RULES_OF_EPOCHS, ClusterSettings, show_app
from pfsb.sessions.ordered_settings import Abilities, is_place
from pfsb.sessions.state_machine import ANNOUNCE, SessionStateMachine, birth
from pfsb.sessions.submission import Submission
from pfsb.support.limits import IDENTITY_BYTES


def values_of_file(config: Config, catalogue: Catalogue, rules: int = 1) -> ClusterSettings:
    """The settings that a server's configuration asks for, which count at the birth of the cluster only. `rules` are
    those by which a cluster begins to which this server gives birth."""
    quotas: Mapping[str, Any] = config.quotas()
    return ClusterSettings(
        members=config.founding_ids,
        apps=tuple((application.name, version_of(application)) for application in catalogue.chosen),
        session_window=config.limits.session_window,
        window=config.window,
        horizon=config.settings().horizon_slots,
        rules=rules,
        **quotas,
    )


def abilities_of(installed: InstalledApplications) -> Abilities:
    """The abilities of a server that has these applications installed: the versions that the server can make and that
    pass the checks of `pfsb.applications.admission`. Each version is made once, and logged in one line if it does not
    pass.

    A change of settings to an application that a server cannot make would stop that server at its slot, at each start
    again. So such an application is not announced, and the change is refused.
    """
    found: dict[str, list[int]] = {}
    for name, versions in installed.versions.items():
        for version in versions:
            try:
                refuse_wrong_names(installed.make(name, version))
            except Exception as error:
                why = " ".join(f"{type(error).__name__}: {error}".split())
                SettingsFollower.log.warn(
                    "{app} is not announced as installed here, so SETTINGS SET refuses it: {why}",
                    app=show_app(name, version),
                    why=why,
                )
            else:
                found.setdefault(name, []).append(version)
    return evolve(Abilities.of(found), rules=Abilities.of_server(installed).rules)


@define(eq=False)
class SettingsFollower:
    """Proposes, follows and compares the cluster's settings for one server.

    `randbytes` draws the random identity of a cluster whose first settings this server proposes.
    """

    log = Logger()

    _server_id: int
    _machine: SessionStateMachine
    _of_file: ClusterSettings
    _abilities: Abilities
    _randbytes: Callable[[int], bytes]
    on_values: Callable[[ClusterSettings], None]
    """Called inside execution with new settings, which are in force from then on."""
    _place: str = ""
    """Where clients reach this server (`Abilities.client`), which is announced once the rules allow it."""
    _differing: dict[str, str] = field(init=False, factory=dict)
    """Name of a setting whose value in this server's file does not count -> the sentence about it that was logged
    last."""
    is_announced: bool = field(init=False, default=False)
    """Whether the cluster knows what this server can run, so that `announce` has nothing left to do."""
    _is_submitted: bool = field(init=False, default=False)

    def make_birth(self) -> ClientUpdate:
        """Make the update with the first settings, at a server that leads before there are any settings."""
        values = evolve(self._of_file, cluster_identity=self._randbytes(IDENTITY_BYTES))
        return birth(self._server_id, values)

    def follow(self, values: ClusterSettings) -> None:
        """Called inside execution with settings that have changed, or are there for the first time: passes them on to
        `on_values`, and logs which values of this server's file do not count."""
        self.on_values(values)
        self.is_announced = False  # other rules may ask for another announcement
        found = {name: self._sentence(name, values) for name in self.differing(values)}
        for name, sentence in found.items():
            if self._differing.get(name) != sentence:
                self.log.warn("{sentence}", sentence=sentence)
        self._differing = found

    def differing(self, values: ClusterSettings) -> list[str]:
        """Names of the settings for which the file of this server has another value than the cluster. No file has a key
        for `rules`."""
        names = [name for name in IN_FILES if name != "rules"]
        return [name for name in names if getattr(values, name) != getattr(self._of_file, name)]

    def announce(self, submission: Submission) -> None:
        """Called at the end of a turn: submits an ANNOUNCE with the abilities of this server, unless the cluster knows
        them already, or one is under way."""
        if self.is_announced or self._is_submitted or not self._machine.settings.is_born:
            return
        settings = self._machine.settings
        knows_places = settings.values.rules >= RULES_OF_EPOCHS and is_place(self._place)
        abilities = evolve(self._abilities, client=self._place) if knows_places else self._abilities
        if settings.announced.get(self._server_id) == abilities:
            self.is_announced = True
            return
        if self._server_id not in settings.members.ids:
            return  # not added yet, or removed (Departure 60)
        self._is_submitted = True
        submission.submit_operation((ANNOUNCE, abilities.encode()), self._answered)

    def _answered(self, _: object) -> None:
        self._is_submitted = False

    def _sentence(self, name: str, values: ClusterSettings) -> str:
        of_file, shown = self._of_file.shown()[name], values.shown()[name]
        return f"{name} is {of_file} in this server's configuration; the cluster's settings say {shown}, and they rule"
