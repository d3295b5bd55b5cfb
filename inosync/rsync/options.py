"""The user's own rsync options (``extra``): the filter rules in them, and which of them are refused.

They come late in all argument vectors (``argv``), so they can undo what these rely on. Each entry here was
tried with rsync 3.5.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from inosync.filters.rule import File, FilterError, Item, from_filter, from_pattern, merged

# Options whose value may be the next word (rsync --help), which is no source then.
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


def _by_option(text: str) -> dict[str, str]:
    """Read lines of "option option: sentence"."""
    lines = (line.strip().partition(": ") for line in text.strip().splitlines())
    return {option: sentence for options, _, sentence in lines for option in options.split()}


_FORBIDDEN_TEXT = """
    -n --dry-run: nothing would be transferred; to see the calls, use inosync -p
    --list-only --help -V --version: nothing would be transferred
    --daemon --server --sender: this is an option of a server
    --files-from: inosync itself says what to look at
    -C --cvs-exclude -F: files of rules in each directory are not supported; put the rules into rexcludes
    -R --relative --no-R --no-relative: inosync decides how paths map to the node
    --no-r --no-recursive: a full mirror needs recursion
    --no-d --no-dirs --old-d --old-dirs: lists of names need --dirs
    --read-batch --write-batch --only-write-batch: rsync's batch mode works for one call only
    --remove-source-files --remove-sent-files: it would empty the directory that is to be mirrored
    --: options come before it, and inosync adds the paths itself
"""
_FORBIDDEN = _by_option(_FORBIDDEN_TEXT)
_READS_FILE = frozenset(("--exclude-from", "--include-from", "--password-file", "--early-input"))
_FILTERS = frozenset(("-f", "--filter", "--exclude", "--include", "--exclude-from", "--include-from"))
# A comparison has to print, and tells files apart by size and time.
_NOT_FOR_COMPARISON = frozenset(("-q", "--quiet", "-I", "--ignore-times"))
_TIMES = {"-a": True, "--archive": True, "-t": True, "--times": True, "--no-t": False, "--no-times": False}

_UNSEEN_TEXT = """
    --append --append-verify: a verification does not compare files that are not shorter on the node
    --existing --ignore-non-existing: a verification does not see what a node lacks
    --ignore-existing: a verification does not compare files that a node has
    --max-size: a verification does not see files that are larger
    --min-size: a verification does not see files that are smaller
    -u --update: a verification does not compare files that are newer on the node
    --no-t --no-times: a verification without checksums compares sizes only
    --size-only: a verification without checksums compares sizes only
"""
_UNSEEN = _by_option(_UNSEEN_TEXT)
_UNWATCHED_TEXT = """
    -L --copy-links: changes of what symlinks lead to are not watched, a verification finds them (rverify)
    -k --copy-dirlinks: changes of what symlinks lead to are not watched, a verification finds them (rverify)
    --copy-unsafe-links: changes outside of the wpath are not watched, a verification finds them (rverify)
"""
_UNWATCHED = _by_option(_UNWATCHED_TEXT)
_ONE_FILE_SYSTEM = frozenset(("-x", "--one-file-system", "--no-x", "--no-one-file-system"))
_NULLS = {"-0": True, "--from0": True, "--no-from0": False}

# With --confine-root the sender refuses what these name outside of that root: rsync(1).
_SENDER_PATHS = frozenset(
    ("--log-file", "--password-file", "--early-input", "--config", "--confine-root", "--insecure-links")
)
# A local receiver inherits --confine-root. With these it needs a place that it is refused then, and discards
# files, or keeps what is to be removed, with exit 0 (tried). --remote-option=--confine-root=/ would help, but
# any --remote-option of a local transfer breaks the protocol when there are many names (3.5.0, tried).
_RECEIVER_PATHS_TEXT = """
    -T --temp-dir -P --partial --partial-dir -b --backup --backup-dir --delay-updates
    --compare-dest --copy-dest --link-dest
