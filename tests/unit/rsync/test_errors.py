"""Which names stay due, for messages as rsync 3.5.0 wrote them (paths shortened)."""

from __future__ import annotations

import pytest

from inosync.rsync.errors import (
    Complaints,
    after_batch,
    after_full,
    relist_of_parent,
    source_moved,
    target_missing,
)

TRAILER = (
    b"rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394)"
)


SKIPPING = b"*** Skipping any contents from this failed directory ***"


ROOT_TIMES = b'rsync: [generator] failed to set times on "/dst/.": Operation not permitted (1)'


def batch(line: bytes | list[bytes], names: list[bytes], target: str = "") -> Complaints:
    lines = line if isinstance(line, list) else [line]
    return after_batch([*lines, TRAILER], "/src", names, target)


# Batches: one message, the names that were sent, those that stay due.
MESSAGES = [
    # the sender's, by the absolute path of the source
    (
        b'rsync: [sender] send_files failed to open "/src/b/x": Permission denied (13)',
        [b"b/x", b"y"],
        [b"b/x"],
    ),
    (b'rsync: [sender] link_stat "/src/b/x" failed: Permission denied (13)', [b"b/x", b"y"], [b"b/x"]),
    (b'rsync: [sender] link_stat "/src/b/x" failed: Not a directory (20)', [b"b/x", b"b"], [b"b/x"]),
    (b'rsync: [sender] opendir "/src/b" failed: Permission denied (13)', [b"b/", b"y"], [b"b/"]),
    (b'rsync: [sender] opendir "/src/." failed: Permission denied (13)', [b"./"], [b"./"]),
    (b'rsync: [sender] readlink_stat("/src/b/x") failed: Permission denied (13)', [b"b/"], [b"b/", b"b/x"]),
    (b'rsync: [sender] read errors mapping "/src/a": No data available (61)', [b"a", b"y"], [b"a"]),
    (b'symlink has no referent: "/src/l"', [b"l", b"y"], [b"l"]),
    (b'file has vanished: "/src/b/z"', [b"b/z", b"y"], [b"b/z"]),
    (b'file has vanished: "/src/b/z"', [b"b/", b"c/"], [b"b/z"]),
    (b'directory has vanished: "/src/b/z"', [b"b/", b"c/"], [b"b/z"]),
    (b"filename overflows max-path len by 1: b/x", [b"b/", b"y"], [b"b/", b"b/x"]),
    # the node's, by an absolute path
    (
        b'rsync: [receiver] mkstemp "/dst/b/.x.XBjjaD" failed: Permission denied (13)',
        [b"b/x", b"y"],
        [b"b/x"],
    ),
    (
        b'rsync: [receiver] mkstemp "/dst/.dot.txxLNx" failed: Permission denied (13)',
        [b".dot", b"y"],
        [b".dot"],
    ),
    (
        b'rsync: [generator] symlink "/dst/b/l" -> "x" failed: Permission denied (13)',
        [b"b/l", b"y"],
        [b"b/l"],
    ),
    (b'rsync: [generator] mknod "/dst/b/p" failed: Permission denied (13)', [b"b/p", b"y"], [b"b/p"]),
    (
        b'rsync: [generator] recv_generator: mkdir "/dst/k" failed: Permission denied (13)',
        [b"k/", b"y"],
        [b"k/"],
    ),
    (b'rsync: [generator] opendir "/dst/b" failed: Permission denied (13)', [b"b/", b"y"], [b"b/"]),
    (b'rsync: [generator] opendir "/dst/old/sub" failed: Permission denied (13)', [b"old", b"y"], [b"old"]),
    (
        b'rsync: [receiver] rename "/dst/b/.x.XBjjaD" -> "b/x": Operation not permitted (1)',
        [b"b/x", b"y"],
        [b"b/x"],
    ),
    (b'rsync: [receiver] stat "/x" (in www) failed: File name too long (36)', [b"x", b"y"], [b"x"]),
    # the node's, from the root of a module, of the transfer
    (b'rsync: [receiver] mkstemp ".x.MVqOq6" (in www) failed: Permission denied (13)', [b"x", b"y"], [b"x"]),
    (
        b'rsync: [receiver] mkstemp "/sub/b/.x.T9dXrD" (in www) failed: Permission denied (13)',
        [b"b/x"],
        [b"b/x"],
    ),
    (
        b'rsync: [receiver] rename "b/.x.ptWmAX" (in www) -> "b/x": Operation not permitted (1)',
        [b"b/x"],
        [b"b/x"],
    ),
    (
        b'rsync: [generator] symlink "b/l" (in www) -> "x" failed: Permission denied (13)',
        [b"b/l", b"y"],
        [b"b/l"],
    ),
    (
        b"rsync: [generator] delete_file: unlink(c/stale) failed: Permission denied (13)",
        [b"c/", b"y"],
        [b"c/stale"],
    ),
    (b"rsync: [generator] delete_file: rmdir(gd/x) failed: Permission denied (13)", [b"gd", b"y"], [b"gd"]),
    (b"rsync: [generator] delete_file: rmdir(c/o/x) failed: Permission denied (13)", [b"c/", b"y"], [b"c/o"]),
    (b"could not make way for new regular file: x", [b"x", b"y"], [b"x"]),
    (b'ERROR: daemon refused to receive file "secret"', [b"secret", b"y"], [b"secret"]),
    (b"ERROR: a failed verification -- update discarded.", [b"a", b"y"], [b"a"]),
    # attributes only
    (
        b'rsync: [generator] failed to set times on "/dst/b": Operation not permitted (1)',
        [b"b/", b"b/x"],
        [b"b"],
    ),
    (
        b'rsync: [generator] failed to set times on "/dst/b": Operation not permitted (1)',
        [b"b/x", b"y"],
        [b"b"],
    ),
    (
        b'rsync: [generator] failed to set permissions on "/dst/b/f": Operation not permitted (1)',
        [b"b/f"],
        [b"b/f"],
    ),
    (
        b'rsync: [generator] failed to modify permissions on "b" (in www): Operation not permitted (1)',
        [b"b/"],
        [b"b"],
    ),
    (b'rsync: [generator] chown "/dst/l" failed: Operation not permitted (1)', [b"l", b"y"], [b"l"]),
    (
        b'rsync: [receiver] chown ".f.2hBe7v" (in www) failed: Operation not permitted (1)',
        [b"f", b"y"],
        [b"f"],
    ),
    (
        b'rsync: [receiver] rsync_xal_set: fsetxattr("k" (in www),"user.a") failed: Permission denied (13)',
        [b"k"],
        [b"k"],
    ),
    (
        b"rsync: [generator] set_acl: xacl_set(k, ACL_TYPE_ACCESS): Operation not permitted (1)",
        [b"k/"],
        [b"k"],
    ),
    (ROOT_TIMES, [b"./", b"b/x"], [b"./"]),
    (ROOT_TIMES, [b"#x", b"b/x"], [b"./"]),
    (
        b'rsync: [generator] failed to set times on "." (in www): Operation not permitted (1)',
        [b"./"],
        [b"./"],
    ),
    # versions that do not tell the role
    (b'rsync: send_files failed to open "/src/b/x": Permission denied (13)', [b"b/x", b"y"], [b"b/x"]),
    (b'rsync: failed to set times on "/dst/.": Operation not permitted (1)', [b"./", b"y"], [b"./"]),
    (b'rsync: mkstemp "/dst/b/.x.XBjjaD" failed: Permission denied (13)', [b"b/x", b"y"], [b"b/x"]),
    # other languages of the node's C library; only the number counts
    (b'rsync: [receiver] mkstemp "/dst/.x.XBjjaD" failed: Keine Berechtigung (13)', [b"x", b"y"], [b"x"]),
]


