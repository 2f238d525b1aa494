"""TLS between servers: both ends show a certificate of the cluster's authority, which names a server of the cluster.

Needs the extra `pfsb[tls]`. A certificate names its server by a URI among its alternative names, such as
``pfsb://four/2`` for server 2 of the cluster four.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IConsumer,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    ITCPTransport,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from pfsb.support.eager_write import write_now
from pfsb.support.private_files import open_regular, wide_mode
from pfsb.transports.stream_security import WrongCertificate

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_EXPIRED, _NOT_YET = 10, 9
"""Numbers by which OpenSSL says that a certificate is valid no more, or not yet."""


class CertificatesMissing(Exception):
    """Raised if the certificates of a server cannot be used; the text is one line for a person."""


class Refused(SSL.Error, WrongCertificate):
    """Raised in a handshake if the certificate at the other end is none of the cluster's authority."""

    def __init__(self, text: str) -> None:
        super().__init__([("pfsb", "", text)])  # the form in which OpenSSL tells its errors
        self._text = text

    def __str__(self) -> str:
        return self._text


def server_uri(cluster: str, server_id: int) -> str:
    """The name by which a certificate names a server."""
    return f"pfsb://{cluster}/{server_id}"


def _verify(_connection: object, _certificate: object, number: int, _depth: int, ok: int) -> bool:
    if ok:
        return True
    if number == _EXPIRED:
        raise Refused("shows a certificate that has expired")
    if number == _NOT_YET:
        raise Refused("shows a certificate that is not valid yet")
    raise Refused("shows a certificate that was not signed by the authority of this cluster")


@define(eq=False)
class Credentials:
    """The certificate and key of a server, and the certificate of the authority, from files that are read again when
    they have changed.

    If changed files cannot be used, the former ones stay in use, and the log says so once.
    """

    log = Logger()

    authority: Path
    own: Path
    """The file with the certificate and the key of this server."""
    _is_mutual: bool = True
    """Whether the other end must show a certificate of the authority."""
    _seen: tuple[Any, ...] = field(init=False, default=())
    _context: Any = field(init=False, default=None)

    def context(self) -> Any:
        """The context for a new connection. Raises `CertificatesMissing` if there has never been one that could be
        used."""
        seen = tuple(_stamp(path) for path in (self.authority, self.own))
        if seen == self._seen and self._context is not None:
            return self._context
        try:
            context = self._load()
        except CertificatesMissing as error:
            if self._context is None:
                raise
            if seen != self._seen:
                self.log.error("{error}; those that were read before stay in use", error=error)
        else:
            if self._context is not None:
                self.log.info("new certificates were read from {path}", path=str(self.own))
            self._context = context
        self._seen = seen
        return self._context

    def _load(self) -> Any:
        authority = _certificates(self.authority)
        data = _read(self.own)
        mode = wide_mode(self.own)
        if mode is not None:
            raise CertificatesMissing(
                f"{self.own}: others than its owner may use it (mode {mode:03o}), and it holds a key; "
                "chmod 600 would be right"
            )
        chain = _certificates(self.own)
        try:
            key = load_pem_private_key(data, None)
        except (ValueError, TypeError) as error:
            raise CertificatesMissing(f"{self.own}: holds no private key that can be used ({error})") from None
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION if self._is_mutual else SSL.TLS1_2_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        if self._is_mutual:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
            store = context.get_cert_store()
            assert store is not None
            for each in authority:
                store.add_cert(crypto.X509.from_cryptography(each))
        try:
            context.use_certificate(crypto.X509.from_cryptography(chain[0]))
            for each in chain[1:]:
                context.add_extra_chain_cert(crypto.X509.from_cryptography(each))
            context.use_privatekey(crypto.PKey.from_cryptography_key(key))  # type: ignore[arg-type]
            context.check_privatekey()
        except (SSL.Error, TypeError) as error:
            raise CertificatesMissing(f"{self.own}: its key does not belong to its certificate ({error})") from None
        return context


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise CertificatesMissing(
            f"{path}: {error.strerror}; `pfsb certificates CONFIG` makes the certificates of a cluster"
        ) from None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        found = []
    if not found:
        raise CertificatesMissing(f"{path}: holds no certificate that can be read")
    return found


