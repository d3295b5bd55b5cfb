"""Several machines that send for one origin, with the journal in Redis. Nothing of the daemon uses it yet."""
