"""What is known about the nodes, for titles, status and hooks."""
