"""What a session does for a well-behaved client, and what it says to others."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from vtest_client import Client, FakeHost, Served, close_all, readable

from hesper.portable import SharedMemory, page_size
from hesper.protocol.virtgpu import MAX_TIMELINES
from hesper.vtest import wire
from open_files import assert_closed_since, open_files, opened_since

BLOB = struct.Struct("<IIQQ")


@pytest.fixture
def served() -> Iterator[Served]:
    one = Served()
    one.client.handshake()
    yield one
    one.end()


def test_handshake_is_answered_as_mesa_expects(served: Served) -> None:
    assert served.host.names == ["test"]
    assert served.client.ask(15, 1) == (1, MAX_TIMELINES)
    assert served.client.ask(15, 2) == (0, 0)
    assert served.client.ask(16, 4, 0)[1:] == struct.unpack("<40I", served.host.capset)
    assert served.client.ask(16, 2, 0) == (0,)
    assert served.client.ask(16, 4, 1) == (0,)
    assert served.end() == ""
    assert served.host.context.closed


def test_a_name_is_made_printable() -> None:
    one = Served()
    one.client.handshake(b"a\x1b[31mb\nc\xff\0")
    one.client.flush()
    assert one.host.names == ["a?[31mb?c�"]
    assert one.end() == ""


def test_a_handshake_in_single_bytes_is_served() -> None:
    one = Served()
    message = struct.pack("<II", 5, 8) + b"slow\0" + struct.pack("<II", 0, 10)
    for byte in message:
        one.client.sock.sendall(bytes([byte]))
    assert one.client.reply().command == 10
    assert one.end() == ""


def test_blob_is_shared_and_its_id_used_again(served: Served) -> None:
    client = served.client
    first, fd = client.create_blob(100)
    with SharedMemory.from_fd(fd, 100) as memory:
        memory.view[:5] = b"hello"
        assert bytes(served.host.context.blobs[first].view[:5]) == b"hello"
    second, other = client.create_blob(page_size() * 3, blob_id=77)
    assert (first, second) == (1, 2)
    client.words(3, first)
    again, third = client.create_blob(1, kind=1)
    assert again == first
    close_all(fd, other, third)


def test_blob_without_room_is_one_the_client_cannot_map(served: Served) -> None:
    resource, fd = served.client.create_blob(1 << 40)
    with pytest.raises(OSError, match=r".*"):
        mmap.mmap(fd, mmap.PAGESIZE)
    os.close(fd)
    served.client.words(3, resource)
    served.client.flush()
    assert len(served.host.warnings) == 1
    assert served.host.warnings[0].startswith(f"{1 << 40}: ")
    assert served.end() == ""


def test_syncs_hold_64_bits(served: Served) -> None:
    big = (1 << 64) - 2
    sync = served.client.sync(big)
    assert served.client.sync_value(sync) == big
    served.client.send(22, struct.pack("<IQ", sync, 5))
    assert served.client.sync_value(sync) == 5
    served.client.words(20, sync)
    served.client.flush()
    assert served.end() == ""


@pytest.mark.parametrize("ring_idx", [1, 63])
def test_a_batch_signals_when_its_timeline_gets_there(served: Served, ring_idx: int) -> None:
    client, context = served.client, served.host.context
    sync = client.sync(0)
    client.submit((b"\1\2\3\4" * 3, [(sync, 7)], ring_idx))
    client.flush()
    assert context.submitted == [b"\1\2\3\4" * 3]
    assert client.sync_value(sync) == 0
    fd = client.wait([(sync, 7)])
    assert not readable(fd, 0)
    ((index, retired),) = context.fences
    assert index == ring_idx
    retired()
    assert readable(fd)
    assert client.sync_value(sync) == 7
    os.close(fd)


@pytest.mark.parametrize("either", [False, True])
def test_who_waits_for_a_lost_device_is_told(served: Served, either: bool) -> None:
    """Mesa takes a descriptor that ends without having been readable for VK_ERROR_DEVICE_LOST."""
    client, context = served.client, served.host.context
    one, two = client.sync(0), client.sync(0)
    client.submit((b"", [(one, 1)], 1), (b"", [(two, 1)], 2))
    waiting = client.wait([(one, 1), (two, 1)], any_=either)
    assert ended(waiting, 0) is None
    (_, lose), (_, retire) = context.fences
    lose(lost=True)
    if not either:
        assert ended(waiting, 0) is None
        retire()
    assert ended(waiting) == "lost"
    late = client.wait([(one, 1)])
    assert ended(late) == "lost"
    # The sync itself may be signalled by others from then on.
    assert client.sync_value(one) == 1
    client.send(22, struct.pack("<IQ", one, 2))
    again = client.wait([(one, 2)])
    assert ended(again) == "signalled"
    for fd in (waiting, late, again):
        os.close(fd)


def ended(fd: int, seconds: float = 20) -> str | None:
    """How a wait has ended, as Mesa sees it; None when it has not."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    found = poll.poll(seconds * 1000)
    if not found:
        return None
    return "signalled" if found[0][1] & select.POLLIN else "lost"


