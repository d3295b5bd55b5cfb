"""Everything about rsync's interface."""
