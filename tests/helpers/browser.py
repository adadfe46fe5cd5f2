"""Chromium without a window, told what to do through a pipe (the DevTools protocol)."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
#: Seconds that a page may take for anything.
_PATIENCE = 60


class Browser:
    """One page. evaluate: what JavaScript gives; wait: until that is true."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._from = os.fdopen(to, "wb"), os.fdopen(answers, "rb")
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        session = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = session["sessionId"]

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url=url)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def reload(self) -> None:
        self.evaluate("window.isOld = true")
        self._ask("Page.reload")
        self.wait("!window.isOld && document.readyState === 'complete'")

    def size(self, width: int, height: int, phone: bool) -> None:
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)  # fmt: skip

    def type(self, text: str) -> None:
        """Into what has the focus; a line break is the Enter key."""
        for part in text.splitlines(keepends=True):
            self._ask("Input.insertText", text=part.rstrip("\n"))
            if part.endswith("\n"):
                key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
                self._ask("Input.dispatchKeyEvent", type="keyDown", **key)
                self._ask("Input.dispatchKeyEvent", type="keyUp", **key)

    def evaluate(self, code: str) -> Any:
        found = self._ask("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, code: str) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            # Between two pages there is nothing to ask.
            with contextlib.suppress(AssertionError):
                if self.evaluate(code):
                    return
            if time.monotonic() > end:
                raise TimeoutError(f"{code}: {self.evaluate('document.body.innerText')}")
            time.sleep(0.02)

    def picture(self, path: Path) -> None:
        """A PNG of what is to be seen."""
        data = self._ask("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._session = None
        self._ask("Browser.close")
        self._to.close()
        self._from.close()

    def _ask(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:  # events come in between
            answer = json.loads(self._read())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> bytes:
        found = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            if not byte:
                raise EOFError("chromium has ended")
            found += byte
        return bytes(found)


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Chromium with a profile of its own in a folder."""
    assert CHROMIUM is not None
    asked, to = os.pipe()
    answers, told = os.pipe()

    def pipes() -> None:
        # It reads from 3 and writes to 4, which may be what one of these is.
        read, write = os.dup(asked), os.dup(told)
        os.dup2(read, 3)
        os.dup2(write, 4)

    process = subprocess.Popen(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
         f"--user-data-dir={folder / 'profile'}"],
        preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(asked)
    os.close(told)
    try:
        found = Browser(to, answers)
        yield found
        found.close()
        process.wait(_PATIENCE)
    finally:
        process.kill()
        process.wait()
