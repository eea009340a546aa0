"""Baselines that benchmarks compare with, each served by its own uvicorn process."""
