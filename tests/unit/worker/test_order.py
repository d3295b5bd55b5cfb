"""The order in which a batch arrives, as tables."""

from __future__ import annotations

import errno

import pytest

from inosync.changes import OwedNames, Part, Rename, Step
from inosync.rsync.names import CurrentNames
from inosync.worker import order

NEW, CHANGED, UNKNOWN, SWITCHED, REMOVED = Step


@pytest.mark.parametrize(
    ("hint", "state", "expected"),
    [
        (NEW, "there", NEW),
        (CHANGED, "there", CHANGED),
        (SWITCHED, "there", SWITCHED),
        (REMOVED, "there", SWITCHED),
        (NEW, "link", SWITCHED),
        (CHANGED, "link", SWITCHED),
        (SWITCHED, "link", SWITCHED),
        (REMOVED, "link", SWITCHED),
        (NEW, "missing", NEW),
        (CHANGED, "missing", None),
        (SWITCHED, "missing", None),
        (REMOVED, "missing", REMOVED),
        (NEW, "removing", REMOVED),
        (CHANGED, "removing", REMOVED),
    ],
)
def test_step_now(hint: Step, state: str, expected: Step | None) -> None:
    current = CurrentNames([b"f"])
    if state != "there":
        {"link": current.links, "missing": current.missing, "removing": current.removing}[state].add(b"f")
    assert order.step_now(b"f", hint, current) is expected


@pytest.mark.parametrize("hint", Step)
def test_what_the_node_may_have_and_is_gone_waits_unless_it_was_removed(hint: Step) -> None:
    current = CurrentNames([b"f"], missing={b"f"})
    wanted = order.Wanted({b"f": hint}, set())
    found, waiting = order.in_steps(wanted, current, is_ahead=True)
    assert (found, waiting) == (({REMOVED: [b"f"]}, []) if hint is REMOVED else ({}, [b"f"]))


@pytest.mark.parametrize(
    ("step", "state", "expected"),
    [
        (NEW, "there", order.Looked(send=[b"f"])),
        (NEW, "link", order.Looked(later={SWITCHED: [b"f"]})),
        (CHANGED, "missing", order.Looked(waiting=[b"f"])),
        (CHANGED, "removing", order.Looked(later={REMOVED: [b"f"]})),
        (SWITCHED, "there", order.Looked(send=[b"f"])),
        (REMOVED, "missing", order.Looked(send=[b"f"])),
        (REMOVED, "there", order.Looked(come_back=[b"f"])),
        (REMOVED, "entered", order.Looked(send=[b"f"])),
        (REMOVED, "relisted", order.Looked(waiting=[b"f"])),
    ],
)
def test_look_again(step: Step, state: str, expected: order.Looked) -> None:
    current = CurrentNames([b"f"])
    match state:
        case "link":
            current.links.add(b"f")
        case "missing" | "relisted":
            current.missing.add(b"f")
        case "removing":
            current.removing.add(b"f")
    part = Part(1, False, (b"f", b"f/") if state == "relisted" else (b"f",), step=step)
    entered = {b"f"} if state == "entered" else set[bytes]()
    assert order.look_again(part, current, False, entered) == expected


def test_relist_for_removals_goes_although_its_directory_is_there() -> None:
    part = Part(1, False, (b"d/",), step=REMOVED)
    found = order.look_again(part, CurrentNames([b"d/"]), False, set())
    assert found == order.Looked(send=[b"d/"])


@pytest.mark.parametrize("step", Step)
def test_without_takes_names_out_of_one_step_of_one_tree(step: Step) -> None:
    parts = [Part(1, False, (b"a", b"b"), step=step), Part(2, False, (b"a",), step=SWITCHED)]
    names = (b"b",) if step is SWITCHED else (b"a", b"b")
    found = order.without(parts, 1, SWITCHED, [b"a"])
    assert [part.names for part in found] == [names, (b"a",)]


def listed(*entries: tuple[bytes, bool]) -> order.Listing:
    return lambda _wire: list(entries)


def unreadable(_wire: bytes) -> list[tuple[bytes, bool]]:
    raise OSError(errno.ENOENT, "gone")


