"""The append-only record of decisions and outcomes, and what derives from it; only this package knows SQLAlchemy."""
