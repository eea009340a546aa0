"""Shadows: models that see requests after their reply, in a process of their own."""
