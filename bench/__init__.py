"""Benchmarks: each a command that prints ratios against a named baseline measured in the same run."""
