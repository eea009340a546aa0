"""Models that were trained elsewhere, brought into the registry as files."""
