"""A Chromium without a window, if there is one: loads a page and answers questions about it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Chromium's debugging pipe has the numbers 3 and 4.
START = "import os, sys; r, w, *run = sys.argv[1:]; os.dup2(int(r), 3); os.dup2(int(w), 4); os.execv(run[0], run)"
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--no-startup-window")
PATIENCE = 60.0
"""Seconds for one answer."""


class Tab:
    """A page at one width and colour scheme. See https://chromedevtools.github.io/devtools-protocol."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back, self.session, self.count, self.rest = to, back, {}, 0, b""
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params, **self.session}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.count:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            if not select.select([self.back], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            more = os.read(self.back, 1 << 20)
            assert more, "the browser has ended"
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def load(self, url: str, width: int, scheme: str) -> None:
        """Load a page, and wait for its pictures."""
        self.events.clear()
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def requests(self) -> list[str]:
        """The addresses that the page asked for, apart from data within it."""
        sent = [x["params"]["request"]["url"] for x in self.events if x["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def complaints(self) -> list[dict[str, Any]]:
        """What the browser wrote to its console."""
        return [x for x in self.events if x["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]


@contextlib.contextmanager
def browser(profile: pathlib.Path) -> Iterator[Tab]:
    """A tab of the browser that the environment variable BROWSER_BIN names, or that is on PATH. Skips without one."""
    path = os.environ.get("BROWSER_BIN") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH, and BROWSER_BIN is not set")
    ours, theirs = os.pipe(), os.pipe()  # what the browser reads, and what it writes
    reads, writes = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours[0], theirs[1]))
    command = [sys.executable, "-c", START, str(reads), str(writes), path, *OPTIONS]
    command += [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, pass_fds=(reads, writes), **quiet)
    for fd in (ours[0], theirs[1], reads, writes):
        os.close(fd)
    try:
        tab = Tab(ours[1], theirs[0])
        yield tab
        tab.session = {}
        tab.ask("Browser.close")
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(ours[1])
        os.close(theirs[0])
