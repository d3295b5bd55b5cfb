"""The one-slot queue: whole messages, no waiting, and the other side's end."""

from __future__ import annotations

import os
import pickle
import select
import signal
from collections.abc import Iterator

import pytest
from support.wait import until

from inosync.nodes.messages import Batch, Done, Started, TitleUpdate
from inosync.system import channel, process
from inosync.system.channel import MAX_MESSAGE_BYTES, Endpoint, QueueError

Pair = tuple[Endpoint, Endpoint]


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = channel.pair()
    yield made
    for end in made:
        end.close()


def waiting(end: Endpoint) -> bool:
    return bool(select.select([end], [], [], 0)[0])


def fill(end: Endpoint, message: object) -> int:
    """Put a message again and again until that is refused; how often it was taken."""
    for count in range(10_000):
        try:
            end.put(message)
        except QueueError:
            return count
    raise AssertionError("the pipe is never full")


def test_messages_arrive_whole_and_in_order_both_ways(pair: Pair) -> None:
    master, worker = pair
    sent = [
        Batch(1, 3, False, b"\x80payload\n\0"),
        TitleUpdate("7"),
        Batch(2, 0, True, file="/run/x"),
    ]
    for message in sent:
        master.put(message)
    assert [worker.get() for _ in sent] == sent
    worker.put(Started(12))
    worker.put(Done(1, 0.5, 23, "some"))
    assert [master.get(), master.get()] == [Started(12), Done(1, 0.5, 23, "some")]


def test_get_without_a_message_returns_none_at_once(pair: Pair) -> None:
    for end in pair:
        assert end.get() is None
        assert not waiting(end)


def test_endpoint_is_readable_when_a_message_has_arrived(pair: Pair) -> None:
    master, worker = pair
    master.put(TitleUpdate("1"))
    assert waiting(worker)
    assert not waiting(master)
    worker.get()
    assert not waiting(worker)


@pytest.mark.parametrize("side", [0, 1])
def test_get_returns_what_was_sent_before_the_other_end_closed(side: int) -> None:
    pair = channel.pair()
    ours, theirs = pair[side], pair[1 - side]
    theirs.put(Started(1))
    theirs.close()
    assert waiting(ours)
    assert ours.get() == Started(1)
    assert waiting(ours)
    for _ in range(2):
        with pytest.raises(QueueError):
            ours.get()
        with pytest.raises(QueueError):
            ours.put(TitleUpdate("1"))
    ours.close()


def test_put_sends_the_longest_message_and_refuses_a_longer_one(pair: Pair) -> None:
    master, worker = pair
    overhead = len(pickle.dumps(b"x" * 3000, pickle.HIGHEST_PROTOCOL)) - 3000
    longest = b"x" * (MAX_MESSAGE_BYTES - overhead)
    master.put(longest)
    assert worker.get() == longest
    with pytest.raises(ValueError, match="bytes"):
        master.put(longest + b"x")
    assert worker.get() is None
    master.put(TitleUpdate("1"))
    assert worker.get() == TitleUpdate("1")


def test_put_into_a_full_pipe_raises_and_never_waits(pair: Pair) -> None:
    master, worker = pair
    message = b"x" * 4000
    count = fill(master, message)
    assert count > 0
    # What was taken before is whole, and nothing of the refused one is there.
    assert [worker.get() for _ in range(count)] == [message] * count
    assert worker.get() is None
    master.put(TitleUpdate("1"))
    assert worker.get() == TitleUpdate("1")


def test_unread_bytes_of_the_queue_are_seen_from_outside(pair: Pair) -> None:
    master, worker = pair
    sizes = []
    for number in range(3):
        before = master.written
        master.put(TitleUpdate(f"{number}" + "x" * number))
        sizes.append(master.written - before)
    for left in (sizes, sizes[1:], sizes[2:], []):
        assert process.unread(master.send_fd) == sum(left)
        worker.get()
    fill(master, b"x" * 4000)
    assert process.unread(master.send_fd) == master.written - sum(sizes)


def test_forked_worker_answers_until_the_master_closes_the_queue(pair: Pair) -> None:
    master, worker = pair
    inherited = master.descriptors()

    def echo() -> None:
        process.close(inherited)
        try:
            while True:
                select.select([worker], [], [])
                message = worker.get()
                if message is not None:
                    worker.put(("echo", message))
        except QueueError:
            process.leave(42)

    child = process.fork(echo, "echo")
    worker.close()
    for i in range(20):
        master.put(TitleUpdate(f"{i}"))
        assert until(master.get, 60, "an answer") == ("echo", TitleUpdate(f"{i}"))
    master.close()
    child.join(60)
    assert child.exitcode == 42


def test_get_raises_after_the_death_of_the_worker(pair: Pair) -> None:
    master, worker = pair
    child = process.fork(signal.pause, "sleeper")
    worker.close()
    assert child.pid is not None
    assert master.get() is None
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    assert waiting(master)
    with pytest.raises(QueueError):
        master.get()
    with pytest.raises(QueueError):
        master.put(TitleUpdate("1"))


def test_put_to_a_stopped_worker_never_waits(pair: Pair) -> None:
    master, _worker = pair
    child = process.fork(signal.pause, "stopped")
    assert child.pid is not None
    try:
        os.kill(child.pid, signal.SIGSTOP)
        fill(master, b"x" * 4000)
        assert master.get() is None
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join(60)
