"""Addresses of servers, as programs and configurations name them."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pfsb.client.servers import addresses_of
from pfsb.config.config import ConfigError


class TLSAddressTests(SynchronousTestCase):
    def test_address_with_tls_names_the_authority(self) -> None:
        """An address with tls:// has the authority that the program names, or, without one, the authorities that the
        machine believes."""
        tls, plain, wide = addresses_of(["tls://db2:9402", "db2:9403", "tls://[::1]:9402"], "authority.pem")
        self.assertEqual((tls.place, tls.shown, tls.tls), (("db2", 9402), "tls://db2:9402", True))
        self.assertEqual((tls.authority, plain.tls, plain.authority), ("authority.pem", False, None))
        self.assertEqual((wide.place, wide.shown), (("::1", 9402), "tls://[::1]:9402"))
        self.assertIsNone(addresses_of(["tls://db2:9402"])[0].authority)
        self.assertRaises(ConfigError, addresses_of, ["tls://db2"])

    def test_configuration_names_the_authority_of_its_directory(self) -> None:
        """An address from a configuration has the authority in the directory of the configuration, unless the program
        names another one."""
        path = Path(self.mktemp())
        path.write_text('cluster: x\ncertificates: made\nservers:\n  0: {peer: "db0:1", client: "tls:9400"}\n')
        [address] = addresses_of(path)
        self.assertEqual((address.shown, address.authority), ("tls://db0:9400", "made/authority.pem"))
        self.assertEqual(addresses_of(path, "other.pem")[0].authority, "other.pem")
