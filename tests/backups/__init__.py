"""Tests of `pfsb.backups`."""
