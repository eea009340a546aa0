"""Rollouts: from sums to findings, from findings to a verdict, and from a verdict to the next stage."""
