"""Makes the certificates of a cluster: an authority, and one certificate for each server, which the authority signs.

Needs the extra ``pfsb[tls]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pfsb.support.private_files import write_private
from pfsb.transports.tls import CertificatesMissing, server_uri

__all__ = ["CertificateDirectory", "CertificatesMissing"]

AUTHORITY_DAYS: Final = 3_650
"""Number of days for which the certificate of an authority is valid."""
SLACK: Final = timedelta(minutes=5)
"""How far the clock of another machine may be behind that of the machine where a certificate is made."""


@define
class CertificateDirectory:
    """The directory with the certificates of a cluster.

    ``authority.pem`` holds the certificates of the authorities that servers believe, the one that signs first;
    ``authority.key`` the key that signs, which no server needs; ``server-ID.pem`` a server's certificate and key.
    """

    path: Path
    cluster: str

    @property
    def authority_file(self) -> Path:
        return self.path / "authority.pem"

    @property
    def authority_key_file(self) -> Path:
        return self.path / "authority.key"

    def server_file(self, server_id: int) -> Path:
        """The file with the certificate and the key of a server."""
        return self.path / f"server-{server_id}.pem"

    def make_authority(self, now: datetime) -> None:
        """Make an authority that signs from now on. Those that servers believed before are believed further, until
        their certificates expire."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"authority of {now:%Y-%m-%d}", self.cluster)
        certificate = (
            _builder(name, name, key, now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        former = [each for each in self.authorities() if each.not_valid_after_utc > now]
        write_private(self.authority_key_file, _pem_of_key(key))
        write_private(self.authority_file, b"".join(map(_pem, [certificate, *former])))
        self.authority_file.chmod(0o644)

    def authorities(self) -> list[x509.Certificate]:
        """The certificates of the authorities, the one that signs first; none if there is no such file."""
        try:
            return x509.load_pem_x509_certificates(self.authority_file.read_bytes())
        except (OSError, ValueError):
            return []

    def make_server(self, server_id: int, hosts: Iterable[str], now: datetime, days: int) -> None:
        """Make a certificate and a key for a server, in the place of former ones. `hosts` are the names and addresses
        at which clients reach it.

        Raises `CertificatesMissing` if the authority's key is not there.
        """
        authorities = self.authorities()
        if not authorities:
            raise CertificatesMissing(f"{self.authority_file}: holds no certificate that can be read")
        try:
            signing = load_pem_private_key(self.authority_key_file.read_bytes(), None)
        except OSError as error:
            raise CertificatesMissing(
                f"{self.authority_key_file}: {error.strerror}; certificates are made where that file is"
            ) from None
        except (ValueError, TypeError):
            raise CertificatesMissing(f"{self.authority_key_file}: holds no key that can be read") from None
        authority = authorities[0]
        if not isinstance(signing, ec.EllipticCurvePrivateKey) or signing.public_key() != authority.public_key():
            raise CertificatesMissing(f"{self.authority_key_file}: does not fit the first of {self.authority_file}")
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(server_uri(self.cluster, server_id))]
        names += [_host(each) for each in dict.fromkeys(hosts)]
        certificate = (
            _builder(_name(f"server {server_id}", self.cluster), authority.subject, key, now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
                critical=False,
            )
            .sign(signing, hashes.SHA256())
        )
        write_private(self.server_file(server_id), _pem(certificate) + _pem_of_key(key))

    def expiry(self, server_id: int) -> datetime | None:
        """When the certificate of a server expires; None: there is none that can be read."""
        try:
            [certificate, *_] = x509.load_pem_x509_certificates(self.server_file(server_id).read_bytes())
        except (OSError, ValueError):
            return None
        return certificate.not_valid_after_utc


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host.partition("%")[0]))
    except ValueError:
        return x509.DNSName(host)


def _name(common: str, cluster: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
            x509.NameAttribute(NameOID.COMMON_NAME, f"pfsb {common}"),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
