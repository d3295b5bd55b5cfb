"""Benchmarks: inosync beside other tools, on the same nodes, in the same run. Ratios count, not seconds."""
