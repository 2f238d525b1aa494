"""Tests of the drivers, each with a core whose actions a test gives."""