@pytest.mark.parametrize(("line", "sent", "due"), MESSAGES)
def test_complaint_keeps_its_name_due_and_no_other(line: bytes, sent: list[bytes], due: list[bytes]) -> None:
    found = batch(line, sent)
    assert (found.whole, list(found.due)) == (False, due)


def test_names_below_a_directory_that_failed_stay_due() -> None:
    mkdir = b'rsync: [generator] recv_generator: mkdir "/dst/b/k" failed: Permission denied (13)'
    sent = [b"b/k/", b"b/k/f", b"b/k/j/", b"b/k.x", b"b/k0", b"b"]
    assert batch([mkdir, SKIPPING], sent).due == (b"b/k/", b"b/k/f", b"b/k/j/")


def test_directory_that_failed_in_a_relist_stays_due_with_its_names() -> None:
    mkdir = b'rsync: [generator] recv_generator: mkdir "/dst/b/k" failed: Permission denied (13)'
    assert batch([mkdir, SKIPPING], [b"b/", b"b/k/f", b"y"]).due == (b"b/k", b"b/k/f")


def test_parent_that_was_not_sent_keeps_its_names_due() -> None:
    lines = [b"could not make way for new directory: b", SKIPPING]
    assert batch(lines, [b"b/x", b"b/c/y", b"bb"]).due == (b"b/c/y", b"b/x")


