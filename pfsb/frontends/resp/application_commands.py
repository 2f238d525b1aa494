"""Commands of applications that Redis does not have: each verb of the line protocol is a command of the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pfsb.applications.arguments import Data
from pfsb.applications.catalogue import Catalogue
from pfsb.applications.interfaces import Fields, IEventLog, Refused, Result, Value
from pfsb.frontends.resp import replies
from pfsb.frontends.resp.commands import TranslatedCommand
from pfsb.frontends.resp.replies import Dialect


def translate(catalogue: Catalogue, name: str, args: Sequence[bytes], dialect: Dialect) -> TranslatedCommand | None:
    """The command of the application that has the verb `name`, in the line protocol; None if no application has this
    verb, or if its command can only be given over the line protocol.

    Every argument is a value, and never an option. The arguments of a verb that takes the rest of the line are joined
    by spaces, as Redis's own clients split a text that a person types.
    """
    entry = catalogue.verbs.get(name)
    if entry is None:
        return None
    application, description = entry.application, entry.description
    if IEventLog.providedBy(application) and name in (application.listen_verb, f"UN{application.listen_verb}"):
        return None
    words = [b" ".join(args)] if description.rest_of_line and args else args
    return TranslatedCommand(name, tuple(map(Data, words)), whole_result(dialect))


def whole_result(dialect: Dialect) -> Callable[[Result], bytes]:
    """Make the form of a reply that has all that the result has, as over HTTP: a map of its fields, and with rows a
    member `rows`, a list of such maps."""

    def form(result: Result) -> bytes:
        if isinstance(result, Refused):
            return replies.error(result)
        pairs = [*_pairs(result.fields)]
        if result.rows or any(name == "count" for name, _ in result.fields):
            pairs.append(("rows", replies.array([dialect.mapping(_pairs(row)) for row in result.rows])))
        return dialect.mapping(pairs)

    return form


def _pairs(fields: Fields) -> Iterator[tuple[str, bytes]]:
    return ((name, _item(value)) for name, value in fields)


def _item(value: Value) -> bytes:
    return replies.integer(value) if isinstance(value, int) else replies.bulk(replies.data_of(value))
