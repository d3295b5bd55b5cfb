"""Mirror directories to many remote nodes in near real time, with inotify and rsync."""

__version__ = "0.3.0"
