"""The append-only record of decisions and outcomes, and the state derived from it. Only this package knows SQLAlchemy."""
