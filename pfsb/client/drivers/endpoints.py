"""The endpoints at which clients of a Twisted reactor reach servers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import clientFromString, wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from pfsb.client.core.addresses import ServerAddress


def client_endpoint(reactor: Any, address: ServerAddress) -> IStreamClientEndpoint:
    """The endpoint of a server. If it cannot be made, since packages or the authority's certificate are missing, its
    connections fail with the reason."""
    plain: IStreamClientEndpoint = clientFromString(reactor, address.endpoint)
    if not address.tls:
        return plain
    try:
        behind_tls: IStreamClientEndpoint = wrapClientTLS(_options(address), plain)
    except ImportError as error:
        return _Impossible(OSError(f"TLS needs more packages ({error.name}): pip install 'pfsb[tls]'"))
    except OSError as error:
        return _Impossible(OSError(f"{address.authority}: {error.strerror or error}"))
    except Exception as error:  # the file holds no certificate: each version of the packages has its own exceptions
        return _Impossible(OSError(f"{address.authority}: holds no certificate that can be read ({error})"))
    return behind_tls


def _options(address: ServerAddress) -> Any:
    from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates

    if address.authority is None:
        trust: Any = platformTrust()
    else:
        with open(address.authority, "rb") as file:
            text = file.read()
        end = b"-----END CERTIFICATE-----"
        found = [Certificate.loadPEM(each + end) for each in text.split(end) if each.strip()]
        if not found:
            raise ValueError("it is empty")
        trust = trustRootFromCertificates(found)
    host = address.place[0]
    return optionsForClientTLS(host, trustRoot=trust)


@implementer(IStreamClientEndpoint)
class _Impossible:
    """An endpoint that cannot be connected to."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def connect(self, _factory: IProtocolFactory) -> Deferred[Any]:
        return fail(self._error)
