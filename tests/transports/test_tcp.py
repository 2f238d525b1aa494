from __future__ import annotations

from tests.transports import every_transport


class DeliveryTests(every_transport.DeliveryTests):
    kinds = ("tcp",)


class RefusalTests(every_transport.RefusalTests):
    absent = frozenset({2})
    kinds = ("tcp",)


class SourceTests(every_transport.SourceTests):
    kinds = ("tcp",)


class NameTests(every_transport.NameTests):
    kinds = ("tcp",)


class MembershipTests(every_transport.MembershipTests):
    kinds = ("tcp",)


class StartAndStopTests(every_transport.StartAndStopTests):
    kinds = ("tcp",)
