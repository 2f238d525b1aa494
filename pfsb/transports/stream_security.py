"""The part of TLS that streams know of, without any import of OpenSSL."""

from __future__ import annotations

from typing import Any, Final, Protocol

from twisted.python.failure import Failure


class WrongCertificate(Exception):
    """Raised for a certificate that is not that of the server that should be at the other end; the text is a part of a
    sentence whose subject is the other end."""


class ServerSecurity(Protocol):
    """The TLS of one server: its own certificate, and the check of those of others."""

    def protocol(self, inner: Any) -> Any:
        """A protocol that speaks TLS as the end that was connected to, and passes what is inside to `inner`."""

    def client(self, inner: Any) -> Any:
        """A protocol that speaks TLS as the end that has connected, and passes what is inside to `inner`."""

    def server_id(self, certificate: Any) -> int:
        """The id of the server that a certificate names. Raises `WrongCertificate` if it names none of this cluster."""


_ALERTS: Final = (
    ("expired", "says that the certificate of this server has expired"),
    ("unknown ca", "says that the certificate of this server is of another authority"),
    ("certificate required", "says that this server has shown no certificate"),
    ("bad certificate", "refuses the certificate of this server"),
    ("certificate unknown", "refuses the certificate of this server"),
    ("did not return a certificate", "shows no certificate"),
    ("wrong version number", "does not speak TLS"),
    ("http request", "speaks HTTP, and no TLS"),
    ("unsupported protocol", "speaks an old version of TLS"),
)
"""A part of the reason that OpenSSL gives for an error -> words for the same reason, for a person."""


def shown_reason(reason: Failure) -> str | None:
    """Words for the reason why TLS has ended a connection, as a part of a sentence whose subject is the other end;
    None: TLS has not ended it."""
    error: Any = reason.value
    if isinstance(error, WrongCertificate):
        return str(error)
    if not type(error).__module__.startswith("OpenSSL"):
        return None
    details = error.args[0] if error.args and isinstance(error.args[0], list) else []
    text = "; ".join(str(row[-1]) for row in details if row) or "no reason is given"
    for part, shown in _ALERTS:
        if part in text:
            return shown
    return f"fails in TLS: {text}"
