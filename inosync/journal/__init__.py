"""What has changed, and which node has it."""
