"""What the end of a run means for its batch, where that is more than the names that were complained of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inosync.changes import Part, Source, Step
from inosync.rsync.argv import TransferSettings
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.outcome import Outcome, Run, judge

SETTINGS = TransferSettings("rsync", "/src", "rsync://h/www/tree")
NO_ROOM = [
    b'rsync: [receiver] write failed on "/tree/big" (in www): No space left on device (28)',
    b"rsync error: error in file IO (code 11) at receiver.c(380) [receiver=3.5.0]",
]
REASON = 'write failed on "/tree/big" (in www): No space left on device (28)'


ROOT = Source((1, 2), True)
"""What the root has to be, also for what is left of a batch."""


def batch(*names: bytes, stderr: list[bytes] = NO_ROOM) -> Outcome:
    return judge(Run(Part(7, False, names, ROOT), names, 11, stderr, []), SETTINGS)


@pytest.mark.parametrize(
    ("names", "aside", "rest"),
    [
        ((b"a", b"big", b"z"), (b"big",), (b"a", b"z")),
        ((b"a", b"big/", b"z"), (b"big/",), (b"a", b"z")),
        ((b"big",), (b"big",), ()),
        ((b"./",), (b"./",), ()),
        ((b"./", b"a"), (b"./",), (b"a",)),
    ],
)
def test_names_that_do_not_fit_are_put_aside(
    names: tuple[bytes, ...], aside: tuple[bytes, ...], rest: tuple[bytes, ...]
) -> None:
    outcome = batch(*names)
    assert outcome.reason == REASON
    assert outcome.due == (Part(7, False, aside),)
    # The rest with backoff: it may not fit either, and a node without any room would keep us busy.
    assert outcome.retry is (ExitKind.RETRY if rest else None)
    assert outcome.instead == ((Part(7, False, rest, ROOT),) if rest else ())


@pytest.mark.parametrize("stderr", [[], NO_ROOM[1:], [b"rsync: something else (5)"]])
def test_outcome_retries_all_if_it_is_unknown_what_does_not_fit(stderr: list[bytes]) -> None:
    outcome = batch(b"a", b"z", stderr=stderr)
    assert (outcome.retry, outcome.due, outcome.instead) == (ExitKind.RETRY, (), ())


def test_full_mirror_that_does_not_fit_is_tried_again() -> None:
    outcome = judge(Run(Part(7, True), (), 11, NO_ROOM, []), SETTINGS)
    assert (outcome.retry, outcome.reason, outcome.due) == (ExitKind.RETRY, REASON, ())


VANISHED = b'file has vanished: "/src/b"'
DENIED = b'rsync: [receiver] mkstemp "/tree/.b.hQv3Zx" (in www) failed: Permission denied (13)'


def partial(stderr: list[bytes], cut: bool = False, full: bool = False, code: int = 23) -> Outcome:
    names = () if full else (b"a", b"b", b"c")
    return judge(Run(Part(7, full, names, ROOT), names, code, stderr, [], cut), SETTINGS)


@pytest.mark.parametrize("full", [False, True], ids=["a batch", "full"])
@pytest.mark.parametrize("code", [23, 24, 25])
def test_names_complained_of_are_due_and_the_rest_is_done(code: int, full: bool) -> None:
    # Where a node refuses something of a full mirror, its deletions may have been left out as well.
    outcome = partial([VANISHED if full else DENIED], full=full, code=code)
    assert (outcome.retry, outcome.instead) == (None, ())
    assert ("vanished" if full else "Permission denied") in outcome.reason
    assert outcome.due == (Part(7, False, (b"b",), step=Step.UNKNOWN if full else Step.CHANGED),)


@pytest.mark.parametrize(
    ("stderr", "cut"), [([], False), ([b"rsync: something else (5)"], False), ([DENIED], True)]
)
@pytest.mark.parametrize("full", [False, True], ids=["a batch", "full"])
def test_outcome_retries_all_if_the_complaint_names_nothing(
    stderr: list[bytes], cut: bool, full: bool
) -> None:
    outcome = partial(stderr, cut, full)
    assert (outcome.retry, outcome.instead) == (None, ())
    [due] = outcome.due
    assert (due.full, due.names) == (full, () if full else (b"a", b"b", b"c"))


DISCARDED = b"Unable to create partial-dir for d/a -- discarding completed file."


def test_exit_code_0_with_a_file_discarded_leaves_that_file_due() -> None:
    part = Part(7, False, (b"d/a", b"z"), ROOT)
    outcome = judge(Run(part, part.names, 0, [DISCARDED], []), SETTINGS)
    assert (outcome.retry, outcome.due) == (None, (Part(7, False, (b"d/a",)),))
    assert outcome.reason == DISCARDED.decode()


@pytest.mark.parametrize(
    "line",
    [
        b"cannot do this",
        b"[receiver] cannot convert filename: a",
        b"rsync: [generator] unable to make a",
        b"a is odd -- skipping it",
    ],
)
def test_exit_code_0_with_anything_else_left_undone_leaves_all_due(line: bytes) -> None:
    part = Part(7, False, (b"a", b"z"), ROOT)
    outcome = judge(Run(part, part.names, 0, [line], []), SETTINGS)
    assert outcome.due == (Part(7, False, (b"a", b"z")),)
    full = Part(7, True)
    assert judge(Run(full, (), 0, [line], []), SETTINGS).due == (full,)


@pytest.mark.parametrize(
    "line",
    [
        b"bash: warning: setlocale: LC_ALL: cannot change locale (en_US.UTF-8)",
        b"Warning: Permanently added 'a' (ED25519) to the list of known hosts.",
        b'skipping non-regular file "fifo"',
        b"cannot delete non-empty directory: d",
        b"welcome to this host, where you cannot log in",
    ],
)
def test_exit_code_0_with_other_lines_is_a_success(line: bytes) -> None:
    part = Part(7, False, (b"a",), ROOT)
    assert judge(Run(part, part.names, 0, [line], []), SETTINGS) == Outcome()


UNCONVERTIBLE = b"[Receiver] cannot convert filename: b (Invalid or incomplete multibyte or wide character)"
UNDELETED = b"rsync: [generator] delete_file: unlink(m/b/f) failed: Permission denied (13)"
ERROR = b"rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394)"
SKIPPED = b"IO error encountered -- skipping file deletion"


def ended(*stderr: bytes, sent: tuple[bytes, ...], missing: bytes = b"", stdout: bytes = b"") -> Outcome:
    part = Part(7, False, sent, ROOT)
    return judge(Run(part, sent, 23, [*stderr, ERROR], [stdout], missing=frozenset({missing})), SETTINGS)


def test_unconvertible_name_is_done_once_it_is_gone() -> None:
    assert ended(UNCONVERTIBLE, sent=(b"a", b"b"), missing=b"b") == Outcome()
    outcome = ended(UNCONVERTIBLE, sent=(b"a", b"b"), missing=b"a")
    assert outcome.due == (Part(7, False, (b"b",)),), "it is there, and the node lacks it"
    assert "cannot convert" in outcome.reason


def test_unconvertible_name_that_is_gone_keeps_other_names_due() -> None:
    outcome = ended(UNCONVERTIBLE, DENIED.replace(b".b.", b".a."), sent=(b"a", b"b"), missing=b"b")
    assert outcome.due == (Part(7, False, (b"a",)),)
    assert outcome.reason


def test_unconvertible_name_that_is_gone_may_cloud_deletions() -> None:
    outcome = ended(UNCONVERTIBLE, sent=(b"b", b"c/"), missing=b"b", stdout=SKIPPED)
    assert outcome == Outcome(instead=(Part(7, False, (b"c/",), ROOT),))


@pytest.mark.parametrize("sent", [(b"m/b",), (b"a", b"m/b")])
def test_outcome_relists_once_what_cannot_be_removed_by_name(sent: tuple[bytes, ...]) -> None:
    outcome = ended(UNDELETED, sent=sent, missing=b"m/b")
    assert outcome == Outcome(instead=(Part(7, False, (b"m/",), ROOT),))
    outcome = ended(UNDELETED, sent=(b"m/",))
    assert (outcome.due, outcome.instead) == ((Part(7, False, (b"m/b",)),), ())


def test_outcome_relists_once_what_cannot_be_replaced_by_name() -> None:
    blocked = b"could not make way for new symlink: m/b"
    outcome = ended(UNDELETED, blocked, sent=(b"m/b", b"a"))
    relist = Part(7, False, (b"m/",), ROOT)
    without_it = replace(relist, step=Step.REMOVED, make_way=(b"m/b",))
    assert outcome == Outcome(instead=(without_it, relist))


def test_directory_of_which_something_stays_does_not_make_way() -> None:
    outcome = ended(UNDELETED, sent=(b"m/b", b"a"))
    assert outcome == Outcome(instead=(Part(7, False, (b"m/",), ROOT),))
    blocked = b"could not make way for new directory: m/b"
    outcome = ended(UNDELETED, blocked, sent=(b"m/b", b"a"))
    assert not any(part.make_way for part in outcome.instead)


def test_relist_beside_the_name_is_not_tried_again() -> None:
    outcome = ended(UNDELETED, sent=(b"m/", b"m/b"), missing=b"m/b")
    assert outcome.instead == ()
    assert outcome.due == (Part(7, False, (b"m/b",)),)
