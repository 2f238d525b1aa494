"""Writes docs/configuration.rst: every key of the configuration file and every setting of a cluster, from the code.

    python docs/make_configuration.py

The meaning of a key is the docstring of its field in pfsb/config/config.py, its values are those that its reader takes,
and its default is that of the field.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from attrs import NOTHING, fields

from pfsb.config import config
from pfsb.config.addresses import endpoint_string, listening_address, peer_address
from pfsb.config.config import Config, Integers, Limits, ServerConfig, Timers
from pfsb.config.yaml_file import SECONDS_MAX, SECONDS_MIN, Place
from pfsb.sessions.cluster_settings import RANGES, RULES_KNOWN, ClusterSettings

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.rst"
WIDTH: Final = 120

CLASSES: Final = {"servers.ID": ServerConfig, "timers": Timers, "limits": Limits, "": Config}
"""Path of the parent of a key -> the class whose fields are the keys below it."""

DEFAULTS: Final = {
    "f": "(servers - 1) / 2, rounded down",
    "storage": "var/CLUSTER",
    "certificates": "certificates/CLUSTER",
    "timers.disk": "8, or twice ``timers.progress``",
    "servers.ID.listen": "as ``peer``",
}
"""Defaults that are no constants: they depend on other keys."""

MORE: Final = {
    "servers.ID.peer": ":ref:`names`",
    "servers.ID.listen": ":ref:`names`",
    "servers.ID.client": ":doc:`protocol` and :doc:`redis`",
    "servers.ID.http": ":doc:`http`",
    "servers.ID.redis": ":doc:`redis`",
    "archive": ":ref:`archive`",
    "transport": ":ref:`transports`",
    "transport_before": ":ref:`transports`",
    "certificates": ":ref:`transports`",
    "insecure": ":ref:`transports`",
    "apps": ":ref:`settings` and :doc:`instances`",
    "timers.disk": ":ref:`disk-trouble`",
    "limits.session_window": ":ref:`settings`",
    "limits.reserve_bytes": ":ref:`disk-trouble`",
    "window": ":ref:`settings`",
    "faults": ":ref:`faults`",
    "http_names": ":ref:`http-browsers`",
}
"""Key -> the section of the documentation that says more about it."""

INTRODUCTION = """\
Configuration reference
=======================

Every key of the configuration file, and every setting that the servers of a cluster share. :doc:`operating` shows a
file and says how to work with it. This page is made from the code (``docs/make_configuration.py``), so it is what this
version takes.

Times are in seconds, and may have fractions. Relative paths are relative to the working directory. Anything that is
wrong is refused in one line, which names the file, the key and what would be right; an unknown key is wrong, too.
"""

SERVERS = """\
The servers
-----------
"""

WORD = "Up to 64 letters, digits and ``_ . -``, the first no ``.`` or ``-``."
IDS = "Each of them has the keys ``servers.ID...``, where ``ID`` stands for its id."

SETTINGS = """\
Settings of a cluster
---------------------

They decide what commands answer, so all servers share them. The first leader takes those that the file has from its
file, and the defaults of the others; from then on they are changed while the cluster runs, by ``pfsb settings CONFIG
NAME=VALUE``, ``SETTINGS SET`` or ``PATCH /v1/settings`` (:ref:`settings`).
"""


def render() -> str:
    """The text of the page."""
    keys = config.keys_of_file()
    top = _meanings(Config)
    lines = [INTRODUCTION, SERVERS]
    lines += _entry("cluster", "a word", "required", f"{_plain(top['cluster'])} {WORD}")
    lines += _entry("servers", "a mapping for each id, 0 to 65535", "required", f"{_plain(top['servers'])} {IDS}")
    lines += _entries(keys, "servers.ID")
    for title, parent in (("The cluster", ""), ("Times", "timers"), ("Limits", "limits")):
        lines += [title, "-" * len(title), "", *_entries(keys, parent)]
    lines += [SETTINGS, *_settings()]
    return "\n".join(lines).rstrip("\n") + "\n"


def _entries(keys: Mapping[str, Callable[[Place], Any]], parent: str) -> Iterator[str]:
    kind = CLASSES[parent]
    meanings = _meanings(kind)
    for path, reader in keys.items():
        above, _, name = path.rpartition(".")
        if above == parent:
            more = f" See {MORE[path]}." if path in MORE else ""
            yield from _entry(path, _values(reader), _default(path, kind, name), _plain(meanings[name]) + more)


def _entry(name: str, values: str, default: str, meaning: str) -> Iterator[str]:
    """An entry of a definition list: such a list fits every width of a window."""
    yield f"``{name}`` : {values} : {default}"
    yield from wrap(meaning, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    yield ""


def _values(reader: Callable[[Place], Any]) -> str:
    """The values that a reader takes, in words."""
    if isinstance(reader, Integers):
        return f"a whole number, {reader.low} to {_short(reader.high)}"
    known: dict[Any, str] = {
        Place.seconds: f"seconds, {SECONDS_MIN:g} to {SECONDS_MAX:g}",
        Place.boolean: "true or false",
        Place.text: "a path",
        endpoint_string: "an endpoint string of Twisted",
        peer_address: "``host:port``, ``[host]:port`` with IPv6",
        listening_address: "``address:port``",
    }
    return known[reader] if reader in known else _plain(_lower(reader.__doc__ or "").rstrip("."))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _short(number: int) -> str:
    power = len(str(number)) - 1
    return f"10\\ :sup:`{power}`" if power > 6 and number == 10**power else str(number)


def _default(path: str, kind: Any, name: str) -> str:
    if path in DEFAULTS:
        return f"default: {DEFAULTS[path]}"
    default = getattr(fields(kind), name).default
    if default is NOTHING:
        return "required"
    if default is None or default == ():
        return "default: none"
    return f"default: {', '.join(default) if isinstance(default, tuple) else str(default).lower()}"


def _settings() -> Iterator[str]:
    for name, allowed in RANGES.items():
        # A cluster begins with the latest rules, whatever the default for settings in the form of earlier versions is.
        default = RULES_KNOWN if name == "rules" else getattr(fields(ClusterSettings), name).default
        values = f"{_short(allowed.least)} to {_short(allowed.most)}"
        meaning = f"{allowed.help[:1].upper()}{allowed.help[1:]}."
        yield from _entry(name, values, f"default: {default}", _plain(meaning))


def _meanings(kind: type) -> dict[str, str]:
    """Name of each field of a class -> its docstring, which Python itself does not keep."""
    tree = ast.parse(Path(config.__file__).read_text(encoding="utf-8"))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    found = {}
    for node, following in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(node.target, ast.Name) and isinstance(following.value, ast.Constant)
            found[node.target.id] = " ".join(str(following.value.value).split())
    return found


def _plain(text: str) -> str:
    """A docstring in reStructuredText. Its words "None: ..." become "Without the key: ..."."""
    text = re.sub(r"\bNone: ", "Without the key: ", text)
    return re.sub(r"`([^`]+)`", r"``\1``", text).replace("Local_Aru", r"Local\_Aru")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
