"""`python -m benchmarks.flame`: where the time of a leader goes, as flame graphs and as shares of its parts."""
