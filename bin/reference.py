"""Write conf/default.py, and the reference in docs/inosync.conf.5.rst, from the table of settings.

Usage: reference.py
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from inosync.config.settings import GROUPS, REQUIRED, SETTINGS, Setting  # noqa: E402

BEGIN, END = ".. The reference of settings begins: bin/reference.py writes it.", ".. The reference ends."
WIDTH = 110

HEAD = """\
# Configuration of inosync.
#
# This file is Python. Every setting is here: the three that are required with an example, all others
# commented out with their defaults. To change one, remove the "# " in front. Names of your own begin with an
# underscore; modules and functions may have any name. Others must not be able to write to the file or its
# directory, because it is run with the rights of the daemon.
#
# After a change: kill -HUP the master. A file with a mistake is not taken: the old configuration stays in
# force, and one line for each mistake says what would be right.
#
# bin/reference.py writes this file.
"""


def main() -> int:
    """Write both."""
    page = CHECKOUT / "docs" / "inosync.conf.5.rst"
    (CHECKOUT / "conf" / "default.py").write_text(default_file())
    page.write_text(with_reference(page.read_text()))
    return 0


def default_file() -> str:
    """Return the text of conf/default.py."""
    return HEAD + "".join(
        f"\n# {heading} {'-' * (WIDTH - 9 - len(heading))}\n" + "".join(map(_commented, settings))
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
            yield from textwrap.wrap(paragraph, WIDTH - 2, break_on_hyphens=False)


def _assignment(setting: Setting) -> str:
    if setting.default is REQUIRED:
        return setting.sample
    value = setting.default
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return "# {} = [\n{}# ]".format(setting.name, "".join(f'#     "{item}",\n' for item in value))
    return f"# {setting.name} = {_literal(value)}"


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def with_reference(page: str) -> str:
    """Return the text of the page with the reference that the table makes."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin
    assert end
    return f"{before}{begin}\n\n{reference()}{end}{after}"


def reference() -> str:
    """Return a definition list in ReStructuredText: an item for each setting."""
    return "".join(_item(setting) for setting in SETTINGS.values())


def _item(setting: Setting) -> str:
    meaning = setting.meaning.format(unit=setting.unit)
    meaning = f"{meaning[0].upper()}{meaning[1:]}."
    if setting.see:
        meaning += f" See :ref:`{setting.see}`."
    value = setting.default
    if value is REQUIRED:
        default = "required"
    elif isinstance(value, tuple) and isinstance(value[0], str):
        default = "default: " + ", ".join(f"``{item}``" for item in value)
    else:
        default = f"default: ``{_literal(value)}``"
    text = textwrap.indent("\n".join(_wrap(meaning, WIDTH - 4)), "    ")
    return f"``{setting.name}`` ({default})\n{text}\n\n"


def _wrap(text: str, width: int) -> list[str]:
    # An inline literal or a reference with a space in it must not be broken over two lines.
    whole = re.sub(r"``.*?``|:ref:`[^`]*`", lambda found: found[0].replace(" ", "\0"), text)
    wrapped = textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in wrapped]


if __name__ == "__main__":
    sys.exit(main())
