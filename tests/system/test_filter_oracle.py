"""rsync is the oracle: our filter rules and ``rsync -n`` hide and protect the same names of the same trees.

Rules are drawn as words of ``extra``. rsync reads these words, or those that we make of them for its command
line; we read them as a configuration does.

INOSYNC_FILTER_CASES is the number of rule lists to try, by default 2,000; each run draws others. Hypothesis
prints a difference as the falsifying example, with the blob that repeats it.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.filters import protecting

from inosync.config.errors import Invalid
from inosync.config.pattern_files import PatternFiles
from inosync.filters.rule import Rule
from inosync.filters.rules import Rules, effective
from inosync.rsync.options import forbidden, parted

RSYNC = shutil.which("rsync") or ""
pytestmark = pytest.mark.skipif(not RSYNC, reason="rsync is not installed")

CASES = int(os.environ.get("INOSYNC_FILTER_CASES", "1000"))
PARTS = 4
"""Tests that share the cases and may run in parallel."""
BATCH = 8
"""Rule lists of one example, tried in parallel because an rsync mostly sleeps."""

NAMES = rb"a b ab aab A a.b - ] a] * ** ? [a] [ ! a\b \ \* #a ; ;a 1 b^ \#040".split()
NAMES += [b"a b", b" ", b"a ", b"\n", b"a\nb", b"\xff", b"a\xe9"]
TREES = 24

Options = list[tuple[str, bytes]]
"""The options with rules of one command line: the form of each, and its value.

