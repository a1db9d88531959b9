"""What supervisor and worker say to each other, and what the supervisor puts up with."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest

from hesper.isolation import channel
from hesper.isolation.channel import ChannelError, Upstream

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_orders_bring_descriptors(pair: Pair) -> None:
    with open(os.devnull, "rb") as file:
        channel.send_down(pair[0], "serve", [file.fileno()], client=3)
        order = channel.receive_down(pair[1])
        assert order is not None
        assert order[0] == {"do": "serve", "client": 3}
        assert os.path.sameopenfile(order[1][0], file.fileno())
        os.close(order[1][0])
    pair[0].close()
    assert channel.receive_down(pair[1]) is None


def test_lines_are_joined_and_split(pair: Pair) -> None:
    upstream = Upstream(pair[0])
    assert upstream.receive() == []
    pair[1].sendall(b'{"is": "a"}\n{"is": "b"}\n{"is"')
    assert upstream.receive() == [{"is": "a"}, {"is": "b"}]
    pair[1].sendall(b': "c"}\n')
    assert upstream.receive() == [{"is": "c"}]
    pair[1].close()
    assert upstream.receive() is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"x\n", "no JSON"),
        (b"\xff\n", "no JSON"),
        (b"[]\n", "no message"),
        (b'{"is": 3}\n', "no message"),
        (b"[" * 50_000 + b"\n", "no JSON"),
        # Where JSON's own rules would have an encoding guessed.
        ('{"is": "a"}'.encode("utf-16-be") + b"\n", "no JSON"),
        ('{"is": "a"}'.encode("utf-32-le") + b"\n", "no JSON"),
    ],
)
def test_nonsense_is_an_error(pair: Pair, data: bytes, reason: str) -> None:
    pair[1].sendall(data)
    with pytest.raises(ChannelError, match=reason):
        Upstream(pair[0]).receive()


def test_no_descriptors_come_with_it(pair: Pair) -> None:
    """Whoever takes them closes them, which may take as long as somebody else likes."""
    with open(os.devnull, "rb") as file:
        socket.send_fds(pair[1], [b'{"is": "a"}\n'], [file.fileno()])
    for _ in range(2):
        with pytest.raises(ChannelError, match="descriptors"):
            Upstream(pair[0]).receive()


def test_texts_are_of_whole_characters(pair: Pair) -> None:
    """A name goes to metrics and to whoever asks what clients do, as UTF-8."""
    pair[1].sendall(b'{"is": "named", "name": "a\\ud800b \\uDFFF", "\\udc80": ["\\ud83d\\ude00"]}')
    pair[1].sendall(b"\n")
    messages = Upstream(pair[0]).receive()
    assert messages == [{"is": "named", "name": "a?b ?", "?": ["\U0001f600"]}]


def test_a_line_has_a_bound(pair: Pair) -> None:
    upstream = Upstream(pair[0])
    piece = b"x" * channel.MAX_LINE
    pair[1].sendall(piece)
    assert upstream.receive() == []
    pair[1].sendall(piece)
    with pytest.raises(ChannelError, match="too much"):
        upstream.receive()


def test_the_number_of_lines_has_a_bound(pair: Pair) -> None:
    upstream = Upstream(pair[0])
    line = b'{"is": "a"}\n'
    for _ in range(channel.MAX_LINES):
        pair[1].sendall(line)
        assert upstream.receive() == [{"is": "a"}]
    pair[1].sendall(line)
    with pytest.raises(ChannelError, match="too much"):
        upstream.receive()


@pytest.mark.parametrize("value", ["x" * 200_000, "\x00" * 20_000, ["y" * 100] * 2000])
def test_long_values_are_cut_to_fit(pair: Pair, value: object) -> None:
    channel.send_up(pair[1], "log", event="e", fields=value)
    (message,) = Upstream(pair[0]).receive() or []
    assert (message["is"], message["event"]) == ("log", "e")
    assert len(json.dumps(message)) < channel.MAX_LINE
