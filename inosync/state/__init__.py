"""What is kept over a restart, so that a start needs no full mirrors."""
