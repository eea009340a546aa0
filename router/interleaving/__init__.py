"""One list from the rankings of several rankers, and whose merit a click on it is."""
