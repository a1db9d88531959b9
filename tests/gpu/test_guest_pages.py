"""Guests on a host with larger pages: who gets Venus, and what is said to the others."""

from __future__ import annotations

import struct

import pytest
from gpu_requests import (
    attach_backing,
    create_2d,
    create_blob,
    create_context,
    destroy_context,
    submit,
)
from gpu_vm import CAPSET, MakeVm, Vm
from vhost_user_guest import VhostUserGuest

from hesper.gpu.agreement import FEATURES
from hesper.gpu.guest_pages import LEAST_PAGE
from hesper.gpu.wire import CAPSET_UNUSED, CAPSET_VENUS, BlobMemory, Command, Feature, Response

OK = Response.OK_NODATA
LARGE = 16384
OLD_DRIVER = int(FEATURES & ~Feature.BLOB_ALIGNMENT)
"""What one has negotiated that knows nothing of blob alignment, as Linux before 7.2."""
NEW_DRIVER = int(FEATURES)


def have_pages(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let the host have pages of that size."""
    for module in ("guest_pages", "blobs"):
        monkeypatch.setattr(f"hesper.gpu.{module}.page_size", lambda: size)


@pytest.fixture
def large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host as Apple Silicon is."""
    have_pages(monkeypatch, LARGE)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose pages are the smallest."""
    have_pages(monkeypatch, LEAST_PAGE)


def negotiate(vm: Vm, features: int) -> None:
    """Let the driver that is loaded have chosen these."""
    vm.loop.call(lambda: vm.device.negotiated(features))
    vm.settle()


def capset(vm: Vm) -> int:
    """Which capset the device says it has."""
    info = vm.guest.command(Command.GET_CAPSET_INFO, struct.pack("<I4x", 0))
    assert info.type == Response.OK_CAPSET_INFO
    number, version, size = struct.unpack("<3I4x", info.payload)
    assert (version, size) == (0, len(CAPSET))
    return int(number)


def wire_format(vm: Vm) -> bytes:
    """The version in the capset; all else is the same."""
    got = vm.guest.command(Command.GET_CAPSET, struct.pack("<2I", CAPSET_VENUS, 0))
    assert (got.type, got.payload[4:]) == (Response.OK_CAPSET, CAPSET[4:])
    return got.payload[:4]


def share(vm: Vm, at: int, length: int, *, resource: int = 1) -> None:
    """Show a piece of the guest's memory, behind a resource of the console's."""
    assert vm.guest.send(create_2d(resource, 64, 64)).type == OK
    assert vm.guest.send(attach_backing(resource, [(at, length)])).type == OK


def move_queue(vm: Vm, by: int) -> None:
    """Load the driver anew, with a queue on another place."""
    assert isinstance(vm.guest, VhostUserGuest)
    vm.guest.frontend.queues[1].base += by
    vm.guest.restart()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of Venus."""
    said = [record.event for record in caplog.records if hasattr(record, "event")]
    return [event for event in said if "Venus" in event or "Vulkan" in event]


@pytest.mark.usefixtures("large_pages")
@pytest.mark.parametrize("make_vm", ["vhost-user"], indirect=True)
def test_a_queue_between_the_hosts_pages_shows_small_ones(
    vm: Vm, caplog: pytest.LogCaptureFixture
) -> None:
    move_queue(vm, 4096)
    negotiate(vm, OLD_DRIVER)
    assert capset(vm) == CAPSET_UNUSED
    assert capset(vm) == CAPSET_UNUSED
    assert events(caplog) == ["no Venus for this guest: its pages are smaller than this host's"]
    (said,) = [r for r in caplog.records if "no Venus" in r.message]
    assert all(word in said.message for word in ("Linux 7.2", "Mesa 26.2.4", str(LARGE)))
    # Another kernel may start in the same machine.
    move_queue(vm, -4096)
    negotiate(vm, OLD_DRIVER)
    assert capset(vm) == CAPSET_VENUS


@pytest.mark.usefixtures("large_pages")
@pytest.mark.parametrize(("at", "length"), [(0x101000, LARGE), (0x100000, 4096)])
def test_so_does_a_piece_of_memory(
    vm: Vm, caplog: pytest.LogCaptureFixture, at: int, length: int
) -> None:
    negotiate(vm, OLD_DRIVER)
    # Nothing is known yet: the driver's first question comes before it shares anything.
    assert capset(vm) == CAPSET_VENUS
    assert wire_format(vm) == CAPSET[:4]
    share(vm, at, length)
    assert wire_format(vm) == bytes(4)
    assert capset(vm) == CAPSET_UNUSED
    assert len(events(caplog)) == 1


@pytest.mark.usefixtures("large_pages")
def test_so_does_a_blob_of_the_guests(vm: Vm) -> None:
    negotiate(vm, OLD_DRIVER)
    blob = create_blob(
        5, LARGE, memory=BlobMemory.GUEST, flags=0, pieces=[(0x101000, 4096), (0x108000, 12288)]
    )
    assert vm.guest.send(blob).type == OK
    assert wire_format(vm) == bytes(4)


@pytest.mark.usefixtures("large_pages")
def test_a_guest_with_pages_as_large_keeps_venus(vm: Vm, caplog: pytest.LogCaptureFixture) -> None:
    """It negotiates no alignment either: Debian's arm64-16k kernel 6.12."""
    negotiate(vm, OLD_DRIVER)
    share(vm, 0x100000, LARGE)
    share(vm, 0x10C000, 5 * LARGE, resource=2)
    assert capset(vm) == CAPSET_VENUS
    assert wire_format(vm) == CAPSET[:4]
    assert not events(caplog)


@pytest.mark.usefixtures("large_pages")
def test_a_driver_that_keeps_to_the_alignment_keeps_venus(
    vm: Vm, caplog: pytest.LogCaptureFixture
) -> None:
    negotiate(vm, NEW_DRIVER)
    share(vm, 0x101000, 4096)
    assert capset(vm) == CAPSET_VENUS
    assert wire_format(vm) == CAPSET[:4]
    assert not events(caplog)


@pytest.mark.usefixtures("small_pages")
def test_pages_as_large_as_the_hosts_are_never_small(vm: Vm) -> None:
    negotiate(vm, OLD_DRIVER)
    share(vm, 0x101010, 48)
    assert capset(vm) == CAPSET_VENUS
    assert wire_format(vm) == CAPSET[:4]


# Contexts that end before they begin.


def end_without_a_ring(vm: Vm, caplog: pytest.LogCaptureFixture, *, blob: int = 0) -> str:
    """Make a context whose program gives up, perhaps after a blob; returns the reason given."""
    assert vm.guest.send(create_context(1, b"vkcube")).type == OK
    if blob:
        vm.guest.send(create_blob(9, blob, ctx_id=1))
    assert vm.guest.send(destroy_context(1)).type == OK
    (record,) = [r for r in caplog.records if "no ring" in r.message]
    fields: dict[str, str] = record.__dict__["fields"]
    assert fields["name"] == "vkcube"
    return fields["reason"]


@pytest.mark.usefixtures("large_pages")
def test_an_old_mesa_on_a_new_kernel_is_explained(vm: Vm, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel refuses its blobs: nothing of it reaches the host."""
    negotiate(vm, NEW_DRIVER)
    reason = end_without_a_ring(vm, caplog)
    assert "Mesa is older than 26.2.4" in reason
    assert "--no-blob-alignment" in reason


@pytest.mark.usefixtures("large_pages")
def test_who_has_made_a_blob_was_not_kept_from_it(vm: Vm, caplog: pytest.LogCaptureFixture) -> None:
    negotiate(vm, NEW_DRIVER)
    assert "nothing was refused" in end_without_a_ring(vm, caplog, blob=LARGE)


@pytest.mark.usefixtures("large_pages")
def test_small_pages_that_show_late_are_explained(vm: Vm, caplog: pytest.LogCaptureFixture) -> None:
    """By the first blob of Mesa's, which the host cannot show to the guest."""
    negotiate(vm, OLD_DRIVER)
    assert capset(vm) == CAPSET_VENUS
    assert "pages are smaller" in end_without_a_ring(vm, caplog, blob=LARGE + 4096)
    assert any("no Venus" in event for event in events(caplog))


@pytest.mark.parametrize("pages", ["small_pages", "large_pages"])
@pytest.mark.parametrize("features", [OLD_DRIVER, NEW_DRIVER])
def test_so_is_what_was_refused(
    request: pytest.FixtureRequest,
    make_vm: MakeVm,
    caplog: pytest.LogCaptureFixture,
    pages: str,
    features: int,
) -> None:
    request.getfixturevalue(pages)
    vm = make_vm()
    negotiate(vm, features)
    assert vm.guest.send(create_context(1, b"vkcube")).type == OK
    vm.worker().blob_response = Response.ERR_OUT_OF_MEMORY
    assert vm.guest.send(create_blob(9, LARGE, ctx_id=1)).type == Response.ERR_OUT_OF_MEMORY
    assert vm.guest.send(destroy_context(1)).type == OK
    (record,) = [r for r in caplog.records if "no ring" in r.message]
    assert "refuses blob 9" in record.__dict__["fields"]["reason"]


def test_a_context_that_has_run_something_is_not_talked_about(
    vm: Vm, caplog: pytest.LogCaptureFixture
) -> None:
    worker = vm.open_context(1)
    assert vm.guest.send(submit(1, b"1234")).type == OK
    worker.wait(lambda: worker.commands)
    assert vm.guest.send(destroy_context(1)).type == OK
    assert not events(caplog)