def test_parent_that_is_gone_is_due_though_it_was_not_sent() -> None:
    lines = [
        b'file has vanished: "/src/a"',
        b'file has vanished: "/src/a/b"',
        b"WARNING: parent dir is absent in the file list: a/b",
    ]
    assert batch(lines, [b"a/b/f", b"y"]).due == (b"a", b"a/b", b"a/b/f")


def test_several_complaints_add_up() -> None:
    lines = [ROOT_TIMES, b"could not make way for new regular file: x", b'file has vanished: "/src/z"']
    assert batch(lines, [b"./", b"x", b"y", b"z"]).due == (b"./", b"x", b"z")


@pytest.mark.parametrize(
    "line",
    [
        b"something that no version of rsync says",
        b"Welcome to a.mirror.com!",
        b"Deletions stopped due to --max-delete limit (2 skipped)",
        b'file has vanished: "/elsewhere/b/x"',
        b"could not make way for new regular file: q",
        b'rsync: [receiver] mkstemp "/var/tmp/x.XBjjaD" failed: Permission denied (13)',
    ],
)
def test_complaint_that_fits_no_name_keeps_everything_due(line: bytes) -> None:
    found = batch([ROOT_TIMES, line], [b"b/x", b"y", b"#c"])
    assert found.whole
    assert set(found.due) == {b"b/x", b"y", b"#c"}


def test_failure_without_a_complaint_keeps_everything_due() -> None:
    assert batch([], [b"a"]).whole
    assert after_full([TRAILER], "/src", "/dst").whole


def test_name_that_imitates_a_message_does_not_hide_another() -> None:
    lying = b'rsync: [generator] symlink "/dst/l" -> "m" -> "a" failed: Permission denied (13)'
    assert batch(lying, [b"l", b'l" -> "m']).whole
    assert batch(
        b'rsync: [receiver] mkstemp "/dst/.x" (in y.ABCDEF" failed: Permission denied (13)', [b"x"]
    ).whole


def test_name_with_a_parenthesis_is_read_to_its_end() -> None:
    line = b"rsync: [generator] delete_file: rmdir(g\\#012n)/k) failed: u) failed: Permission denied (13)"
    assert batch(line, [b"g\nn)", b"g\nn"]).due == (b"g\nn)",)


def test_escapes_of_rsync_are_undone() -> None:
    line = (
        b'rsync: [sender] send_files failed to open "/src/a\\#012 \\#134#012 \\#377": Permission denied (13)'
    )
    assert batch(line, [b"a\n \\#012 \xff", b"y"]).due == (b"a\n \\#012 \xff",)


def test_long_temporary_name_may_have_been_cut() -> None:
    name = b"n" * 240
    assert batch(b'rsync: [receiver] mkstemp "/dst/.%b.XBjjaD" failed: x (13)' % name, [name]).whole


def test_path_without_a_target_keeps_all_its_readings_due() -> None:
    line = b'rsync: [generator] mknod "/dst/a/b" failed: Permission denied (13)'
    assert batch(line, [b"b", b"a/b", b"c"]).due == (b"a/b", b"b")
    assert batch(line, [b"b", b"a/b", b"c"], "h:/dst").due == (b"a/b",)
    assert batch(line, [b"b", b"a/b", b"c"], "h:/dst/a/").due == (b"b",)
    assert batch(line, [b"b", b"a/b", b"c"], "h:/link").due == (b"a/b", b"b")


def test_name_that_looks_temporary_stays_due() -> None:
    line = b'rsync: [receiver] chown "/dst/.f.abcdef" failed: Operation not permitted (1)'
    assert batch(line, [b"f", b".f.abcdef", b"y"]).due == (b".f.abcdef", b"f")