A form is what stands before the value, ``|`` where the next word begins. If it ends in ``@``, the value is
the content of a file whose name stands there.
"""

Case = tuple[int, Options, bool]
"""The number of a tree, the rules for it, and whether rsync gets them as we would write them."""

Paths = dict[bytes, bool]
"""Paths of a tree, parents first, each with whether it is a directory."""


@dataclass(frozen=True)
class Outcome:
    """What a run of rsync lists (with -I all that is not hidden) and deletes."""

    sent: frozenset[bytes]
    deleted: frozenset[bytes]


class Trees:
    """The trees src and dst on disk, and their entries. A path in both has one type."""

    def __init__(self, seed: int, root: bytes) -> None:
        rng = random.Random(seed)
        paths = grown(rng, sorted({*rng.sample(NAMES, 8), b"a", b"b", b"ab"}))
        self.root = root
        self.source = thinned(rng, paths, 0.85)
        self.target = thinned(rng, paths, 0.85)
        self.target_children: dict[bytes, list[bytes]] = {}
        for path in self.target:
            self.target_children.setdefault(path.rpartition(b"/")[0], []).append(path)
        built(os.path.join(root, b"src"), self.source)
        built(os.path.join(root, b"dst"), self.target)
        os.chmod(root, 0o700)  # or else the files of rules in it are not trusted


def grown(rng: random.Random, names: list[bytes], parent: bytes = b"", level: int = 1) -> Paths:
    """Draw a tree up to four levels deep."""
    paths: Paths = {}
    for name in rng.sample(names, rng.randint(4, 9 - level)):
        path = parent + name
        paths[path] = level < 4 and rng.random() < 0.6
        if paths[path]:
            paths |= grown(rng, names, path + b"/", level + 1)
    return paths


def thinned(rng: random.Random, paths: Paths, share: float) -> Paths:
    kept: Paths = {}
    for path, is_dir in paths.items():
        parent = path.rpartition(b"/")[0]
        if (not parent or parent in kept) and rng.random() < share:
            kept[path] = is_dir
    return kept


def built(root: bytes, paths: Paths) -> None:
    os.makedirs(root)
    for path, is_dir in paths.items():
        full = os.path.join(root, path)
        if is_dir:
            os.mkdir(full)
        else:
            os.close(os.open(full, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW))


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> list[Trees]:
    root = os.fsencode(tmp_path_factory.mktemp("filters"))
    return [Trees(seed, os.path.join(root, b"%d" % seed)) for seed in range(TREES)]


# What rsync says

LISTED = re.compile(rb"^@([^@]+)@(.+?)/?$", re.MULTILINE)
KEPT = re.compile(rb"^cannot delete non-empty directory: (.+)$", re.MULTILINE)
"""With -n, rsync may list such a directory as deleted all the same."""

FILES = itertools.count()


def started(trees: Trees, arguments: list[bytes]) -> subprocess.Popen[bytes]:
    fixed = [b"-rniiI", b"--delete", b"--out-format=@%i@%n"]
    return subprocess.Popen(
        [os.fsencode(RSYNC), *fixed, *arguments, trees.root + b"/src/", trees.root + b"/dst/"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"LC_ALL": "C", "PATH": os.defpath},
    )


def words(trees: Trees, options: Options) -> list[bytes]:
    """Return the options as words, and write the files that they name."""
    given: list[bytes] = []
    for form, value in options:
        value = value.replace(b"%R", trees.root)
        if form.endswith("@"):
            name = trees.root + b"/rules-%d" % (next(FILES) % 64)
            with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(value)
            form, value = form[:-1], name
        before, next_word, after = form.partition("|")
        first, last = before.encode(), after.encode() + value
        given += [first, last] if next_word else [first + last]
    return given


def unescaped(name: bytes) -> bytes:
    return re.sub(rb"\\#([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), name)


def said(process: subprocess.Popen[bytes]) -> Outcome | str:
    """Return what rsync lists and deletes, or its error if it refuses the rules."""
    out, err = process.communicate(timeout=150)
    if process.returncode in (1, 11):  # a rule, or a file that cannot be read
        return err.decode(errors="backslashreplace")
    assert process.returncode == 0, err
    listed = [(action, unescaped(name)) for action, name in LISTED.findall(out)]
    sent = frozenset(name for action, name in listed if action[:1] != b"*")
    deleted = frozenset(name for action, name in listed if action[:1] == b"*")
    return Outcome(sent - {b"."}, deleted - {unescaped(name) for name in KEPT.findall(out)})


# What we say


def expected(trees: Trees, rules: Sequence[Rule]) -> Outcome:
    hidden = Rules(rules, trees.root + b"/src")
    kept = protecting(rules, trees.root + b"/dst")
    kept_in_dying = protecting(rules, trees.root + b"/dst", dying=True)
    sent = frozenset(path for path, is_dir in trees.source.items() if not hidden.excluded_below(path, is_dir))
    deleted: set[bytes] = set()
    for directory in (b"", *sent):
        for path in trees.target_children.get(directory, ()):
            if path not in sent and not kept.excluded(path, trees.target[path]):
                remove(trees, path, kept_in_dying, deleted)
    return Outcome(sent, frozenset(deleted))


def remove(trees: Trees, path: bytes, kept: Rules, deleted: set[bytes]) -> bool:
    """Delete a path and its content, except directories that keep something; return whether it is gone."""
    gone = True
    for child in trees.target_children.get(path, ()):
        is_kept = kept.excluded(child, trees.target[child])
        gone = not is_kept and remove(trees, child, kept, deleted) and gone
    if gone:
        deleted.add(path)
    return gone


def read(arguments: list[bytes]) -> tuple[Rule, ...] | str:
    """Return the rules in these words, or why they are refused."""
    extra = [os.fsdecode(word) for word in arguments]
    if refused := forbidden(extra):
        return "; ".join(refused)
    try:
        return effective(PatternFiles().rules(parted(extra).rules))
    except Invalid as invalid:
        return "; ".join(problem.problem for problem in invalid.problems)


# Rule lists

TOKENS = (
    rb"a b ab A . 1 # ! ^ - _ , * * ** ** *** ? ? / / \ \* \\ [ ] [: :] [ab] [!a] a/b a/** **/a a*/b*".split()
)
TOKENS += [b"\xff", b"\n", b" "]
GLOBS = rb"a b ab * a* *b *a*b ? ?? a? ?b [ab] [!a] [^b]* \** ** *** **a a** a**b **b* *.* ***b".split()
MEMBERS = rb"a b c A - - ] ! ^ / [ : . 1 * \ \] \- \\ a-c !-z [:alpha:] [:punct:] [:x:] -a a-".split()
MEMBERS += [b"\xff", b" ", b"[:space:]", b"[:upper:]", b"[:alpha", b"Z-\xff"]
ENDS = rb"%R %R/ %R/src/ %R/src/** **%R/src/ **/src/ /**/src/ src/ **/dst/ %R/dst/ *[!x]src/".split()
"""Ends of patterns with the modifier /; %R stands for the absolute path of the parent of src and dst."""


Texts = st.SearchStrategy[bytes]


def joined(parts: Texts, least: int, most: int, by: bytes = b"") -> Texts:
    return st.lists(parts, min_size=least, max_size=most).map(by.join)


def glued(*parts: Texts) -> Texts:
    return st.tuples(*parts).map(b"".join)


CLASSES = glued(
    st.sampled_from([b"[", b"[", b"[!", b"[^"]), joined(st.sampled_from(MEMBERS), 0, 3), st.just(b"]")
)
COMPONENTS = st.one_of(st.sampled_from(NAMES), st.sampled_from(GLOBS), st.sampled_from(GLOBS))
WITH_CLASS = glued(
    st.sampled_from(rb"a b * / a/ ** **/ ?".split()) | st.just(b""), CLASSES, COMPONENTS | st.just(b"")
)
BODIES = st.one_of(
    COMPONENTS, joined(COMPONENTS, 2, 3, by=b"/"), joined(st.sampled_from(TOKENS), 0, 5), WITH_CLASS, CLASSES
)
PATTERNS = glued(st.sampled_from([b"", b"", b"/"]), BODIES, st.sampled_from([b"", b"", b"/", b"/***"]))
ABSOLUTE = glued(
    st.sampled_from([b"-/", b"+/", b"-/s", b"P/", b"-!/"]), st.just(b" "), st.sampled_from(ENDS), BODIES
)
LETTERS = glued(st.sampled_from([b"+", b"-", b"-", b"H", b"S", b"P", b"R"]), st.sampled_from([b"", b","]))
WORDS = st.sampled_from([b"include,", b"exclude,", b"hide,", b"show,", b"protect,", b"risk,"])
MODIFIERS = joined(st.sampled_from([b"/", b"!", b"p", b"s", b"r", b"x"]), 0, 2)
FILTERS = st.one_of(
    glued(LETTERS | WORDS, MODIFIERS, st.just(b" "), PATTERNS),
    glued(
        st.sampled_from([b"+", b"-", b"hide", b"exclude", b"risk"]), st.sampled_from([b" ", b"_"]), PATTERNS
    ),
    st.sampled_from([b"!", b"clear", b"P,p a*", b"-p *b", b"+ */", b"- *", b"+ a/***"]),
    ABSOLUTE,
)
NO_FILTERS = joined(
    st.sampled_from([b"-", b"+", b"!", b"clear", b"P", b",", b"_", b" ", b"/", b"q", b"a"]), 1, 5
)
OLD = glued(st.sampled_from([b"", b"", b"", b"- ", b"+ ", b"!"]), PATTERNS)
LINES = joined(OLD | st.sampled_from([b"#a", b";", b";a", b"", b"!", b"a\rb", b"ab\r"]), 0, 5, by=b"\n")
FILTER_LINES = joined(FILTERS | st.sampled_from([b"#a", b";", b"", b"!", b"clear"]), 0, 5, by=b"\n")


def forms(names: str, values: Texts) -> st.SearchStrategy[tuple[str, bytes]]:
    return st.tuples(st.sampled_from(names.split()), values)


PLAIN = st.one_of(
    forms("--exclude= --exclude|", OLD),
    forms("--exclude= --exclude|", OLD),
    forms("--include= --include|", OLD),
    forms("--filter= --filter| -f| -f= -vf| -vf=", FILTERS),
    forms("--filter= --filter| -f -vf", FILTERS),
)
RARE = st.one_of(
    forms("--exclude-from=@ --exclude-from|@ --include-from=@ --include-from|@", LINES),
    st.tuples(st.sampled_from(["--filter=.- @", "-f.,+ @", "-f|merge,- @", "-vf|.+_@"]), LINES),
    st.tuples(st.sampled_from(["--filter=. @", "-f|merge @", "-vfmerge_@"]), FILTER_LINES),
    forms("--filter= -f|", NO_FILTERS),
    st.tuples(st.sampled_from(["-0", "-v0", "--from0", "--no-from0"]), st.just(b"")),
)


def with_nulls(options: Options, nulls: bool) -> Options:
    """With ``nulls``, --from0 comes first, and lines end in NUL where they ended in CR.

    In a line NUL ends a pattern for rsync, silently; we refuse that.
    """
    if not nulls:
        return options
    ended = [(form, value.replace(b"\r", b"\0")) for form, value in options if form != "--no-from0"]
    return [("--from0", b""), *ended]


LISTS = st.one_of(
    st.lists(PLAIN, min_size=1, max_size=2),
    st.lists(PLAIN, min_size=1, max_size=6),
    st.builds(with_nulls, st.lists(PLAIN | RARE, min_size=1, max_size=4), st.booleans()),
)
CASE = st.tuples(st.integers(0, TREES - 1), LISTS, st.sampled_from([False, False, True]))
EXAMPLES = st.lists(CASE, min_size=BATCH, max_size=BATCH)


def compared(forest: list[Trees], cases: list[Case]) -> None:
    running: list[subprocess.Popen[bytes]] = []
    ours: list[Outcome | str] = []
    try:
        for number, options, rewritten in cases:
            given = words(forest[number], options)
            rules = read(given)
            if rewritten and not isinstance(rules, str):
                given = [os.fsencode(rule.word) for rule in rules]
            running.append(started(forest[number], given))
            ours.append(rules if isinstance(rules, str) else expected(forest[number], rules))
        outcomes = [said(process) for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.communicate()
    for case, mine, theirs in zip(cases, ours, outcomes, strict=True):
        if isinstance(mine, str) and isinstance(theirs, str):
            continue  # both refuse, each in its own words
        assert mine == theirs, f"{case}: {difference(mine, theirs)}"


def difference(mine: Outcome | str, theirs: Outcome | str) -> str:
    if isinstance(mine, str) or isinstance(theirs, str):
        return f"ours {mine!r}, rsync {theirs!r}"
    sides: list[tuple[str, Callable[[Outcome], frozenset[bytes]]]] = [
        ("sent", lambda outcome: outcome.sent),
        ("deleted", lambda outcome: outcome.deleted),
    ]
    pairs = ((verb, names(mine), names(theirs)) for verb, names in sides)
    return "; ".join(
        f"{verb} only by us {sorted(a - b)}, only by rsync {sorted(b - a)}" for verb, a, b in pairs
    )


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(PARTS))
def test_rules_hide_and_protect_the_same_names_as_rsync(forest: list[Trees], seed: int, part: int) -> None:
    @hypothesis.seed(PARTS * seed + part)
    @settings(
        max_examples=-(-CASES // PARTS // BATCH),
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases=EXAMPLES)
    def check(cases: list[Case]) -> None:
        compared(forest, cases)

    check()


@pytest.mark.parametrize("rewritten", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        [("--filter=", b"-! a")],
        [("--filter=", b"-/ /**/src/a")],
        [("--exclude=", b"/***")],
    ],
)
def test_rules_that_once_differed_from_rsync_agree(
    forest: list[Trees], options: Options, rewritten: bool
) -> None:
    compared(forest, [(number, options, rewritten) for number in range(BATCH)])
