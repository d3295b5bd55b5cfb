"""A daemon that mirrors directories: watch -> journal -> nodes -> worker -> rsync (docs/architecture.rst)."""

__version__ = "0.3.0"
