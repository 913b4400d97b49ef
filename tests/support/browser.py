"""Debian's chromium, driven through its DevTools pipe: no port, no network, no library."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_ANSWER_S = 60.0


class Page:
    """One tab; what it says on its console, and every error, is kept.

    Attributes:
        said: Console messages and uncaught errors.
        folder: Where downloads go.
    """

    def __init__(self, command: int, answers: int, folder: Path) -> None:
        self.folder = folder
        self._command = command
        self._answers = answers
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self._target = ""
        self._size = (1280, 800)
        self._last = ""
        self.said: list[str] = []

    def attach(self) -> None:
        """Open a tab, in place of the one before."""
        before, self._session = self._target, None
        if before:
            self.send("Target.closeTarget", targetId=before)
        self._target = target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Performance"):
            self.send(f"{domain}.enable")
        self.size(*self._size)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        self._number += 1
        self._last = f"{method} {parameters}"
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._command, json.dumps(message).encode() + b"\0")
        until_s = time.monotonic() + _ANSWER_S
        while time.monotonic() < until_s:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self._note(answer)
        raise AssertionError(f"{method}: no answer")

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            is_there, _, _ = select.select([self._answers], [], [], _ANSWER_S)
            assert is_there, (self._last, "no answer", self.said[-5:])
            data = os.read(self._answers, 1 << 20)
            assert data, "the browser ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        method, values = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            detail = values["exceptionDetails"]
            self.said.append(f"error: {detail.get('exception', {}).get('description', detail['text'])}")
        elif method == "Log.entryAdded":
            self.said.append(f"{values['entry']['level']}: {values['entry']['text']} {values['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled":
            self.said.append(f"console: {[argument.get('value') for argument in values['args']]}")

    def ask(self, script: str) -> Any:
        """Return the value of an expression, which may be a promise."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, within_s: float = 60.0) -> Any:
        """Ask until the value is true, and return it."""
        until_s = time.monotonic() + within_s
        while True:
            value = self.ask(script)
            if value:
                return value
            assert time.monotonic() < until_s, (
                script,
                self.said[-5:],
                self.ask("document.body.innerText.slice(0, 400)"),
            )
            time.sleep(0.02)

    def open(self, url: str) -> None:
        """Open a gallery and wait until it is whole."""
        self.attach()
        self.send("Page.navigate", url=url)
        self.wait("window.sdbatch && sdbatch.isReady === true")

    def size(self, width: int, height: int) -> None:
        """Give the page so many pixels."""
        self._size = (width, height)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def press(self, *keys: str) -> None:
        """Press keys, by the names of `KeyboardEvent.key`."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            code = {
                "Enter": 13,
                "Escape": 27,
                "Tab": 9,
                "ArrowLeft": 37,
                "ArrowUp": 38,
                "ArrowRight": 39,
                "ArrowDown": 40,
            }
            number = code.get(key, ord(key.upper()) if len(key) == 1 else 0)
            self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=number, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=number)

    def write(self, text: str) -> None:
        """Type a text into what has the focus."""
        self.send("Input.insertText", text=text)

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        box = self.ask(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def picture(self, path: Path) -> None:
        """Save what the page shows."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def browser(folder: Path, width: int = 1280, height: int = 800) -> Iterator[Page]:
    """Run chromium with its profile and downloads in a folder, and yield a tab."""
    assert CHROMIUM is not None
    read_command, command = os.pipe()
    answers, write_answers = os.pipe()
    shell = f'exec "$0" "$@" 3<&{read_command} 4>&{write_answers}'
    process = subprocess.Popen(
        ["bash", "-c", shell, CHROMIUM, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
        pass_fds=(read_command, write_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_command)
    os.close(write_answers)
    page = Page(command, answers, folder)
    try:
        page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        page.attach()
        page.size(width, height)
        yield page
        with contextlib.suppress(AssertionError, OSError):
            page._session = None
            page.send("Browser.close")
    finally:
        os.close(command)
        os.close(answers)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait()
