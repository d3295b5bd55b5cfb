"""The state of each node: what it is, and how titles, log, hooks and ``status`` tell it."""
