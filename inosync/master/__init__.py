"""The master process: its loop, and what an operator asks of it."""