class _EagerTransport:
    """The transport of a connection below TLS. Writes to it go to the socket at once, and are not collected."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        write_now(self._transport, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@implementer(IConsumer, ITCPTransport)
class _EagerTLS(TLSMemoryBIOProtocol):
    def getHandle(self) -> Any:
        """The socket of the connection, for callers that set its options or ask for its state."""
        transport: Any = self.transport
        return transport.getHandle()

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(_EagerTransport(transport))


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
@define(eq=False)
class _Creator:
    _context: Callable[[], Any]

    def clientConnectionForTLS(self, _protocol: object) -> Any:
        connection = SSL.Connection(self._context(), None)
        connection.set_connect_state()
        return connection

    def serverConnectionForTLS(self, _protocol: object) -> Any:
        connection = SSL.Connection(self._context(), None)
        connection.set_accept_state()
        return connection


@define(eq=False, slots=False)
class TLSPort(Factory):
    """A port of clients behind TLS: the connections of another factory, with a server's certificate."""

    noisy = False

    _credentials: Credentials
    _inner: Any
    """The factory of the protocols inside TLS."""

    def buildProtocol(self, addr: object) -> Any:
        inner = self._inner.buildProtocol(addr)
        return None if inner is None else _wrapped(self._credentials, inner, is_client=False)

    def startFactory(self) -> None:
        self._inner.doStart()

    def stopFactory(self) -> None:
        self._inner.doStop()


def _wrapped(credentials: Credentials, inner: Any, *, is_client: bool) -> Any:
    factory = TLSMemoryBIOFactory(_Creator(credentials.context), is_client, Factory())
    factory.noisy = False
    return _EagerTLS(factory, inner)


@define(eq=False)
class MutualTLS:
    """`ServerSecurity` with certificates of files."""

    _cluster: str
    credentials: Credentials

    def check(self, server_id: int, now: float) -> None:
        """Raise `CertificatesMissing` if the certificates of this server, which has this id, cannot be used.

        `now` is the time in seconds since 1970.
        """
        self.credentials.context()
        own = _certificates(self.credentials.own)[0]
        try:
            found = self.server_id(crypto.X509.from_cryptography(own))
        except WrongCertificate as error:
            raise CertificatesMissing(f"{self.credentials.own}: {error}") from None
        if found != server_id:
            raise CertificatesMissing(f"{self.credentials.own}: is the certificate of server {found}")
        if own.not_valid_after_utc.timestamp() < now:
            raise CertificatesMissing(
                f"{self.credentials.own}: has expired; `pfsb certificates CONFIG --renew` makes another one"
            )

    def protocol(self, inner: Any) -> Any:
        """A protocol that speaks TLS as the end that was connected to, around the protocol `inner`
        (`ServerSecurity.protocol`)."""
        return _wrapped(self.credentials, inner, is_client=False)

    def client(self, inner: Any) -> Any:
        """A protocol that speaks TLS as the end that has connected, around the protocol `inner`
        (`ServerSecurity.client`)."""
        return _wrapped(self.credentials, inner, is_client=True)

    def server_id(self, certificate: Any) -> int:
        """The id of the server that a certificate names. Raises `WrongCertificate` if it names no server of this
        cluster."""
        names = names_of(certificate.to_cryptography()) if certificate is not None else []
        for name in names:
            head, _, number = name.rpartition("/")
            if head == f"pfsb://{self._cluster}" and re.fullmatch(r"0|[1-9][0-9]{0,4}", number):
                return int(number)
        shown = ", ".join(names) or "nothing"
        raise WrongCertificate(f"shows a certificate that names no server of cluster {self._cluster}, but {shown}")


def names_of(certificate: x509.Certificate) -> list[str]:
    """The URIs that a certificate names."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(extension.value.get_values_for_type(x509.UniformResourceIdentifier))
