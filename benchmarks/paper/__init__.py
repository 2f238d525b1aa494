"""`python -m benchmarks.paper`: section 7 of the paper again, on this machine, drawn beside the paper's values."""
