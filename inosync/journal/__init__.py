"""What has changed, when it is released, and which changes concern a node."""
