"""A node as the master sees it."""
