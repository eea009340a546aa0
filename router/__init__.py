"""The routing service: experiments, allocation, decisions, the ledger and HTTP."""
