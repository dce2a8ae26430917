"""Benchmarks: each measures convkit against a named alternative, on the same data and in the same run."""
