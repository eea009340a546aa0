"""Other model servers with the same model and features, each in an environment of its own with its own packages."""
