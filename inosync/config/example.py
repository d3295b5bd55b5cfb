"""A commented configuration file, made of the table of settings: conf/default.py, and what --init writes."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator

from inosync.config.settings import GROUPS, REQUIRED, Setting

_WIDTH = 110
_HEAD = """\
# Configuration of inosync.
#
# This file is Python. Every setting is here: the three that are required with an example, all others
# commented out with their defaults. To change one, remove the "# " in front. Names of your own begin with an
# underscore; modules and functions may have any name. Others must not be able to write to the file or its
# directory, because it is run with the rights of the daemon.
#
# After a change: inosync -s reload. A file with a mistake is not taken: the old configuration stays in
# force, and one line for each mistake says what would be right.
"""


def write_example(path: str) -> None:
    """Write the file where none is; OSError if there is one, or it cannot be written.

    Its directory is made if it is missing, as /etc/inosync is at first.
    """
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o755)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "w") as file:
        file.write(example())


def example() -> str:
    return _HEAD + "".join(
        f"\n# {heading} {'-' * (_WIDTH - 9 - len(heading))}\n" + "".join(map(_commented, settings))
        for heading, settings in GROUPS.items()
    )


def _commented(setting: Setting) -> str:
    meaning = setting.meaning.replace("``", "").format(unit=setting.unit)
    own = " An item of rnodes can have its own." if setting.per_node else ""
    lines = _wrapped(f"{meaning[0].upper()}{meaning[1:]}.", setting.text + own)
    return "\n" + "".join(f"# {line}".rstrip() + "\n" for line in lines) + f"{_assignment(setting)}\n"


def _wrapped(meaning: str, text: str) -> Iterator[str]:
    first, *others = text.split("\n\n")
    paragraphs = [meaning, first, *others] if first.startswith(" ") else [f"{meaning} {first}", *others]
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ""
        if paragraph.startswith(" "):
            yield from paragraph.splitlines()
        else:
            yield from textwrap.wrap(paragraph, _WIDTH - 2, break_on_hyphens=False)


def _assignment(setting: Setting) -> str:
    if setting.default is REQUIRED:
        return setting.sample
    value = setting.default
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return "# {} = [\n{}# ]".format(setting.name, "".join(f'#     "{item}",\n' for item in value))
    return f"# {setting.name} = {literal(value)}"


def literal(value: object) -> str:
    """Return a value as it is written in a configuration file."""
    return f'"{value}"' if isinstance(value, str) else repr(value)