@pytest.mark.parametrize("ring_idx", [None, 0])
def test_a_batch_of_no_queue_signals_at_once(served: Served, ring_idx: int | None) -> None:
    sync = served.client.sync(0)
    served.client.submit((b"", [(sync, 9)], ring_idx))
    assert served.client.sync_value(sync) == 9
    assert served.host.context.fences == []
    assert served.host.context.submitted == []


@pytest.mark.parametrize("words", [6, 8])
def test_several_batches_go_in_order_with_either_layout(served: Served, words: int) -> None:
    client, context = served.client, served.host.context
    one, two = client.sync(0), client.sync(0)
    client.submit(
        (b"aaaa", [(one, 1), (two, 2)], 1), (b"", [], 2), (b"bbbbcccc", [(one, 3)], 4), words=words
    )
    client.flush()
    assert context.submitted == [b"aaaa", b"bbbbcccc"]
    assert [ring_idx for ring_idx, _ in context.fences] == [1, 4]
    for _, retired in context.fences:
        retired()
    assert (client.sync_value(one), client.sync_value(two)) == (3, 2)


def test_a_large_submit_arrives_whole(served: Served) -> None:
    data = os.urandom(3 << 20)
    served.client.submit((data, [], 1))
    served.client.flush()
    assert served.host.context.submitted == [data]


def test_batches_of_six_and_of_eight_words(served: Served) -> None:
    """Mesa 25.0 sends batches without the counts of DRM sync objects."""
    commands = (0x11111111, 0x22222222)
    short = (2, 0, 13, 1, 15, 0, 0, 0, 14, 1, 15, 0, 0, *commands)
    long = (2, 0, 17, 1, 19, 0, 0, 5, 5, 0, 18, 1, 19, 0, 0, 5, 5, *commands)
    for words in (short, long):
        served.client.words(24, *words)
        served.client.flush()
    first, second = b"\x11" * 4, b"\x22" * 4
    assert served.host.context.submitted == [first, second, first, second]


def test_waits_for_all_and_any(served: Served) -> None:
    client = served.client
    one, two = client.sync(0), client.sync(0)
    write = struct.Struct("<IQ")
    all_, any_ = client.wait([(one, 1), (two, 1)]), client.wait([(one, 1), (two, 1)], any_=True)
    twice = client.wait([(one, 1), (one, 2)])
    client.send(22, write.pack(one, 1))
    client.flush()
    assert (readable(all_, 0), readable(any_, 0), readable(twice, 0)) == (False, True, False)
    client.send(22, write.pack(one, 2))
    client.send(22, write.pack(two, 5))
    client.flush()
    assert (readable(all_, 0), readable(twice, 0)) == (True, True)
    ready, half = client.wait([(one, 2), (two, 5)]), client.wait([(one, 3), (two, 5)], any_=True)
    never = client.wait([(one, 3)], timeout=0)
    assert (readable(ready, 0), readable(half, 0), readable(never, 0)) == (True, True, False)
    close_all(all_, any_, twice, ready, half, never)


def test_messages_that_come_together_are_served_in_order(served: Served) -> None:
    """Some are the kernel's, some the session's, and the last one is not whole yet."""
    client = served.client
    create, read, ping = (struct.pack("<IIQ", 2, 19, 7), struct.pack("<III", 1, 21, 1), (0, 10))
    client.sock.sendall(create + read + struct.pack("<II", *ping) + read + create[:11])
    replies = [client.reply() for _ in range(4)]
    client.sock.sendall(create[11:])
    replies.append(client.reply())
    assert [reply.command for reply in replies] == [19, 21, 10, 21, 19]
    assert [struct.unpack("<I", replies[i].data) for i in (0, 4)] == [(1,), (2,)]
    assert replies[1] == replies[3]
    assert served.end() == ""