@pytest.mark.parametrize(
    ("hint", "listing", "names", "removing"),
    [
        pytest.param(NEW, listed((b"d/f", False)), {b"d/": NEW}, set(), id="new"),
        pytest.param(
            NEW,
            listed((b"d/f", False), (b"d/l", True)),
            {b"d/": NEW, b"d": NEW, b"d/f": NEW, b"d/l": SWITCHED},
            {b"d/"},
            id="new, with a link",
        ),
        pytest.param(
            CHANGED,
            listed((b"d/f", False), (b"d/l", True)),
            {b"d/": CHANGED, b"d": CHANGED, b"d/f": CHANGED, b"d/l": SWITCHED},
            {b"d/"},
            id="a relist",
        ),
        pytest.param(
            SWITCHED,
            listed((b"d/f", False)),
            {b"d/": SWITCHED, b"d": SWITCHED, b"d/f": SWITCHED},
            {b"d/"},
            id="replaced",
        ),
        pytest.param(
            REMOVED, listed((b"d/f", False)), {b"d/": REMOVED}, {b"d/"}, id="there for what is gone"
        ),
        pytest.param(CHANGED, unreadable, {b"d/": CHANGED}, set(), id="no directory any more"),
    ],
)
def test_spread_of_a_directory(
    hint: Step, listing: order.Listing, names: dict[bytes, Step], removing: set[bytes]
) -> None:
    found = order.spread({b"d/": hint}, listing)
    assert (found.hints, found.removing) == (names, removing)


def test_spread_of_the_root_sends_its_attributes_with_the_removals() -> None:
    found = order.spread({b"./": CHANGED}, listed((b"f", False)))
    assert (found.hints, found.removing) == ({b"./": CHANGED, b"f": CHANGED}, {b"./"})


def test_spread_tells_what_only_a_second_look_has_found() -> None:
    entries = {b"a/": b"a/f", b"b/": b"b/f", b"c/": b"c/f"}
    hints = dict.fromkeys((*entries, b"b/f", b"g", b"c/f"), CHANGED)
    again = {b"a/", b"b/", b"g", b"c/f"}
    found = order.spread(hints, lambda wire: [(entries[wire], False)], again=again)
    assert found.again == {b"a/f", b"g"}


def test_spread_of_a_second_look_leaves_names_their_own_steps() -> None:
    entries = listed((b"a/new", False), (b"a/link", True), (b"a/other", False))
    hints = {b"a/": SWITCHED, b"a/new": NEW, b"a/link": NEW}
    found = order.spread(hints, entries, again={b"a/"})
    expected = {b"a/new": NEW, b"a/link": SWITCHED, b"a/other": SWITCHED, b"a": SWITCHED, b"a/": SWITCHED}
    assert (found.hints, found.again) == (expected, frozenset({b"a/other"}))


def test_spread_lists_a_new_directory_that_the_node_may_have() -> None:
    entries = listed((b"d/f", False))
    found = order.spread({b"d/": NEW}, entries, is_ahead=True)
    assert (found.hints, found.removing) == ({b"d/": NEW, b"d": NEW, b"d/f": NEW}, {b"d/"})


def test_big_files_are_not_wanted_where_a_relist_only_removes() -> None:
    wanted = order.spread({b"d/": REMOVED, b"d/named": CHANGED, b"e/": CHANGED}, unreadable)
    big = [b"d/named", b"d/found", b"e/found"]
    assert order.big_among(wanted, big) == [b"d/named", b"e/found"]


def test_spread_keeps_the_latest_step_of_a_name() -> None:
    found = order.spread({b"d/f": SWITCHED, b"d/": CHANGED, b"d": NEW}, listed((b"d/f", False)))
    assert found.hints == {b"d/f": SWITCHED, b"d/": CHANGED, b"d": NEW}


def test_names_are_sent_in_steps() -> None:
    names = [b"page", b"current", b"asset", b"old", b"d/", b"temporary", b"gone since"]
    current = CurrentNames(names, missing={b"old", b"temporary", b"gone since"}, links={b"current"})
    hints = {b"page": CHANGED, b"current": SWITCHED, b"asset": NEW, b"d/": CHANGED, b"temporary": NEW}
    found, waiting = order.in_steps(order.Wanted(hints | {b"old": REMOVED}, {b"d/"}), current)
    assert waiting == [b"gone since"]
    assert list(found.items()) == [
        (NEW, [b"asset", b"temporary"]),
        (CHANGED, [b"page"]),
        (SWITCHED, [b"current"]),
        (REMOVED, [b"old", b"d/"]),
    ]


def test_directory_that_was_to_be_relisted_and_is_gone_waits() -> None:
    current = CurrentNames([b"d", b"e", b"g"], missing={b"d", b"e", b"g"})
    hints = {b"d/": REMOVED, b"e/f": REMOVED, b"g/": REMOVED, b"g": REMOVED}
    assert order.in_steps(order.Wanted(hints, set()), current) == ({REMOVED: [b"g"]}, [b"d", b"e"])


