"""From the kernel's events to changes."""
