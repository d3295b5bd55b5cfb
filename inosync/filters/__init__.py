"""rsync's exclude rules."""
