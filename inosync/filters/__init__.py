"""rsync's filter rules: how they are read, and what they exclude."""