@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        pytest.param({b"tmp": NEW}, {NEW: [b"tmp"]}, id="nothing else"),
        pytest.param({b"tmp": NEW, b"f": NEW}, {NEW: [b"f", b"tmp"]}, id="a new name"),
        pytest.param({b"tmp": NEW, b"f": CHANGED}, {CHANGED: [b"f", b"tmp"]}, id="a changed file"),
        pytest.param({b"tmp": NEW, b"f": UNKNOWN}, {SWITCHED: [b"f", b"tmp"]}, id="the file that it became"),
        pytest.param(
            {b"tmp": NEW, b"f": UNKNOWN, b"g": UNKNOWN},
            {UNKNOWN: [b"f", b"g"], SWITCHED: [b"f", b"g"], REMOVED: [b"tmp"]},
            id="several",
        ),
    ],
)
def test_temporary_name_goes_with_what_is_sent_anyway(
    hints: dict[bytes, Step], expected: dict[Step, list[bytes]]
) -> None:
    current = CurrentNames([*hints], missing={b"tmp"})
    assert order.in_steps(order.Wanted(hints, set()), current) == (expected, [])
    assert order.in_steps(order.Wanted(hints, set()), current, is_ahead=True)[1] == [b"tmp"]


def test_file_with_another_name_is_not_sent_before_the_rename_is_followed() -> None:
    wanted = order.spread({b"d/f": UNKNOWN, b"g": UNKNOWN}, lambda _wire: [], [Rename(b"f", b"d/f", False)])
    assert wanted.hints == {b"d/f": SWITCHED, b"g": UNKNOWN}


def test_what_may_be_new_is_added_before_it_replaces_anything() -> None:
    hints = {b"page": UNKNOWN, b"link": UNKNOWN, b"gone": UNKNOWN, b"a": CHANGED, b"d/": UNKNOWN}
    wanted = order.spread(hints, lambda _wire: [(b"d/f", False), (b"d/l", True)])
    assert wanted.hints == hints | {b"d": CHANGED, b"d/f": UNKNOWN, b"d/l": SWITCHED}
    current = CurrentNames([*wanted.hints], missing={b"gone"}, links={b"link", b"d/l"}, removing={b"d/"})
    assert order.in_steps(wanted, current) == (
        {
            CHANGED: [b"a", b"d"],
            UNKNOWN: [b"page", b"d/f"],
            SWITCHED: [b"page", b"link", b"d/f", b"d/l"],
            REMOVED: [b"d/"],
        },
        [b"gone"],
    )


def test_relists_for_removals_alone_are_sent_as_they_are() -> None:
    current = CurrentNames([b"d/"], removing={b"d/"})
    assert order.in_steps(order.Wanted({b"d/gone": REMOVED}, set()), current) == ({SWITCHED: [b"d/"]}, [])
    current = CurrentNames([b"d/", b"f"], removing={b"d/"})
    found = order.in_steps(order.Wanted({b"d/gone": REMOVED, b"f": NEW}, set()), current)
    assert found == ({NEW: [b"f"], REMOVED: [b"d/"]}, [])


def test_rename_is_followed_before_the_step_of_its_new_name() -> None:
    aside, new, lost = Rename(b"site", b"old", True), Rename(b"new", b"site", True), Rename(b"x", b"y", False)
    steps = {NEW: [b"old/", b"f"], SWITCHED: [b"site", b"l"], REMOVED: [b"site/", b"new"]}
    found = order.renames_by_step([aside, new, lost], steps)
    assert found == {NEW: (aside, lost), SWITCHED: (new,)}
    assert order.renames_by_step([], {}) == {}


def test_spread_lists_a_new_directory_that_a_renamed_file_has_entered() -> None:
    entries = listed((b"d/f", False))
    renames = [Rename(b"f", b"d/f", False)]
    found = order.spread({b"d/": NEW}, entries, renames)
    assert (set(found.hints), found.removing) == ({b"d/", b"d", b"d/f"}, {b"d/"})
    assert order.spread({b"d/": NEW}, entries, [Rename(b"x", b"d", True)]).removing == set()


