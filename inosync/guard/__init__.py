"""Protection against mirroring the loss of a whole tree."""
