"""From the kernel's events to changes: a watch on each directory, walks, polling, hard links, open files."""
