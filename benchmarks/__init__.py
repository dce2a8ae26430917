"""Benchmarks: each compares convkit with a named alternative, on the same data and in the same run."""
