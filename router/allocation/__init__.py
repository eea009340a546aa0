"""How shares of traffic follow from what is known: pure, so that any replica and any verifier gets the same table."""
