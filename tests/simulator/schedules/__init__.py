"""Tests of directed schedules with correct servers. `tests.simulator.defects` tests what schedules show of planted
defects."""
