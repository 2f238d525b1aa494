"""How many random examples a test of a property tries, and under which conditions."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings

from tests.long import IS_QUICK


def examples(number: int, **options: Any) -> settings:
    """Settings of hypothesis for a test with `number` random examples; `make quick` tries a fifth of them, but 10 at
    least. `options` are further settings.

    No time is limited, neither that of one example nor that of drawing them: other programs may have the processor.
    """
    given = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]} | options
    return settings(max_examples=max(10, number // 5) if IS_QUICK else number, **given)
