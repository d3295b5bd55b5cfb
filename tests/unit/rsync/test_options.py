"""The filter rules among a user's own rsync parameters."""

from __future__ import annotations

import shlex

import pytest

from inosync.filters.rule import File, Form, Item, Rule
from inosync.rsync.options import (
    chooses_deletion_time,
    confinable,
    deletes,
    for_comparison,
    forbidden,
    keeps_times,
    one_file_system,
    options,
    parted,
    unseen,
    unwatched,
)

A = Rule(b"a")


@pytest.mark.parametrize(
    ("extra", "words", "rules"),
    [
        ("", "", []),
        ("-avz --rsh='ssh -p 22'", "-avz '--rsh=ssh -p 22'", []),
        ("-e --exclude=a -v", "-e --exclude=a -v", []),
        ("--exclude=a -v", "-v", [A]),
        ("--exclude a -v", "-v", [A]),
        ("--exclude '- a' --include '- a' --include=a", "", [A, A, Rule(b"a", include=True)]),
        ("--exclude= --exclude '' --filter= -f ''", "", []),
        ("--exclude=!", "", [Rule(b"", clear=True)]),
        ("-f '- a' -z", "-z", [A]),
        ("'-f- a' -z", "-z", [A]),
        ("'-f=- a' -z", "-z", [A]),
        ("-f= -z", "-z", []),
        ("-avf 'P a' -z", "-av -z", [Rule(b"a", sides="r")]),
        ("'-avf- a' -z", "-av -z", [A]),
        ("--filter 'exclude a' '--filter=-/! b'", "", [A, Rule(b"b", absolute=True, negate=True)]),
        ("--exclude-from=f", "", [File("f")]),
        ("--exclude-from f --include-from g", "", [File("f"), File("g", include=True)]),
        ("-f '. f'", "", [File("f", Form.FILTER)]),
        ("-f 'merge,- f' -f '.+ f'", "", [File("f", Form.BARE), File("f", Form.BARE, True)]),
        # --from0 counts from where it stands
        ("--exclude-from=f -0 --exclude-from=f", "-0", [File("f"), File("f", nulls=True)]),
        ("-0f '. f'", "-0", [File("f", Form.FILTER, nulls=True)]),
        ("--from0 --no-from0 --exclude-from=f", "--from0 --no-from0", [File("f")]),
        ("-e -0 --exclude-from=f", "-e -0", [File("f")]),
    ],
)
def test_parted_takes_rules_out_and_keeps_all_else(extra: str, words: str, rules: list[Item]) -> None:
    found = parted(shlex.split(extra))
    assert found.words == tuple(shlex.split(words))
    assert list(found.rules) == rules


def test_parted_hands_from0_on() -> None:
    assert parted(["-0"]).nulls
    assert not parted(["-0", "--no-from0"], nulls=True).nulls
    found = parted(["--exclude-from=f"], nulls=True)
    assert (found.nulls, found.rules) == (True, (File("f", nulls=True),))


def test_options_may_have_empty_values() -> None:
    assert list(options(["-e=", "-f=x", "-T", "y", "--rsh="])) == [
        ("-e", ""),
        ("-f", "x"),
        ("-T", "y"),
        ("--rsh", ""),
    ]


@pytest.mark.parametrize(
    ("extra", "option"),
    [
        ("-v --delete-excluded", "--delete-excluded"),
        ("--del", "--del"),
        ("--delete-after --delete", "--delete-after"),
        ("--delay-updates -e --delete", ""),
    ],
)
def test_deletes_names_the_option_that_deletes(extra: str, option: str) -> None:
    assert deletes(shlex.split(extra)) == option


@pytest.mark.parametrize(
    ("words", "stays"),
    [
        ((), False),
        (("-x",), True),
        (("-avxz",), True),
        (("--one-file-system", "-v"), True),
        (("--exclude", "-x"), False),
        (("-x", "--no-x"), False),
        (("--no-one-file-system", "-x"), True),
    ],
)
def test_one_file_system_follows_the_last_option(words: tuple[str, ...], stays: bool) -> None:
    assert one_file_system(words) is stays


@pytest.mark.parametrize(
    ("words", "remote", "local"),
    [
        ((), True, True),
        (("-az", "--exclude", "--temp-dir"), True, True),
        (("--password-file=/etc/secret",), False, False),
        (("--insecure-links",), False, False),
        (("--confine-root=/srv",), False, False),
        (("-zT", "/var/tmp"), True, False),
        (("-avP",), True, False),
        (("-b",), True, False),
        (("--delay-updates",), True, False),
        (("--link-dest=/l",), True, False),
    ],
)
def test_confinable_depends_on_options_that_name_other_places(
    words: tuple[str, ...], remote: bool, local: bool
) -> None:
    assert (confinable(words, False), confinable(words, True)) == (remote, local)