@pytest.mark.parametrize(
    ("name", "target", "owed", "waits"),
    [
        (b"current", b"releases/2", b"releases/2/f", "link"),
        (b"current", b"releases/2", b"releases/2/d/f", "link"),
        (b"current", b"releases/2", b"releases/2", "link"),
        (b"current", b"releases/2", b"releases/2/", "link"),
        (b"current", b"releases/2/public", b"releases/2/", "link, not for long"),
        (b"current", b"releases/2", b"./", "link, not for long"),
        (b"current", b"releases/2", b"releases", ""),  # only its attributes
        (b"current", b"releases/2", b"releases/20/f", ""),
        (b"current", b"releases/2", b"other", ""),
        (b"current", b"/elsewhere", b"elsewhere", ""),
        (b"d/page", None, b"d/asset", "not for long"),
        (b"d/page", None, b"d/e/asset", "not for long"),
        (b"d/page", None, b"d/", "not for long"),
        (b"d/page", None, b"page", ""),
        (b"d/page", None, b"d/page", ""),  # it is sent itself
        (b"d/e", None, b"d/e/asset", ""),  # what is below it goes with it
        (b"releases/1", None, b"releases/2/f", "not for long"),
        (b"old", None, b"new", "not for long"),
    ],
)
def test_what_waits_for_names_that_are_owed(
    name: bytes, target: bytes | None, owed: bytes, waits: str
) -> None:
    def is_held(step: Step, lacking: OwedNames) -> bool:
        return order.behind([name], {name: target}, step, lacking) == [name]

    names = (b"x/y/z", owed)
    assert is_held(SWITCHED, OwedNames(failed=names)) == bool(waits)
    assert is_held(SWITCHED, OwedNames(hopeless=names)) == (waits == "link")
    assert is_held(SWITCHED, OwedNames(big=names)) == (waits == "link")
    if not target:
        assert is_held(REMOVED, OwedNames(big=names)) == bool(waits)
        assert is_held(REMOVED, OwedNames(failed=names)), "what waits may lead to it"
        assert not is_held(REMOVED, OwedNames(hopeless=names)), "it may make the room that is lacking"


def test_relist_waits_for_what_has_failed_and_for_nothing_else() -> None:
    relists = [b"d/", b"./"]
    assert order.behind(relists, {}, REMOVED, OwedNames((b"page",))) == relists
    assert order.behind(relists, {}, REMOVED, OwedNames((), (b"d/big",), (b"d/hopeless",))) == []


def test_removal_of_what_is_lacking_waits_for_nothing() -> None:
    owed = OwedNames((b"d/e/f", b"d/e"), (b"d/e/g",))
    assert order.behind([b"d/e", b"d/e/f", b"d"], {}, REMOVED, owed) == [b"d/e/f"]


@pytest.mark.parametrize(
    ("sent", "failed", "big", "expected"),
    [
        ([], [], [], OwedNames((b"f",), (b"b",), (b"h",))),
        ([b"f", b"b", b"h"], [], [], OwedNames()),
        ([b"f", b"b", b"h"], [b"f"], [b"b"], OwedNames((b"f",), (b"b",))),
        ([b"h"], [b"h"], [], OwedNames((b"f",), (b"b",), (b"h",))),
    ],
    ids=["apart", "all of it is sent", "it has failed again", "it is as hopeless as before"],
)
def test_what_is_lacking_while_a_batch_is_sent(
    sent: list[bytes], failed: list[bytes], big: list[bytes], expected: OwedNames
) -> None:
    before = OwedNames((b"f",), (b"b",), (b"h",))
    assert order.lacking(before, set(sent), set(failed), set(big)) == expected


def test_tidying_relists_the_directory_of_each_name() -> None:
    assert order.tidying([b"d/e/f", b"d/e/g", b"file", b"d/", b"./"]) == [b"d/e/", b"./"]


def part(*names: bytes, step: Step = CHANGED, tree: int = 1, ignore_times: bool = False) -> Part:
    return Part(tree, False, names, step=step, ignore_times=ignore_times)


@pytest.mark.parametrize(
    ("parts", "new", "expected"),
    [
        pytest.param([], part(b"f"), [part(b"f")], id="alone"),
        pytest.param([part(b"f")], part(b"g", b"f"), [part(b"f", b"g")], id="one is longer"),
        pytest.param(
            [part(b"f"), part(b"x", tree=2)],
            part(b"g", step=REMOVED),
            [part(b"f"), part(b"g", step=REMOVED), part(b"x", tree=2)],
            id="before the next tree",
        ),
        pytest.param(
            [part(b"f", step=NEW), part(b"g", step=REMOVED)],
            part(b"h", step=SWITCHED),
            [part(b"f", step=NEW), part(b"h", step=SWITCHED), part(b"g", step=REMOVED)],
            id="between",
        ),
        pytest.param(
            [part(b"f", ignore_times=True)],
            part(b"f", step=SWITCHED),
            [part(b"f", ignore_times=True), part(b"f", step=SWITCHED)],
            id="behind what is compared by content",
        ),
    ],
)
def test_part_is_inserted_behind_all_that_go_earlier(
    parts: list[Part], new: Part, expected: list[Part]
) -> None:
    assert order.inserted(parts, new) == expected


def test_full_mirror_is_two_parts() -> None:
    assert order.in_two(Part(1, True)) == [Part(1, True, step=UNKNOWN), Part(1, True, step=REMOVED)]


def test_only_removals_with_relists_must_send_nothing() -> None:
    assert order.only_removes(part(b"d/", step=REMOVED))
    assert not order.only_removes(part(b"d", step=REMOVED))
    assert not order.only_removes(part(b"d/", step=SWITCHED))
