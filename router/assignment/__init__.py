"""Pure functions from a unit to an arm: hash, bucket, epoch, audience."""
