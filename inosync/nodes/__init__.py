"""What a node has and lacks, what it is sent next, and the worker that sends it."""