def test_the_sessions_messages_keep_their_data_among_others(served: Served) -> None:
    client = served.client
    sync = client.sync(0)
    first, one = client.create_blob(100)
    with client.together():
        client.words(3, first)
        client.send(22, struct.pack("<IQ", sync, 5))
        client.send(18, struct.pack("<IIQQ", 2, 1, 5000, 77))
        client.words(21, sync)
    made = client.reply()
    two = client.descriptor()
    assert (made.command, made.data) == (18, struct.pack("<I", first))
    assert client.reply().data == struct.pack("<Q", 5)
    assert served.host.context.blobs[first].size >= 5000
    close_all(one, two)
    assert served.end() == ""


@pytest.mark.parametrize("pause", [0.0, 0.002], ids=["at once", "haltingly"])
def test_messages_in_pieces_are_served(served: Served, pause: float) -> None:
    """Mesa writes a message in many pieces; between two of them it may lose its processor."""
    client = served.client
    sync = client.sync(0)
    for value in range(1, 4):
        messages = struct.pack("<IIIQ", 3, 22, sync, value) + struct.pack("<III", 1, 21, sync)
        for byte in messages:
            client.sock.sendall(bytes([byte]))
            time.sleep(pause)
        assert struct.unpack("<Q", client.reply().data) == (value,)


@pytest.mark.parametrize(
    ("sent", "where"),
    [
        (b"\0\0\0", "header: the client left after 3 of 8"),
        (struct.pack("<II", 1, 15), "GET_PARAM: the client left"),
        (struct.pack("<IIIB", 3, 22, 1, 4), "SYNC_WRITE: the client left after 5 of 12"),
    ],
)
def test_a_program_that_is_killed_in_mid_message_has_left(
    served: Served, sent: bytes, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    served.client.sock.sendall(sent)
    assert served.end() == ""
    (record,) = [each for each in caplog.records if "mid-message" in each.getMessage()]
    assert record.levelname == "INFO"
    assert where in record.getMessage()


def test_a_burst_that_no_buffer_holds_is_served(served: Served) -> None:
    client = served.client
    sync = client.sync(0)
    for value in range(10_000):
        client.send(22, struct.pack("<IQ", sync, value))
    assert client.sync_value(sync) == 9_999
    assert served.end() == ""


def test_a_fence_may_outlive_its_session(served: Served) -> None:
    sync = served.client.sync(0)
    served.client.submit((b"", [(sync, 1), (sync, 2)], 1))
    served.client.words(20, sync)
    served.client.flush()
    ((_, retired),) = served.host.context.fences
    assert served.end() == ""
    retired()


def test_ids_of_syncs_are_used_again(served: Served) -> None:
    client = served.client
    syncs = [client.sync(value) for value in range(200)]
    assert sorted(syncs) == list(range(1, 201))
    client.words(20, syncs[70])
    assert client.sync(5) == syncs[70]
    assert client.sync_value(syncs[70]) == 5
    assert client.sync_value(syncs[199]) == 199


def test_nothing_stays_open_behind_a_client() -> None:
    before = open_files()
    for _ in range(3):
        one = Served()
        client = one.client
        client.handshake()
        sync = client.sync(0)
        fds = [client.wait([(sync, 1)]) for _ in range(20)]
        fds += [client.create_blob(4096)[1] for _ in range(20)]
        close_all(*fds)
        assert one.end() == ""
    assert_closed_since(before)


@pytest.mark.parametrize("way", ["refused", "poisoned", "stopped"])
def test_a_client_that_waits_for_an_answer_learns_of_the_end(served: Served, way: str) -> None:
    """Mesa reads again for ever at the end of the stream, but not after a reset."""
    client = served.client
    if way == "refused":
        client.send(18, BLOB.pack(3, 1, 8, 0))
    else:
        # A sync is asked for while the socket's thread cannot answer.
        client.flush()
        with served.host.context.busy:
            client.submit((b"\xbb\xbb\xbb\xbb", [], 1))
            client.words(19, 0, 0)
            if way == "poisoned":
                assert served.host.on_fatal is not None
                served.host.on_fatal("a reason")
            else:
                served.session.stop()
    served.result()
    with pytest.raises(ConnectionResetError):
        client.sock.recv(1)


def test_the_end_of_a_pipe_is_not_what_a_client_sees_first(served: Served) -> None:
    client = served.client
    sync = client.sync(0)
    fds = []
    for value in range(1, 200):
        fds.append(client.wait([(sync, value)]))
        client.send(22, struct.pack("<IQ", sync, value))
        client.flush()
        poll = select.poll()
        poll.register(fds[-1], select.POLLIN)
        assert poll.poll(0) == [(fds[-1], select.POLLIN)]
    assert all(readable(fd, 0) for fd in fds)
    close_all(*fds)


def test_waits_that_are_over_leave_no_descriptors(served: Served) -> None:
    client = served.client
    sync = client.sync(0)
    before = open_files()
    for value in range(1, 200):
        fd = client.wait([(sync, value)])
        client.send(22, struct.pack("<IQ", sync, value))
        assert readable(fd)
        os.close(fd)
    assert len(opened_since(before)) <= 3  # the last one's, and a pipe for the next


def test_expired_waits_are_dropped(served: Served) -> None:
    client = served.client
    sync = client.sync(0)
    os.close(client.wait([(sync, 1)], timeout=1))
    before = open_files()
    # Each wait that follows lasts a millisecond and drops those that are over.
    for _ in range(wire.MAX_WAIT_SYNCS):
        os.close(client.wait([(sync, 1)], timeout=1))
    assert len(opened_since(before)) < 1000


def test_a_poisoned_context_ends_the_session(served: Served) -> None:
    served.client.flush()
    assert served.host.on_fatal is not None
    served.host.on_fatal("vkCmdDraw at 64: no such handle")
    assert served.client.gone()
    assert served.result() == "vkCmdDraw at 64: no such handle"


def test_stop_ends_a_session_without_blame(served: Served) -> None:
    served.client.sock.sendall(b"\0\0\0")
    served.session.stop()
    assert served.client.gone()
    assert served.result() == ""


def test_stop_ends_commands_that_would_never_end(served: Served) -> None:
    served.client.flush()
    served.client.submit((b"\xcc\xcc\xcc\xcc", [], 1))
    served.session.stop()
    assert served.result() == ""
    assert served.host.context.closed


def test_handshake_has_a_bound() -> None:
    one = Served(FakeHost(handshake_timeout=0.05))
    with contextlib.suppress(BrokenPipeError):  # it may be over already
        one.client.sock.sendall(b"\0\0\0")
    assert one.client.gone()
    assert one.result() == "no complete handshake in 0.05 s"


def test_silence_in_the_handshake_has_a_bound() -> None:
    one = Served(FakeHost(silence_timeout=0.05))
    with contextlib.suppress(BrokenPipeError):  # it may be over already
        one.client.send(8, b"x\0", length=2)
    reason = "the client was silent for 0.05 s in its handshake"
    assert one.result().endswith(reason)
    one = Served(FakeHost(silence_timeout=0.05))
    with contextlib.suppress(BrokenPipeError):
        one.client.sock.sendall(struct.pack("<II", 2, 8))
    assert one.result().endswith(reason)


def test_a_client_may_be_silent_when_it_has_introduced_itself() -> None:
    one = Served(FakeHost(silence_timeout=1000.0))
    one.client.handshake()
    one.client.sync(0)
    assert one.theirs.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == bytes(16)
    assert one.end() == ""


def test_the_bound_ends_with_the_handshake() -> None:
    one = Served(FakeHost(handshake_timeout=1000))
    one.client.handshake()
    one.client.flush()
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers)
    assert one.end() == ""


