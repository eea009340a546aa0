"""Rehearsing an experiment in a made-up world, with the code that allocates the traffic of a real one."""