def test_temporary_name_stands_for_both_files_it_may_be_of() -> None:
    line = b'rsync: [receiver] mkstemp "/dst/.f.abcdef" failed: Permission denied (13)'
    assert batch(line, [b"f", b".f", b"y"]).due == (b".f", b"f")


UNREADABLE = b'rsync: [sender] opendir "/src/b" failed: Permission denied (13)'


SKIPPED = b"IO error encountered -- skipping file deletion"


def test_relists_stay_due_if_deletions_may_have_been_left_out() -> None:
    found = batch(UNREADABLE, [b"b/", b"c/", b"f"])
    assert found.due == (b"b/", b"c/")
    assert found.clouded == (b"c/",)


def test_relists_are_due_only_if_deletions_were_left_out() -> None:
    names = [b"b/", b"c/", b"f"]
    assert after_batch([UNREADABLE], "/src", names, stdout=[]).due == (b"b/",)
    assert after_batch([UNREADABLE], "/src", names, stdout=[b"x", SKIPPED]).due == (b"b/", b"c/")


def test_relists_are_done_if_the_sender_read_everything() -> None:
    lines = [ROOT_TIMES, b'file has vanished: "/src/f"']
    assert batch(lines, [b"c/", b"./", b"f"]).due == (b"./", b"f")


FULL_TARGETS = [
    ("/dst", b'"/dst/%b"'),
    ("/dst//x/./y/", b'"/dst/x/y/%b"'),
    ("h:/dst", b'"/dst/%b"'),
    ("u@[::1]:/dst/", b'"/dst/%b"'),
    ("h:dst", b'"/home/u/dst/%b"'),
    ("h:~/dst", b'"/home/u/dst/%b"'),
    ("h::www", b'"%b" (in www)'),
    ("u@h::www/sub", b'"/sub/%b" (in www)'),
    ("rsync://u@h:873/www", b'"%b" (in www)'),
    ("rsync://h/www/sub/", b'"/sub/%b" (in www)'),
]


@pytest.mark.parametrize(("target", "shape"), FULL_TARGETS)
def test_attributes_after_full_leave_only_their_names_due(target: str, shape: bytes) -> None:
    times = b"rsync: [generator] failed to set times on " + shape + b": Operation not permitted (1)"
    found = after_full([times % b".", times % b"b", times % b"b/c", TRAILER], "/src", target)
    assert (found.whole, found.due) == (False, (b"./", b"b", b"b/c"))


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("h:", b"/home/u/b"),
        ("h:/link", b"/dst/b"),
        ("h:~other/dst", b"/home/other/dst/b"),
        ("h:../dst", b"/dst/b"),
        ("h:dst", b"/home/dst/dst/b"),
        ("/ds", b"/dst/b"),
    ],
)
def test_path_that_cannot_be_placed_after_full_keeps_the_tree_due(target: str, path: bytes) -> None:
    line = b'rsync: [generator] failed to set times on "%b": Operation not permitted (1)' % path
    assert after_full([line, TRAILER], "/src", target).whole


def test_blocked_file_after_full_stays_due() -> None:
    lines = [b"cannot delete non-empty directory: d/x", b"could not make way for new symlink: d/x", TRAILER]
    found = after_full(lines, "/src", "h:")
    assert (found.due, found.whole) == ((b"d/x",), False)
    # What is below it was not sent either.
    assert after_full([b"could not make way for new directory: d/x", TRAILER], "/src", "h:").whole


def test_vanished_files_stay_due_after_full() -> None:
    lines = [
        b'file has vanished: "/src/z"',
        b"rsync warning: some files vanished before they could be transferred (code 24) at main.c(1394)",
    ]
    assert after_full(lines, "/src", "h:").due == (b"z",)


@pytest.mark.parametrize(
    "line",
    [
        b'rsync: [receiver] mkstemp "/dst/.x.XBjjaD" failed: Permission denied (13)',
        b"rsync: [generator] delete_file: unlink(x) failed: Permission denied (13)",
        b'rsync: [sender] change_dir "/src" failed: No such file or directory (2)',
        b'rsync: [sender] opendir "/src/b" failed: Permission denied (13)',
        b'rsync: [sender] send_files failed to open "/src/x": Permission denied (13)',
        b"unheard of",
    ],
)
def test_other_complaint_after_full_keeps_the_tree_due(line: bytes) -> None:
    found = after_full([ROOT_TIMES, line, TRAILER], "/src", "/dst")
    assert (found.whole, found.due) == (True, ())