@pytest.mark.parametrize(
    ("extra", "offenders"),
    [
        (["-n"], ["-n"]),
        (["-avzn"], ["-n"]),
        (["-vR", "--list-only"], ["-R", "--list-only"]),
        (["--files-from", "x"], ["--files-from"]),
        (["--files-from=x"], ["--files-from"]),
        (["--exclude-from=-"], ["--exclude-from"]),
        (["--filter=. -"], ["--filter"]),
        (["-f", "merge,- -"], ["-f"]),
        (["-F"], ["-F"]),
        (["-C"], ["-C"]),
        (["--cvs-exclude"], ["--cvs-exclude"]),
        (["-vC"], ["-C"]),
        (["--exclude=- "], ["--exclude"]),
        (["--include", "a!#:+"], ["--include"]),
        (["-f", "x a"], ["-f"]),
        (["--filter=.e /etc/rules"], ["--filter"]),
        (["--exclude-from="], ["--exclude-from"]),
        (["--include-from", ""], ["--include-from"]),
        (["--filter=:- .gitignore"], ["--filter"]),
        (["-f", "dir-merge_.rules"], ["-f"]),
        (["--no-r"], ["--no-r"]),
        (["--remove-source-files"], ["--remove-source-files"]),
        (["/etc"], ["/etc"]),
        (["-e", "ssh", "x"], ["x"]),
        (["-e"], ["-e"]),
        (["--bwlimit"], ["--bwlimit"]),
        (["--"], ["--"]),
    ],
)
def test_forbidden_names_what_would_break_a_transfer(extra: list[str], offenders: list[str]) -> None:
    assert [line.partition(": ")[0] for line in forbidden(extra)] == offenders


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["-avz"],
        ["-r"],
        ["-rltpD", "--delete", "-0"],
        ["-e", "ssh -n -R 1:2"],
        ["-e=ssh", "-essh -n"],
        ["--rsh=ssh -p 2222", "--rsync-path", "sudo rsync"],
        ["-H", "-A", "-X", "--numeric-ids", "--chmod=D755,F644"],
        ["--exclude", "-n", "--exclude-from", "/etc/list", "--filter=. /etc/rules", "-f", "- *.o"],
        ["--password-file=/etc/secret", "--port", "874", "--timeout=60", "-@", "-1"],
        ["--backup", "--backup-dir=../old", "-x", "--max-delete=100"],
    ],
)
def test_forbidden_allows_what_files_for_0_2_3_have(extra: list[str]) -> None:
    assert forbidden(extra) == []


@pytest.mark.parametrize(
    ("extra", "kept"),
    [
        ("-avz", True),
        ("--no-times", False),
        ("--no-t", False),
        ("--no-times -t", True),
        ("--no-t -az", True),
        ("-a --no-times", False),
    ],
)
def test_keeps_times_follows_the_last_option(extra: str, kept: bool) -> None:
    assert keeps_times(shlex.split(extra)) is kept


@pytest.mark.parametrize(
    ("extra", "options_named"),
    [
        ("-avz --delete", []),
        ("-I", []),
        ("--no-times", ["--no-times"]),
        ("--no-times -t", []),
        ("-au --max-size=1G", ["-u", "--max-size"]),
        ("--existing --ignore-existing --append", ["--existing", "--ignore-existing", "--append"]),
    ],
)
def test_unseen_names_what_hides_differences(extra: str, options_named: list[str]) -> None:
    assert list(unseen(shlex.split(extra))) == options_named


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("-avz --delete", False),
        ("--delete-excluded --delete-missing-args", False),
        ("--del", True),
        ("-a --delete-before", True),
        ("--delete-during", True),
        ("--delete-delay", True),
        ("--delete-after -x", True),
    ],
)
def test_time_of_deletions_is_chosen_by_one_option(extra: str, expected: bool) -> None:
    assert chooses_deletion_time(shlex.split(extra)) is expected


def test_unwatched_names_what_follows_symlinks() -> None:
    words = shlex.split("-avzLk --copy-unsafe-links --safe-links -l --keep-dirlinks")
    assert list(unwatched(words)) == ["-L", "-k", "--copy-unsafe-links"]
    assert unwatched(["--archive"]) == {}


def test_options_for_comparison_drop_what_hides_differences() -> None:
    words = ("-avqzI", "--quiet", "--ignore-times", "-e", "ssh", "-I")
    assert for_comparison(words) == ("-a", "-v", "-z", "-e", "ssh")
