"""The contract: what proxy, consumer and readers agree on. Pure data and pure functions, no I/O."""
