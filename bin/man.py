"""Make the man pages inosync(8) and inosync.conf(5) out of README.rst, so that they say the same.

Usage: man.py OUTDIR
"""

from __future__ import annotations

import argparse
import configparser
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import docutils.core
import docutils.nodes as nodes
import docutils.writers.manpage as manpage

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from inosync import __version__  # noqa: E402

DAEMON = (
    "Command line",
    "Asking and steering",
    "What ps shows",
    "The log",
    "Verification",
    "When processes die or hang",
    "When a whole tree is lost",
    "As a service",
    "Metrics and page",
    "Least privilege",
    "Troubleshooting",
    "Limits",
)
CONFIGURATION = (
    "Settings",
    "Excludes",
    "Speed by the time of day",
    "Connections that are kept",
    "Hooks",
)

HEAD = """\
{bar}
{name}
{bar}

{line}
{under}

:Version: inosync {version}
:Manual section: {section}
:Manual group: {group}
"""

SYNOPSIS = """
SYNOPSIS
========

| **inosync** [**-c** *FILE*] [**-d**] [**-p**] [**-v**]
| **inosync** [**-c** *FILE*] **-t** | **--once** [**-v**]
| **inosync** [**-c** *FILE*] **-s** *COMMAND* [*NODE*] [**--json**] [**--timeout** *S*] [**--lag** *S*]
| **inosync** **--version** | **-h**
"""

FILES = """
FILES
=====

``/etc/inosync/default.py``
    The configuration, if no other is named with ``-c``; inosync.conf(5).

``/run/inosync``
    The run directory of root's daemon, ``$XDG_RUNTIME_DIR/inosync`` of another user's: ``NAME.pid``,
    the control socket ``NAME.sock``, and ``NAME.spool`` with what is being sent. NAME is that of the
    configuration without ``.py``.
"""

SEE_ALSO = {
    "inosync": "inosync.conf(5), rsync(1), rsyncd.conf(5), ssh_config(5), inotify(7), systemd.service(5)",
    "inosync.conf": "inosync(8), rsync(1), rsyncd.conf(5), ssh_config(5), inotify(7)",
}

PLACE = """
DESCRIPTION
===========

A configuration of inosync(8) is Python: what it sets under the names below counts. It is
``/etc/inosync/default.py`` unless ``-c`` names another. All mistakes in it are reported at once, each with
its line and what would be right. A running daemon reads it again on SIGHUP, or ``inosync -s reload``; with a
mistake in it the old one stays in force. Such a file can be as short as this::

    wpaths = ["/var/www/"]
    rpaths = ["/var/www/"]
    rnodes = ["www@a.mirror.com:"]
"""


def main() -> int:
    """Write both pages to the directory that is named."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("outdir", type=Path)
    outdir: Path = options.parse_args().outdir
    outdir.mkdir(parents=True, exist_ok=True)
    for name, text in pages((CHECKOUT / "README.rst").read_text()).items():
        (outdir / name).write_text(text)
    return 0


def pages(readme: str) -> dict[str, str]:
    """The two pages, by their file names."""
    parts = sections(readme)
    intro = "\nDESCRIPTION\n===========\n\n" + parts[""] + body(parts["What it is for"])
    daemon = SYNOPSIS + intro + "".join(capital(title, parts[title]) for title in DAEMON) + FILES
    settings = PLACE + "".join(capital(title, parts[title]) for title in CONFIGURATION)
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    line = setup["metadata"]["description"]
    line = line[0].lower() + line[1:]
    conf = "configuration of inosync"
    return {
        "inosync.8": page("inosync", 8, line, "System administration", daemon, DAEMON),
        "inosync.conf.5": page("inosync.conf", 5, conf, "File formats", settings, CONFIGURATION),
    }


def sections(readme: str) -> dict[str, str]:
    """The text of each section by its title, the heading included; "" is what stands before the first."""
    found = {"": ""}
    pieces = re.split(r"^([^\n=]+)\n(=+)\n", readme, flags=re.MULTILINE)
    for title, bar, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        found[title] = f"{title}\n{bar}\n{text}"
    # The first is the title of the whole, with a bar above it as well.
    start = body(found.pop("inosync"))
    found[""] = start.partition("See it work")[0].rstrip() + "\n\n"
    return found


def body(section: str) -> str:
    """A section without its heading."""
    return section.split("\n", 2)[2]


def capital(title: str, section: str) -> str:
    """A section as it begins in a man page."""
    name = title.upper()
    return f"\n{name}\n{'=' * len(name)}\n{body(section)}"


def page(name: str, section: int, line: str, group: str, text: str, own: Sequence[str]) -> str:
    """One page as troff."""
    also = f"\nSEE ALSO\n========\n\n{SEE_ALSO[name]}\n"
    bar, under = "=" * (len(name) + 2), "." * (len(line) + 2)
    facts = {"version": __version__, "section": section, "group": group}
    head = HEAD.format(bar=bar, name=name, line=line, under=under, **facts)
    rst = head + without_references(text, own) + also
    doctree = docutils.core.publish_doctree(rst, settings_overrides={"halt_level": 3, "report_level": 2})
    for table in list(doctree.findall(nodes.table)):
        table.replace_self(as_list(table))
    strict = {"halt_level": 3}
    made = docutils.core.publish_from_doctree(doctree, writer=manpage.Writer(), settings_overrides=strict)
    assert isinstance(made, bytes)
    return made.decode().replace("\n.SH Name\n", "\n.SH NAME\n")


def without_references(text: str, own: Iterable[str]) -> str:
    """Return a text with plain titles instead of references, which a man page cannot follow."""
    names = set(own)

    def titled(found: re.Match[str]) -> str:
        title = found[1] or found[2]
        if title in names:
            return title.upper()
        if title in DAEMON:
            return f"{title.upper()} in inosync(8)"
        if title in CONFIGURATION:
            return f"{title.upper()} in inosync.conf(5)"
        return f'"{title}" in the README'

    return re.sub(r"`([^`<]+)`_(?!_)|\b([A-Z][a-z]+)_(?![\w_])", titled, text)


def as_list(table: nodes.table) -> nodes.definition_list:
    """A table as a list of terms, which is what reads well at any width: a default stands with its name."""
    made = nodes.definition_list()
    for body_of in table.findall(nodes.tbody):
        for row in body_of.findall(nodes.row):
            first, *middle, last = row.findall(nodes.entry)
            term = nodes.term("", "")
            term += [child for paragraph in first.findall(nodes.paragraph) for child in paragraph.children]
            for cell in middle:
                value = cell.astext().replace("\n", " ")
                term += nodes.Text(f" ({value})" if value == "required" else f" (default: {value})")
            definition = nodes.definition("", *last.children)
            made += nodes.definition_list_item("", term, definition)
    return made


if __name__ == "__main__":
    sys.exit(main())
