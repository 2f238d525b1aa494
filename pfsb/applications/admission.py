"""Refuses an application that cannot run as soon as a server makes it, rather than at its first client.

A plugin is code of others. Whatever can be found without a client is found here: members that are missing, methods that
take other arguments, and values of a wrong type. For the latter, an example of each command is executed on a copy of
the application that is thrown away. Exceptions of methods that answer, or tell of time and sessions, are no reason to
refuse: a cluster runs on after them, too (`pfsb.applications.failures`). It also runs on after those of `snapshot`,
`restore`, `freeze`, `take_piece`, `pieces_end`, `used`, `length` and `events`, but without a new version, a snapshot, a
quota or events: an application in which one of these fails in its first state is refused.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from pfsb.applications.application import Application, has_snapshot
from pfsb.applications.arguments import quoted
from pfsb.applications.failures import depends_on_machine
from pfsb.applications.interfaces import (
    PENDING,
    BadRequest,
    CommandDescription,
    Event,
    IEventLog,
    IFrozenState,
    IPlainChecker,
    IQuotaUser,
    IReplicatedApplication,
    IRunExecutor,
)
from pfsb.applications.results import check_event
from pfsb.applications.testing import (
    TrialContext,
    WrongApplication,
    as_ordered,
    frozen_meanwhile,
    restored,
    restored_from_pieces,
    right_deadline,
    right_pieces,
    right_result,
    right_snapshot,
)

_METHODS: Final[Mapping[str, int]] = {
    "check": 1,
    "execute": 2,
    "query": 1,
    "session_ended": 2,
    "time_passed": 1,
    "next_deadline": 0,
}
"""Name of each method of `IReplicatedApplication` that every application has -> the number of its arguments."""
_SNAPSHOT_METHODS: Final[Mapping[str, int]] = {"snapshot": 0, "restore": 1}
"""Name of each method that an application may lack, if it lacks both -> the number of its arguments."""
_FROZEN_METHODS: Final[Mapping[str, int]] = {"freeze": 0, "take_piece": 1, "pieces_end": 0}
"""Name of each method of `IFrozenState` -> the number of its arguments."""


def refuse_wrong_application(application: Any, make: Callable[[], IReplicatedApplication]) -> None:
    """Raise `BadRequest`, with one line that says what would be right, if an application cannot run.

    `make` makes the same application in its first state: commands are tried on such a copy.
    """
    try:
        _check_members(application)
        _try(make)
    except WrongApplication as error:
        raise _refusal(application, str(error)) from None
    except Exception as error:
        if depends_on_machine(error):
            raise
        raise _refusal(application, f"{type(error).__name__}: {error}") from error


def _refusal(application: Any, why: str) -> BadRequest:
    name = quoted(str(getattr(application, "name", "")))
    return BadRequest(f"the application {name} cannot run: {' '.join(why.split())}")


def _check_members(application: Any) -> None:
    _check_methods(application, "IReplicatedApplication", _METHODS)
    if has_snapshot(application) or IFrozenState.providedBy(application):
        _check_methods(application, "IReplicatedApplication", _SNAPSHOT_METHODS)
    if IFrozenState.providedBy(application):
        _check_methods(application, "IFrozenState", _FROZEN_METHODS)
    commands = getattr(application, "commands", None)
    if not isinstance(commands, Sequence) or not all(isinstance(each, CommandDescription) for each in commands):
        raise WrongApplication(f"its commands are {commands!r:.80}; they are CommandDescriptions in a tuple or a list")
    version = getattr(application, "version", 1)
    if type(version) is not int or version < 1:
        raise WrongApplication(f"its version is {version!r:.40}; it is an int from 1 on")
    verbs = [str(description.verb) for description in commands]
    if len({*verbs}) < len(verbs):
        raise WrongApplication(f"it describes a verb twice: {', '.join(verbs)}")
    if isinstance(application, Application):
        _check_functions(application)


def _check_methods(application: Any, interface: str, methods: Mapping[str, int]) -> None:
    for name, arguments in methods.items():
        method = getattr(application, name, None)
        if not callable(method):
            raise WrongApplication(f"it has no method {name} (pfsb.applications.interfaces.{interface})")
        if not _takes(method, arguments):
            raise WrongApplication(f"its method {name} must take {arguments} argument{'s' * (arguments != 1)}")


def _check_functions(application: Application) -> None:
    """Check that the functions in the table of verbs take the right arguments. Only an application that is derived from
    `Application` has this table."""
    for description in application.commands:
        verb = application.verbs[description.verb]
        if verb.run is not None and not _takes(verb.run, 1 + description.changes):
            taken = "command, context" if description.changes else "command"
            raise WrongApplication(f"the function of {description.verb} must take ({taken})")
        if not _takes(verb.rule, 1):
            raise WrongApplication(f"the rule of {description.verb} must take one argument, the Arguments")
        if verb.run is not None and (not verb.types or verb.types[0] is not str):
            raise WrongApplication(f"the types of {description.verb} must begin with str, for the verb itself")


def _takes(method: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(method).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # the method does not tell its arguments
        return True
    return True


def _try(make: Callable[[], IReplicatedApplication]) -> None:
    """Execute an example of each command of a copy of the application, which `make` makes, and check the answers and
    snapshots. Raises `WrongApplication` if one is wrong."""
    application, context = make(), TrialContext(session="example", ticket=("example", 1))
    for description in application.commands:
        check_frozen = _needed("freeze()", lambda: frozen_meanwhile(application))
        _try_command(application, description, context)
        _needed("freeze()", check_frozen)
        _check_snapshot(application, make)
    _tolerant(lambda: application.session_ended("example", context))
    _tolerant(lambda: right_deadline(application))
    _check_more(application, {description.verb for description in application.commands})


def _check_snapshot(application: IReplicatedApplication, make: Callable[[], IReplicatedApplication]) -> None:
    if not has_snapshot(application) and not IFrozenState.providedBy(application):
        return
    _needed("snapshot() or restore()", lambda: restored(make, right_snapshot(application)))
    if IFrozenState.providedBy(application):
        pieces, snapshot = _needed("freeze()", lambda: (right_pieces(application), application.snapshot()))
        _needed("take_piece() or pieces_end()", lambda: restored_from_pieces(make, pieces, snapshot))


def _try_command(application: IReplicatedApplication, description: CommandDescription, context: TrialContext) -> None:
    checked = _tolerant(lambda: (application.check(_words(description)),))
    if checked is None:
        return  # the application does not take the example
    command = as_ordered(application, checked[0])
    if IEventLog.providedBy(application) and command[0] in _log_verbs(application):
        return  # the front end answers questions about the log itself
    if not description.changes:
        answered = _tolerant(lambda: (application.query(command),))
    else:
        context.revision += 1
        answered = _tolerant(lambda: (application.execute(command, context),))
    if answered is not None and not (answered[0] is PENDING and description.waits and description.changes):
        if answered[0] is PENDING:
            raise WrongApplication(
                f"{command[0]} is answered with PENDING, but its description does not say waits=True"
            )
        right_result(command, answered[0])


def _tolerant(act: Callable[[], Any]) -> Any:
    """The result of `act`; None if it raises an exception that is a fault of the program."""
    return _tried(act, lambda _: None)


def _needed(what: str, act: Callable[[], Any]) -> Any:
    """The result of `act`, without which no server can go on. Raises `WrongApplication` if `act` raises an exception
    that is a fault of the program."""

    def refuse(error: Exception) -> None:
        raise WrongApplication(f"{what} fails: {type(error).__name__}: {error}") from error

    return _tried(act, refuse)


def _tried(act: Callable[[], Any], at_fault: Callable[[Exception], None]) -> Any:
    """The result of `act`; None, after a call of `at_fault`, if it raises an exception that is a fault of the program.
    A fault of this machine (`pfsb.applications.failures`) is raised again: if this server decided by it, the others
    could decide otherwise."""
    try:
        return act()
    except WrongApplication:
        raise
    except Exception as error:
        if depends_on_machine(error):
            raise
        at_fault(error)
        return None


def _words(description: CommandDescription) -> tuple[str, ...]:
    """An example of the command as `check` takes it: (verb, word, ...)."""
    line = description.example or re.sub(r" *\[[^\]]*\]", "", description.usage)
    rest = line.removeprefix(description.verb).strip()
    if description.rest_of_line:
        return (description.verb, rest) if rest else (description.verb,)
    return (description.verb, *[word.strip('"') for word in rest.split()])


def _log_verbs(application: Any) -> tuple[str, str]:
    return application.listen_verb, f"UN{application.listen_verb}"


def _check_more(application: Any, verbs: Collection[str]) -> None:
    """Check the members that an application must have for the optional interfaces which it says it provides. `verbs`
    are its verbs. Raises `WrongApplication` if a member is missing or wrong."""
    if IEventLog.providedBy(application):
        for verb in _log_verbs(application):
            if verb not in verbs:
                raise WrongApplication(f"it provides IEventLog, and does not describe its verb {verb}")
        _check_log(application)
    if IQuotaUser.providedBy(application):
        used = _needed("used()", application.used)
        if not isinstance(application.quota, str) or type(used) is not int:
            raise WrongApplication(f"quota is a str and used() an int, not {application.quota!r:.40} and {used!r:.40}")
    if IRunExecutor.providedBy(application):
        _check_verbs("run_verbs", application.run_verbs, verbs)
    if IPlainChecker.providedBy(application):
        _check_verbs("plain_words", application.plain_words, verbs)
        for verb, words in application.plain_words.items():
            if type(words) is not int or words < 1:
                raise WrongApplication(
                    f"plain_words has {words!r:.40} for {verb}; it is the number of words, from 1 on"
                )


def _check_log(application: Any) -> None:
    length = _needed("length()", application.length)
    if type(length) is not int or length < 0:
        raise WrongApplication(f"length() returns {length!r:.40}; it is the number of events")
    found: Sequence[Any] = _needed("events()", lambda: [*application.events(1, 1)])
    for event in found:
        if not isinstance(event, Event):
            raise WrongApplication(f"events() returns {event!r:.40}; each is an Event")
        try:
            check_event(event)
        except ValueError as error:
            raise WrongApplication(str(error)) from None


def _check_verbs(what: str, named: Collection[Any], verbs: Collection[str]) -> None:
    strange = [str(verb) for verb in named if verb not in verbs]
    if strange:
        raise WrongApplication(f"{what} has {', '.join(strange)}, which its commands do not describe")
