"""The profile for macOS, as a text: it has never been obeyed here."""

from __future__ import annotations

import re

from hesper.sandbox.landlock import Files
from hesper.sandbox.macos import profile

FILES = Files(read=["/Users/me/driver", '/odd "folder" (1)\\'], write=["/Users/me/cache"])


def parse(text: str) -> list[object]:
    """Read it as Scheme does; what does not close, or closes twice, fails."""
    stack: list[list[object]] = [[]]
    for token in re.findall(r'"(?:\\.|[^"\\])*"|[()]|[^\s()"]+', text):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    assert len(stack) == 1
    return stack[0]


def rules(text: str, what: str) -> list[list[object]]:
    parsed = [rule for rule in parse(text) if isinstance(rule, list)]
    return [rule for rule in parsed if rule[0] == "allow" and what in rule]


def test_it_begins_with_nothing_allowed() -> None:
    parsed = parse(profile(FILES))
    assert parsed[:2] == [["version", "1"], ["deny", "default"]]
    assert all(isinstance(rule, list) and rule[0] == "allow" for rule in parsed[2:])


def test_writing_is_for_the_cache_alone() -> None:
    (rule,) = rules(profile(FILES), "file-write*")
    assert rule[2:] == [["subpath", '"/Users/me/cache"']]
    assert rules(profile(Files(read=[], write=[])), "file-write*") == []


def test_names_with_quotes_stay_inside_their_string() -> None:
    allowed = [each for rule in rules(profile(FILES), "file-read*") for each in rule[2:]]
    assert ["subpath", '"/odd \\"folder\\" (1)\\\\"'] in allowed


def test_there_is_no_network_and_no_program_to_start() -> None:
    text = profile(FILES)
    for word in ("network", "process-exec", "process-fork", '/Users/me"', "/etc"):
        assert word not in text


def test_the_gpu_is_reached_by_name() -> None:
    (services,) = rules(profile(FILES), "mach-lookup")
    (devices,) = rules(profile(FILES), "iokit-open")
    assert ["global-name", '"com.apple.MTLCompilerService"'] in services
    assert ["iokit-user-client-class", '"AGXDeviceUserClient"'] in devices
