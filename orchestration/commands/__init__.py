"""Commands for an endpoint of one's own, from its file to live traffic; each module is imported only when called."""
