"""Tests of directed schedules. What they show of planted defects is tested in `tests.simulator.defects`."""
