"""How Sphinx makes the documentation: bin/docs calls it."""

import configparser
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
_setup = configparser.ConfigParser()
_setup.read(_CHECKOUT / "setup.cfg")
_version: dict[str, str] = {}
exec((_CHECKOUT / "inosync" / "__init__.py").read_text(), _version)  # no import: that needs no dependency

project = "inosync"
author = "the inosync contributors"
project_copyright = author
version = release = _version["__version__"]

sys.path.insert(0, str(_CHECKOUT / "docs"))
extensions = ["sphinx.ext.autosectionlabel", "links"]
# Titles are labels: each is unique over all pages. Those of the changelog are not, and both man pages
# have the usual ones.
autosectionlabel_maxdepth = 3
suppress_warnings = ["autosectionlabel.changelog", "autosectionlabel.inosync.conf.5"]
exclude_patterns = ["_build"]
nitpicky = True
smartquotes = False
highlight_language = "none"

html_theme = "alabaster"
html_theme_options = {"description": _setup["metadata"]["description"], "fixed_sidebar": True}
html_copy_source = False
html_show_sourcelink = False

_line = _setup["metadata"]["description"]
man_pages = [
    ("inosync.8", "inosync", _line[0].lower() + _line[1:], "", 8),
    ("inosync.conf.5", "inosync.conf", "configuration of inosync", "", 5),
]
