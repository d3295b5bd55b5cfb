"""Decisions without I/O, clock or randomness of their own; all three are arguments."""
