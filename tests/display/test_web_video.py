"""A browser decodes what moves, shows it as the guest does, and how late it is."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path

import numpy as np
import pytest
from browser import Page, open_page
from pattern import WINDOW, Pattern
from PIL import Image
from serving import run, until
from test_video import DECENT, likeness, rgb
from test_web import TOKEN, serve_page

from hesper.display.geometry import Size
from hesper.display.rfb import pace, video
from hesper.display.scanout import Display

pytestmark = pytest.mark.programs

DECODES = "import('/novnc/core/util/browser.js').then(module => module.supportsWebCodecsH264Decode)"


async def canvas(page: Page) -> np.ndarray:
    """What the page shows of the guest, pixel for pixel: shape (height, width, 3)."""
    address = await page.evaluate("document.querySelector('#screen canvas').toDataURL()")
    image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return np.asarray(image.convert("RGB"))


def test_a_browser_decodes_what_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "STILL_SECONDS", 1e9)
    monkeypatch.setattr(pace, "LATE_SECONDS", 1e9)  # the best quality, however slow the browser is

    async def scenario() -> None:
        display = Display()
        pattern = Pattern(Size(800, 601))
        pattern.show_on(display[0])
        stop = asyncio.Event()

        async def draw() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                display[0].flush(pattern.step(number))
                await asyncio.sleep(1 / 30)

        async with (
            serve_page(display) as (service, url),
            open_page(f"{url}#token={TOKEN}", tmp_path / "profile", (1200, 800)) as page,
        ):
            if not await page.evaluate(DECODES):
                pytest.skip("this browser decodes no H.264")
            await page.wait_for("document.querySelector('#notice').hidden")
            drawer = asyncio.create_task(draw())
            await page.wait_for("document.querySelector('#f-coding').innerText.includes('H.264')")
            await page.wait_for(
                "/^[0-9]+ ms, p99 [0-9]+$/.test(document.querySelector('#f-latency').innerText)"
            )
            stop.set()
            await drawer
            (viewer,) = service.feeds[0].viewers
            await until(lambda: not viewer.has_video)
            here = rgb(pattern.pixels)
            window = (
                slice(WINDOW.y, WINDOW.y + WINDOW.height),
                slice(WINDOW.x, WINDOW.x + WINDOW.width),
            )
            while likeness((there := await canvas(page))[window], here[window]) < DECENT:
                await asyncio.sleep(0.05)
            assert not np.array_equal(there[window], here[window]), "it came as a video"
            (tmp_path / "video.png").write_bytes(await page.screenshot())
            # Flat colours below the window, in the video's box and beside it.
            assert np.abs(there[410, 100:440:20].astype(int) - here[410, 100:440:20]).max() <= 6
            assert np.array_equal(there[500:], here[500:])
            # And once it is still it comes as ever, which is Tight's JPEG here.
            monkeypatch.setattr(video, "STILL_SECONDS", 0.1)
            while np.array_equal((still := await canvas(page))[window], there[window]):
                await asyncio.sleep(0.05)
            assert likeness(still[window], here[window]) > DECENT
            assert [entry for entry in page.console if "willReadFrequently" not in entry] == []

    run(scenario())