WRONG = {
    "unknown command 0": lambda c: c.send(0),
    "unknown command 4096": lambda c: c.send(4096),
    "SUBMIT_CMD: not for Venus clients": lambda c: c.send(6),
    "DRM_SYNC_CREATE: not for Venus clients": lambda c: c.words(25, 0),
    "CREATE_RENDERER: out of order": lambda c: c.send(8, b"a\0\0\0"),
    "PROTOCOL_VERSION: out of order": lambda c: c.words(11, 3),
    "CONTEXT_INIT: out of order": lambda c: c.words(17, 4),
    "GET_PARAM: 8 bytes of data": lambda c: c.words(15, 1, 1),
    "SYNC_WAIT: 4 bytes of data": lambda c: c.words(23, 1),
    "SYNC_WAIT: 17179869180 bytes of data": lambda c: c.send(23, length=0xFFFFFFFF),
    "SUBMIT_CMD2: 17179869180 bytes of data": lambda c: c.send(24, length=0xFFFFFFFF),
    "SUBMIT_CMD2: 0 bytes of data": lambda c: c.send(24),
    "SYNC_WAIT: unknown flags 0x2": lambda c: c.words(23, 2, 0),
    "SYNC_WAIT: 8 bytes are no list": lambda c: c.words(23, 0, 0, 1, 1),
    "SYNC_WAIT: no sync 9": lambda c: c.words(23, 0, 0, 9, 0, 0),
    "SYNC_READ: no sync 1": lambda c: c.words(21, 1),
    "SYNC_WRITE: no sync 1": lambda c: c.words(22, 1, 0, 0),
    "SYNC_UNREF: no sync 1": lambda c: c.words(20, 1),
    "RESOURCE_UNREF: no resource 5": lambda c: c.words(3, 5),
    "RESOURCE_BUSY_WAIT: resource 5": lambda c: c.words(7, 5, 0),
    "RESOURCE_CREATE_BLOB: size 0": lambda c: c.send(18, BLOB.pack(2, 1, 0, 0)),
    "RESOURCE_CREATE_BLOB: blob type 3": lambda c: c.send(18, BLOB.pack(3, 1, 8, 0)),
    "RESOURCE_CREATE_BLOB: blob type 1 with": lambda c: c.send(18, BLOB.pack(1, 1, 8, 5)),
    "SUBMIT_CMD2: 1 batches in 4 bytes": lambda c: c.words(24, 1),
    "SUBMIT_CMD2: 4294967295 batches": lambda c: c.words(24, 0xFFFFFFFF),
    "SUBMIT_CMD2: batch 0: flags 0x2": lambda c: c.words(24, 1, 2, 7, 0, 7, 0, 0),
    "SUBMIT_CMD2: batch 0: flags 0x9": lambda c: c.words(24, 1, 9, 7, 0, 7, 0, 0),
    "SUBMIT_CMD2: batch 0 ends": lambda c: c.words(24, 1, 0, 7, 0xFFFFFFFF, 7, 0, 0),
    "SUBMIT_CMD2: batch 0 ends outside": lambda c: c.words(24, 1, 0, 7, 0, 7, 1 << 31, 0),
    "SUBMIT_CMD2: batch 0: no timeline 64": lambda c: c.words(24, 1, 1, 7, 0, 7, 0, 64),
    "SUBMIT_CMD2: batch 1: flags 0x7": lambda c: c.words(
        24, 2, 0, 13, 0, 13, 0, 0, 7, 13, 0, 13, 0, 0
    ),
    "SUBMIT_CMD2: no sync 3": lambda c: c.submit((b"", [(3, 1)], 1)),
    "SUBMIT_CMD2: dead command": lambda c: c.submit((b"\xde\xad\0\0", [], 1)),
}


