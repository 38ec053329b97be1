"""A real browser, and pages for it to open."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from playwright.async_api import Browser, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# It calls nobody but the pages that tests open.
_ALONE = ["--disable-background-networking", "--disable-component-update", "--disable-quic", "--disable-sync"]


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """Run Chromium without windows until the block ends."""
    # Its own sandbox does not work for root.
    arguments = [*_ALONE, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@contextmanager
def serving_files(folder: Path) -> Iterator[str]:
    """Serve the files of a folder until the block ends, and yield the origin of their pages."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
