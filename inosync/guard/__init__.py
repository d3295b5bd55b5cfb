"""Keeps the loss of a whole tree, such as a failed mount, from being mirrored."""