@pytest.mark.parametrize("reason", WRONG)
def test_wrong_messages_end_with_one_clear_reason(served: Served, reason: str) -> None:
    WRONG[reason](served.client)
    assert served.client.gone()
    assert served.end().startswith(reason)


EARLY: dict[str, list[tuple[int, ...]]] = {
    "PING_PROTOCOL_VERSION: out of order, the client is CONNECTED": [(10,)],
    "SUBMIT_CMD2: out of order, the client is CONNECTED": [(24, 0)],
    "CONTEXT_INIT: out of order, the client is NAMED": [(8, 0x41414141), (17, 4)],
    "GET_CAPSET: out of order, the client is NAMED": [(8, 0x41414141), (16, 4, 0)],
    "SYNC_CREATE: out of order, the client is NEGOTIATED": [(8, 1), (11, 3), (19, 0, 0)],
    "CONTEXT_INIT: capset 2": [(8, 1), (11, 3), (17, 2)],
    "PROTOCOL_VERSION: the client knows 2": [(8, 1), (11, 2)],
    "CREATE_RENDERER: 0 bytes": [(8,)],
}


def send_all(client: Client, messages: list[tuple[int, ...]]) -> None:
    for command, *words in messages:
        data = struct.pack(f"<{len(words)}I", *words)
        client.send(command, data, length=len(data) if command == 8 else None)


def test_the_host_hears_why_while_the_client_is_connected(served: Served) -> None:
    there: list[bool] = []

    def ended(reason: str) -> None:
        assert reason == "vkCmdDraw at 64: no such handle"
        there.append(not readable(served.client.sock.fileno(), 0))

    served.host.ended = ended  # type: ignore[method-assign]
    assert served.client.ask(16, 2, 0) == (0,)  # what came before has been served
    assert served.host.on_fatal is not None
    served.host.on_fatal("vkCmdDraw at 64: no such handle")
    served.host.on_fatal("something else")
    assert served.end() == "vkCmdDraw at 64: no such handle"
    assert there == [True]


@pytest.mark.parametrize("reason", EARLY)
def test_commands_out_of_order_are_refused(reason: str) -> None:
    one = Served()
    send_all(one.client, EARLY[reason])
    while True:
        try:
            one.client.reply()
        except (EOFError, ConnectionError):
            break
    assert one.end().startswith(reason)
    assert one.host.on_fatal is None