"""
_RECEIVER_PATHS = frozenset(_RECEIVER_PATHS_TEXT.split())

_Option = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Parted:
    """``extra``, taken apart."""

    words: tuple[str, ...]
    """The words without filter rules."""
    rules: tuple[Item, ...]
    """The filter rules."""
    nulls: bool
    """Whether --from0 is in force at the end."""


def parted(extra: Iterable[str], nulls: bool = False) -> Parted:
    """Take filter rules out of words of which none is ``forbidden``."""
    words: list[str] = []
    rules: list[Item] = []
    for group, found in _groups(extra):
        for option, _ in found:
            nulls = _NULLS.get(option, nulls)
        option, value = found[-1]
        if option in _FILTERS:
            rules += _rules(option, value or "", nulls)
            flags = "".join(letter.removeprefix("-") for letter, _ in found[:-1])
            words += [f"-{flags}"] if flags else []
        else:
            words += group
    return Parted(tuple(words), tuple(rules), nulls)


def _rules(option: str, value: str, nulls: bool) -> tuple[Item, ...]:
    include = option.startswith("--include")
    if option.endswith("-from"):
        return (File(value, include=include, nulls=nulls),)
    if option in ("-f", "--filter"):
        file = merged(value, nulls)
        return (file,) if file else from_filter(value)
    return from_pattern(value, include)


def forbidden(extra: Sequence[str]) -> list[str]:
    """Return a line for each word of ``extra`` that would break transfers: "-n: nothing would be ..."."""
    return [f"{option}: {why}" for option, value in options(extra) if (why := _objection(option, value))]


def _objection(option: str, value: str | None) -> str:
    if not option.startswith("-") or option == "-":
        return "not an option; rsync would take it for one more source"
    if why := _FORBIDDEN.get(option):
        return why
    if _takes_value(option) and value is None:
        return "its value is missing"
    if option in _READS_FILE and value == "-":
        return "standard input carries the list of names"
    if option in _READS_FILE and value == "":
        return "the name of a file is missing"
    if option in _FILTERS:
        try:
            _rules(option, value or "", False)
        except FilterError as error:
            return f"{error.rule!r}: {error.problem}"
    return ""


def unseen(extra: Iterable[str]) -> dict[str, str]:
    """Return for each option what a verification cannot see because of it."""
    found = {option: _UNSEEN[option] for option, _ in options(extra) if option in _UNSEEN}
    return {option: text for option, text in found.items() if option not in _TIMES or not keeps_times(extra)}


def unwatched(extra: Iterable[str]) -> dict[str, str]:
    """Return for each option what is mirrored because of it, and is not watched."""
    return {option: _UNWATCHED[option] for option, _ in options(extra) if option in _UNWATCHED}


def keeps_times(extra: Iterable[str]) -> bool:
    """Whether the times of files are mirrored, as they are by default."""
    kept = True
    for option, _ in options(extra):
        kept = _TIMES.get(option, kept)
    return kept


def for_comparison(extra: Iterable[str]) -> tuple[str, ...]:
    """Return the words without options that would hide differences, or make everything one."""
    words: list[str] = []
    for group, found in _groups(extra):
        if any(option in _NOT_FOR_COMPARISON for option, _ in found):
            kept = [(option, value) for option, value in found if option not in _NOT_FOR_COMPARISON]
            words += [word for option in kept for word in option if word is not None]
        else:
            words += group
    return tuple(words)


def deletes(extra: Iterable[str]) -> str:
    """Return the first option that deletes on nodes whatever ``rdelete`` says, or ""."""
    found = (option for option, _ in options(extra))
    return next((option for option in found if option == "--del" or option.startswith("--delete")), "")


def chooses_deletion_time(extra: Iterable[str]) -> bool:
    """Whether ``extra`` says when to delete, which only one option may."""
    when = ("before", "during", "delay", "after")
    return any(option == "--del" or option.removeprefix("--delete-") in when for option, _ in options(extra))


def recurses(extra: Iterable[str]) -> bool:
    """Whether ``extra`` turns recursion on, which -a does not do beside a list of names."""
    return any(option in ("-r", "--recursive") for option, _ in options(extra))


def limits_size(extra: Iterable[str]) -> bool:
    """Whether these options say how large a file may be; another --max-size would undo that."""
    return any(option == "--max-size" for option, _ in options(extra))


def confinable(extra: Iterable[str], is_local: bool) -> bool:
    """Whether these options still work with --confine-root; ``is_local``: the receiver runs here, too."""
    refused = _SENDER_PATHS | _RECEIVER_PATHS if is_local else _SENDER_PATHS
    return not any(option in refused for option, _ in options(extra))


def one_file_system(extra: Iterable[str]) -> bool:
    """Whether rsync stays on the file system that a tree begins on."""
    last = [option for option, _ in options(extra) if option in _ONE_FILE_SYSTEM][-1:]
    return last in (["-x"], ["--one-file-system"])


def modify_window(extra: Iterable[str]) -> int:
    """Return the last --modify-window in seconds; -1, as we set it, compares nanoseconds."""
    given = [value for option, value in options(extra) if option in ("-@", "--modify-window")]
    try:
        return int(given[-1] or "") if given else -1
    except ValueError:
        return -1


def _takes_value(option: str) -> bool:
    return option in _VALUED_LONG or (len(option) == 2 and option[1] in _VALUED_SHORT)


def options(words: Iterable[str]) -> Iterator[_Option]:
    """Yield single options with their values; a word that is no option comes with None."""
    for _, found in _groups(words):
        yield from found


def _groups(words: Iterable[str]) -> Iterator[tuple[tuple[str, ...], list[_Option]]]:
    """Yield each word, with the next one if that is its value, and the options in it, at least one."""
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            found: list[_Option] = [(option, value if equals else None)]
        elif word.startswith("-") and len(word) > 1:
            found = list(_bundled(word))
        else:
            found = [(word, None)]
        option, own = found[-1]
        following = next(rest, None) if own is None and _takes_value(option) else None
        if following is None:
            yield (word,), found
        else:
            yield (word, following), [*found[:-1], (option, following)]


def _bundled(word: str) -> Iterator[_Option]:
    """Yield -avz as -a, -v, -z; the first that takes a value has the rest of the word, if there is any."""
    for at, letter in enumerate(word[1:], start=2):
        if letter in _VALUED_SHORT:
            yield f"-{letter}", word[at:].removeprefix("=") if word[at:] else None
            return
        yield f"-{letter}", None
