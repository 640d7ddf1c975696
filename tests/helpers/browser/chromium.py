"""Real headless Chromium for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from processes.waiting import PATIENCE_S

# Nothing of its own goes over the network, and no sandbox is needed in a container.
_SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1400, "height": 1000}


def executable() -> str:
    """Return the path of an installed Chromium; a missing one fails the test."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    raise AssertionError(
        "tests of the page need a browser: apt-get install chromium (README, Develop)"
    )


@contextmanager
def chromium(*switches: str) -> Iterator[Browser]:
    """Start a browser; it is closed at the end of the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(), args=[*_SWITCHES, *switches]
        )
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that was opened, with what went wrong on it.

    Attributes
    ----------
    page : Page
        The page.
    problems : list of str
        Errors of scripts and of the browser's console.
    hosts : set of str
        Hosts and ports that requests went to.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("request", lambda request: self.hosts.add(_host(request.url)))
        self.page.on("websocket", lambda socket: self.hosts.add(_host(socket.url)))
        self.page.goto(url)

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def until(self, script: str, argument: object = None) -> None:
        """Wait until a JavaScript expression or function is true."""
        self.page.wait_for_function(script, arg=argument, polling=50)

    def report(self) -> list[dict[str, Any]]:
        """Return what the page has drawn where (`window.neurovocal.report`)."""
        found: list[dict[str, Any]] = self.page.evaluate("neurovocal.report()")
        return found


def _host(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return rest.partition("/")[0] if scheme in ("http", "https", "ws", "wss") else ""


def visit(browser: Browser, url: str, **options: Any) -> Visit:
    """Open a page in a context of its own."""
    options.setdefault("viewport", DESKTOP)
    return Visit(browser.new_context(**options), url)
