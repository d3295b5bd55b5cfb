"""Programs that run the whole of inosync on real input, or on the worst that there is."""
