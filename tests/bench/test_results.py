"""Figures, documents, tables and pictures."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from rich.console import Console

from hesper.bench.document import Document, DocumentError, Machine, SuiteResult
from hesper.bench.metric import Metric, Row, Unit, Values
from hesper.bench.picture import write_picture
from hesper.bench.picture.page import COLOURS
from hesper.bench.report import show

SVG = "{http://www.w3.org/2000/svg}"


def row(key: str, metric: Metric, **sides: tuple[float, ...]) -> Row:
    return Row(key, metric, {side: Values(runs) for side, runs in sides.items()})


@pytest.fixture
def document() -> Document:
    """One of everything that can be shown."""
    rows = (
        row("draw", Metric.rate("draw"), bare=(4e7, 5e7, 6e7), hesper=(3.8e7, 4e7), peer=(2e7,)),
        row("trip", Metric.cost("round trip"), bare=(0.02,), hesper=(0.4,), peer=(0.8,)),
        row("ready", Metric.cost("ready", Unit.MILLISECONDS), hesper=(220.0,), peer=(3.7,)),
        row("call", Metric.cost("the call", detail=True), bare=(0.1,), hesper=(0.2,)),
    )
    return Document(
        version="1.2.3",
        time="2026-01-02T03:04:05+00:00",
        command="hesper bench",
        machine=Machine("Linux 7.2", "A <processor>", 2),
        driver="llvmpipe, Mesa 26",
        devices={"bare": "llvmpipe", "hesper": "Venus (llvmpipe)", "peer": "Venus (llvmpipe)"},
        peer_command="virgl_test_server",
        runs=3,
        suites=(SuiteResult("stream", "Streams", rows),),
        notes=("vkmark is not installed",),
        failures=("load on Hesper: it has ended",),
    )


def test_medians_spreads_and_ratios() -> None:
    found = row("draw", Metric.rate("draw"), bare=(4.0, 5.0, 6.0), hesper=(10.0,), peer=(0.0,))
    assert found.values["bare"].median == 5.0
    assert found.values["bare"].spread == pytest.approx(0.2)
    assert found.ratio("hesper", "bare") == 2.0
    assert found.ratio("hesper", "peer") is None
    assert found.ratio("other", "bare") is None
    share = Metric("slowest / mean", Unit.SHARE, more_is_better=True)
    assert row("fair", share, bare=(0.9,), hesper=(0.8,)).ratio("hesper", "bare") is None


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (Unit.PER_SECOND, 45_200_000.0, "45.2 M/s"),
        (Unit.PER_SECOND, 0.0, "0.00/s"),
        (Unit.BYTES_PER_SECOND, 21.5e9, "21.5 GB/s"),
        (Unit.BYTES, 30_400_000.0, "30.4 MB"),
        (Unit.MICROSECONDS, 0.421, "0.42 us"),
        (Unit.SHARE, 0.957, "0.96"),
    ],
)
def test_values_for_people(unit: Unit, value: float, text: str) -> None:
    assert Metric.cost("x", unit).show(value) == text


def test_a_document_comes_back_as_it_was(document: Document, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    document.write(path)
    assert Document.read(path) == document


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version": "1"}', b"\xff"])
def test_what_is_no_document_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_bytes(content)
    with pytest.raises(DocumentError, match="holds no results"):
        Document.read(path)


def test_the_table_says_everything(document: Document) -> None:
    written = io.StringIO()
    show(document, Console(file=written, width=200))
    text = written.getvalue()
    for wanted in ("50.0 M/s", "±20%", "0.80", "0.40 us", "20.00", "220 ms", "the call"):
        assert wanted in text, wanted
    assert "note: vkmark is not installed" in text
    assert "FAILED: load on Hesper" in text


def test_bars_are_as_long_as_they_should_be(document: Document, tmp_path: Path) -> None:
    path = tmp_path / "found.svg"
    write_picture(document, path)
    root = ElementTree.parse(path).getroot()
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert "A <processor>" in " ".join(texts)
    assert "draw" in texts
    assert "the call" not in texts
    bars: dict[str, list[float]] = {colour: [] for colour in COLOURS.values()}
    for element in root.iter(f"{SVG}rect"):
        if element.get("height") == "8.0":
            bars[element.get("fill", "")].append(float(element.get("width", 0)))
    # Shares: 0.8 and 0.4 of the bare driver; times: 20 and 40 times its own, in decades.
    hesper, peer = bars[COLOURS["hesper"]], bars[COLOURS["peer"]]
    assert hesper[0] == pytest.approx(2 * peer[0], abs=0.2)
    assert hesper[1] / peer[1] == pytest.approx(2.301 / 2.602, abs=0.01)


def test_png_shows_the_same_bars(document: Document, tmp_path: Path) -> None:
    path = tmp_path / "found.png"
    write_picture(document, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or ()}
    for side in ("hesper", "peer"):
        assert tuple(bytes.fromhex(COLOURS[side][1:])) in colours
