"""Write conf/default.py, and the reference in docs/inosync.conf.5.rst, from the table of settings.

Usage: reference.py
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from inosync.config.example import example, literal  # noqa: E402
from inosync.config.settings import REQUIRED, SETTINGS, Setting  # noqa: E402

BEGIN, END = ".. The reference of settings begins: bin/reference.py writes it.", ".. The reference ends."
WIDTH = 110


def main() -> int:
    """Write both."""
    page = CHECKOUT / "docs" / "inosync.conf.5.rst"
    (CHECKOUT / "conf" / "default.py").write_text(example())
    page.write_text(with_reference(page.read_text()))
    return 0


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
        default = f"default: ``{literal(value)}``"
    text = textwrap.indent("\n".join(_wrap(meaning, WIDTH - 4)), "    ")
    return f"``{setting.name}`` ({default})\n{text}\n\n"


def _wrap(text: str, width: int) -> list[str]:
    # An inline literal or a reference with a space in it must not be broken over two lines.
    whole = re.sub(r"``.*?``|:ref:`[^`]*`", lambda found: found[0].replace(" ", "\0"), text)
    wrapped = textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in wrapped]


if __name__ == "__main__":
    sys.exit(main())