def test_unreadable_file_stays_due_alone_if_deletions_are_done() -> None:
    lines = [b'rsync: [sender] send_files failed to open "/src/x": Permission denied (13)']
    assert after_full(lines, "/src", "/dst", stdout=[]).due == (b"x",)
    assert after_full(lines, "/src", "/dst", stdout=[SKIPPED]).whole


def test_complaints_with_the_same_path_on_both_sides_are_told_apart() -> None:
    times = b'rsync: [generator] failed to set times on "/src/www/b": Operation not permitted (1)'
    assert after_full([times], "/src", "h:/src").due == (b"www/b",)
    assert after_full([times], "/src", "h:/src/www").due == (b"b",)


def test_too_many_names_after_full_become_the_tree() -> None:
    times = b'rsync: [generator] failed to set times on "/dst/%d": Operation not permitted (1)'
    assert not after_full([times % number for number in range(100)], "/src", "/dst").whole
    assert after_full([times % number for number in range(10_001)], "/src", "/dst").whole


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        ([b'rsync: [Receiver] change_dir#3 "/dst" failed: No such file or directory (2)'], True),
        ([b'rsync: [Receiver] mkdir "sub/." (in www) failed: No such file or directory (2)'], True),
        ([b'rsync: mkdir "/dst/." failed: No such file or directory (2)'], True),
        ([b'rsync: [Receiver] change_dir#1 "/dst" failed: Permission denied (13)'], False),
        ([b'rsync: [sender] change_dir "/src/" failed: No such file or directory (2)'], False),
        ([TRAILER], False),
    ],
)
def test_target_missing_recognises_only_that(lines: list[bytes], missing: bool) -> None:
    assert target_missing(lines) is missing


def test_source_moved_recognises_only_that() -> None:
    assert source_moved([b"ABORTING due to invalid path from sender: b/x"])
    assert not source_moved([b"protocol version mismatch -- is your shell clean?"])


def test_unconvertible_names_are_those_with_no_other_complaint() -> None:
    lines = [
        b"[Receiver] cannot convert filename: b/s\\#360 (2) (Invalid or incomplete multibyte character)",
        b"[sender] cannot convert filename: y (Invalid or incomplete multibyte or wide character)",
        b'rsync: [receiver] mkstemp "/dst/.y.XBjjaD" failed: Permission denied (13)',
    ]
    found = batch(lines, [b"b/s\xf0 (2)", b"x", b"y"])
    assert (found.due, found.unconvertible) == ((b"b/s\xf0 (2)", b"y"), (b"b/s\xf0 (2)",))


def test_undeleted_names_are_those_that_were_sent() -> None:
    line = b"rsync: [generator] delete_file: unlink(mod/b/f) failed: Permission denied (13)"
    assert batch(line, [b"mod/b", b"y"]).undeleted == (b"mod/b",)
    assert batch(line, [b"mod/", b"y"]).undeleted == ()
    assert batch(line, [b"mod/b/", b"y"]).undeleted == ()


def test_read_only_directory_in_the_way_of_a_link_after_full_is_due() -> None:
    lines = [
        b"rsync: [generator] delete_file: rmdir(mod/b/c) failed: Permission denied (13)",
        b"could not make way for new symlink: mod/b",
        TRAILER,
    ]
    found = after_full(lines, "/src", "h:")
    assert (found.due, found.whole) == ((b"mod/b",), False)
    assert after_full([lines[0].replace(b"mod/b", b"mod/bb"), *lines[1:]], "/src", "h:").whole
    assert batch(lines, [b"mod/b", b"y"]).in_the_way == (b"mod/b",)
    assert batch(lines[:1], [b"mod/b", b"y"]).in_the_way == ()


@pytest.mark.parametrize(
    ("name", "relist"), [(b"a", b"./"), (b"a/b", b"a/"), (b"a/b/", b"a/b/"), (b"a/b/c", b"a/b/")]
)
def test_parent_is_relisted_with_a_slash(name: bytes, relist: bytes) -> None:
    assert relist_of_parent(name) == relist
