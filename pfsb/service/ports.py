"""The ports of a server to which clients connect: endpoint strings of Twisted, and `tls:` with the server's own
certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application import strports
from twisted.application.service import IService
from twisted.internet.interfaces import IProtocolFactory

from pfsb.config.addresses import below_tls, with_backlog
from pfsb.config.config import Config, ConfigError
from pfsb.service.assembly import INSTALL_TLS

if TYPE_CHECKING:
    from pfsb.transports.tls import Credentials


def port_service(config: Config, server_id: int, endpoint: str, factory: IProtocolFactory) -> IService:
    """The service that listens at an endpoint string of a server. Raises `ConfigError` if it is a `tls:` one, and the
    certificates cannot be used."""
    below = below_tls(endpoint)
    if below is not None:
        from pfsb.transports.tls import TLSPort

        endpoint, factory = below, TLSPort(client_credentials(config, server_id, endpoint), factory)
    service: IService = strports.service(with_backlog(endpoint), factory)
    return service


def client_credentials(config: Config, server_id: int, endpoint: str) -> Credentials:
    """The certificate that a server shows to its clients, at this endpoint. Raises `ConfigError` if it cannot be
    used, or packages are missing, with the command that installs them."""
    where = f"{config.file}: servers.{server_id}: {endpoint}"
    try:
        from pfsb.transports.tls import CertificatesMissing, Credentials
    except ImportError as error:
        raise ConfigError(f"{where} needs more packages ({error.name}): {INSTALL_TLS}") from None
    directory = config.certificate_directory
    credentials = Credentials(directory / "authority.pem", directory / f"server-{server_id}.pem", is_mutual=False)
    try:
        credentials.context()
    except CertificatesMissing as error:
        raise ConfigError(f"{where}: {error}") from None
    return credentials


def check_ports(config: Config, server_id: int) -> None:
    """Raise `ConfigError` if a `tls:` port of a server cannot be opened for want of a certificate or of packages."""
    for endpoint in config.server(server_id).endpoints.values():
        if below_tls(endpoint) is not None:
            client_credentials(config, server_id, endpoint)
