"""Recognises an rsync that is too old, or broken, by what it says on standard error.

The texts are those of a node's rsync 3.2.3 without the option, and of 3.5.0 with the check of 3.4.3 put back
(RsyncProject/rsync, issue 910). With a daemon they come in exit 2 or 4, through a shell in 2 or 12, and in
others where the protocol is older than 31: so the text counts, not the code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_DELETE_MISSING = b"--delete-missing-args"
_UNKNOWN = re.compile(rb"rsync: (?P<remote>on remote machine: )?(?P<option>-[\w-]+)(?:=.*)?: unknown option")
# 3.4.3 refuses the mode that means "this is gone".
_MODE_OF_MISSING = re.compile(rb"(?:rsync: )?invalid file mode 00 for .* \[\w+\]")
# rsyncd.conf(5), refuse options; 3.1.0 and later print the long name, even if the short one is refused.
_REFUSES = re.compile(rb"configured to refuse --([\w-]+)")
_VERSION = re.compile(rb"rsync error: .* \[\w+=(\d[\w.-]*)\]")


def reason(lines: Sequence[bytes]) -> str:
    """Return which side's rsync is unfit, and why, for the operator; "" if it is another error."""
    for number, line in enumerate(lines):
        stripped = line.strip()
        if unknown := _UNKNOWN.fullmatch(stripped):
            whose = "the node's rsync" if unknown["remote"] else "rsync"
            option = unknown["option"].decode("ascii", "replace")
            mend = "a newer one is needed"
            if not unknown["remote"]:
                mend = f"if it is spelt right in extra, {mend}"
            return f"{whose}{_version(lines[number:])} does not know {option}: {mend}"
        if _MODE_OF_MISSING.fullmatch(stripped):
            option = _DELETE_MISSING.decode("ascii")
            return f"the node's rsync{_version(lines[number:])} is broken in {option}: another one is needed"
    return ""


def refuses_missing(lines: Sequence[bytes]) -> bool:
    """Whether a batch failed because it listed names that are gone (``TransferSettings.list_missing``)."""
    for line in lines:
        unknown = _UNKNOWN.fullmatch(line.strip())
        if (unknown and unknown["option"] == _DELETE_MISSING) or _MODE_OF_MISSING.fullmatch(line.strip()):
            return True
    return False


def refused_by_daemon(lines: Sequence[bytes]) -> str:
    """Return the option that a daemon's ``refuse options`` forbids, without dashes; "" if it is none."""
    found = next((found for line in lines if (found := _REFUSES.search(line))), None)
    return found[1].decode("ascii", "replace") if found else ""


def _version(lines: Sequence[bytes]) -> str:
    """Return " 3.1.0" from the first line that has one: that rsync ends first, the other one follows."""
    found = next((found for line in lines if (found := _VERSION.fullmatch(line.strip()))), None)
    return f" {found[1].decode('ascii', 'replace')}" if found else ""
