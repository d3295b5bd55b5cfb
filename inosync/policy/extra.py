"""What a user's own rsync parameters (``extra``) may not say.

They come late in both argument vectors (``command``), so they can undo what the vectors rely on. Each
entry here was tried against both with rsync 3.5.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

# Options whose value may be the next word (rsync --help): what follows them is no source of its own.
_VALUED_LONG_TEXT = """
    --address --backup-dir --block-size --bwlimit --cc --checksum-choice --checksum-seed --chmod --chown
    --compare-dest --compress-choice --compress-level --compress-threads --config --confine-root
    --contimeout --copy-as --copy-dest --debug --dparam --early-input --exclude --exclude-from
    --files-from --filter --groupmap --iconv --include --include-from --info --link-dest --log-file
    --log-file-format --log-format --max-alloc --max-delete --max-size --min-size --modify-window
    --only-write-batch --out-format --outbuf --partial-dir --password-file --port --protocol
    --read-batch --remote-option --rsh --rsync-path --skip-compress --sockopts --stderr --stop-after
    --stop-at --suffix --temp-dir --time-limit --timeout --usermap --write-batch --zc --zl --zt
"""
_VALUED_LONG = frozenset(_VALUED_LONG_TEXT.split())
_VALUED_SHORT = frozenset("BefMT@")

_NOTHING_SENT = "nothing would be transferred"
_STDIN = "standard input carries the list of names"
_RELATIVE = "inosync decides how paths map to the node"
_DIRS = "lists of names need --dirs"
_MERGED = "rsync reads such a file as one single rule (--from0); put the rules into rexcludes"
_BATCH_FILE = "rsync's batch mode works for one call only"

_FORBIDDEN = {
    "-n": f"{_NOTHING_SENT}; to see the calls, use inosync -p",
    "--dry-run": f"{_NOTHING_SENT}; to see the calls, use inosync -p",
    "--list-only": _NOTHING_SENT,
    "--help": _NOTHING_SENT,
    "-V": _NOTHING_SENT,
    "--version": _NOTHING_SENT,
    "--daemon": "this is an option of a server",
    "--server": "this is an option of a server",
    "--sender": "this is an option of a server",
    "--files-from": "inosync itself says what to look at",
    "-F": _MERGED,
    "-R": _RELATIVE,
    "--relative": _RELATIVE,
    "--no-R": _RELATIVE,
    "--no-relative": _RELATIVE,
    "--no-r": "a full mirror needs recursion",
    "--no-recursive": "a full mirror needs recursion",
    "--no-d": _DIRS,
    "--no-dirs": _DIRS,
    "--old-d": _DIRS,
    "--old-dirs": _DIRS,
    "--read-batch": _BATCH_FILE,
    "--write-batch": _BATCH_FILE,
    "--only-write-batch": _BATCH_FILE,
    "--remove-source-files": "it would empty the directory that is to be mirrored",
    "--remove-sent-files": "it would empty the directory that is to be mirrored",
    "--": "options come before it, and inosync adds the paths itself",
}
_READS_FILE = frozenset(
    ("--exclude-from", "--include-from", "--password-file", "--early-input", "--files-from")
)


def forbidden(extra: Sequence[str]) -> list[str]:
    """One line for each word of ``extra`` that would break a transfer: "-n: nothing would be ..."."""
    return [f"{option}: {why}" for option, value in options(extra) if (why := _objection(option, value))]


def _objection(option: str, value: str | None) -> str:
    if not option.startswith("-") or option == "-":
        return "not an option; rsync would take it for one more source"
    if why := _FORBIDDEN.get(option):
        return why
    if _takes_value(option) and value is None:
        return "its value is missing"
    if option in _READS_FILE and value == "-":
        return _STDIN
    return _filter_objection(value) if option in ("-f", "--filter") and value else ""


def _filter_objection(rule: str) -> str:
    """MERGE-FILE FILTER RULES: ``merge`` or ``.``, ``dir-merge`` or ``:``, modifiers, space or _, a file."""
    head, _, name = rule.replace("_", " ", 1).partition(" ")
    kind = head.split(",")[0]
    if head.startswith(":") or kind == "dir-merge":
        return _MERGED
    return _STDIN if name.strip() == "-" and (head.startswith(".") or kind == "merge") else ""


def recurses(extra: Iterable[str]) -> bool:
    """Whether ``extra`` turns recursion on. -a does not, where there is a list of names."""
    return any(option in ("-r", "--recursive") for option, _ in options(extra))


def _takes_value(option: str) -> bool:
    return option in _VALUED_LONG or (len(option) == 2 and option[1] in _VALUED_SHORT)


def options(words: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """The single options of some words with their values; what is no option comes with None."""
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            yield option, value if equals else next(rest, None) if _takes_value(option) else None
        elif word.startswith("-") and len(word) > 1:
            yield from _bundled(word, rest)
        else:
            yield word, None


def _bundled(word: str, rest: Iterator[str]) -> Iterator[tuple[str, str | None]]:
    """-avz as -a, -v, -z; the first that takes a value has the rest of the word, or else the next one."""
    for at, letter in enumerate(word[1:], start=2):
        if letter in _VALUED_SHORT:
            yield f"-{letter}", word[at:].removeprefix("=") or next(rest, None)
            return
        yield f"-{letter}", None
