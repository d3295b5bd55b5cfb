"""Everything that knows rsync: how it is called and run, what it prints, and what its end means."""
