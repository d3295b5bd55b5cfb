"""Programs that run all of inosync on real input, or under many faults."""
