"""A headless Chromium for tests: pages as people see and touch them.

It is spoken to through two pipes, in the DevTools protocol: JSON messages, each ended by a zero byte. Chinese
characters are drawn in the project's own font, wherever the system has others or none.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfos_job.fonts import find_font

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
Point = tuple[float, float]

_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}</dir><cachedir>{cache}</cachedir></fontconfig>"""
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--no-proxy-server",
    "--hide-scrollbars",
)  # fmt: skip


def find_chromium() -> str | None:
    """The path of a program that runs: $CHROMIUM, or the first on PATH of those that are known."""
    for name in filter(None, (os.environ.get("CHROMIUM"), *NAMES)):
        path = shutil.which(name)
        if path and subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return None


class Browser:
    """A browser with one page.

    Attributes:
      requests: the URLs that the page has asked for.
      complaints: uncaught errors, and what the page's policy forbade.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        (folder / "fonts.conf").write_text(_FONTS.format(folder=Path(find_font()).parent, cache=folder / "fonts"))
        ours_to, theirs_from = os.pipe()[::-1]
        ours_from, theirs_to = os.pipe()
        self._log = (folder / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs_from} 4>&{theirs_to}', "", program, *_FLAGS,
             f"--user-data-dir={folder / 'profile'}"],
            pass_fds=(theirs_from, theirs_to),
            env=os.environ | {"FONTCONFIG_FILE": str(folder / "fonts.conf"), "HOME": str(folder), "LANG": "C.UTF-8"},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        for end in (theirs_from, theirs_to):
            os.close(end)
        self._to, self._from = os.fdopen(ours_to, "wb", 0), os.fdopen(ours_from, "rb")
        self._number, self._buffer, self._session = 0, b"", ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        with contextlib.suppress(EOFError, BrokenPipeError):
            self._session = ""
            self.call("Browser.close")
        self._process.wait()
        for stream in (self._to, self._from, self._log):
            stream.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._from.fileno(), 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: str, values: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Log.entryAdded" and values["entry"]["source"] == "security":
            self.complaints.append(values["entry"]["text"])

    # --- the page ---------------------------------------------------------------------------------------------------

    def open(self, url: str) -> None:
        """Opens a page and waits until all of it is there, and painted: before that, what hands do may be dropped."""
        self.call("Page.navigate", url=url)
        is_there = f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})"
        is_painted = "performance.getEntriesByName('first-contentful-paint').length"
        self.wait(is_there if url == "about:blank" else f"{is_there} && {is_painted}")

    def get(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page; of a promise, what it promised."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Waits until an expression is true, without a limit of its own: pytest has one; returns its value."""
        loop = f"""new Promise((done) => {{
            const look = () => {{
                const found = ({condition});
                if (found) done(found); else setTimeout(look, 20);
            }};
            look();
        }})"""
        return self.get(loop)

    def text(self, selector: str) -> str:
        return self.get(f"document.querySelector({json.dumps(selector)})?.innerText.trim() ?? ''")

    def is_seen(self, selector: str) -> bool:
        return self.get(f"Boolean(document.querySelector({json.dumps(selector)})?.checkVisibility())")

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element in the window, which is scrolled there."""
        element = f"document.querySelector({json.dumps(selector)})"
        found = self.get(
            f"({element}.scrollIntoView({{block: 'nearest'}}), {element}.getBoundingClientRect().toJSON())"
        )
        return found["left"], found["top"], found["width"], found["height"]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    # --- its reader -------------------------------------------------------------------------------------------------

    def look(self, width: int, height: int, *, scale: float = 1, dark: bool = False, touch: bool = False) -> None:
        """Size of the window in CSS pixels, pixels of the screen for each, colours, and whether fingers touch it."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=touch
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def speak(self, languages: str) -> None:
        """The languages of the reader, such as `zh-CN,en`, from the next page on."""
        agent = self.get("navigator.userAgent")
        self.call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=languages)

    def click(self, selector: str) -> None:
        left, top, width, height = self.box(selector)
        self.draw([(left + width / 2, top + height / 2)])

    def draw(self, points: Sequence[Point], *, pointer: str = "mouse") -> None:
        """Presses at the first point, goes to the others and lets go: with a `mouse`, a `pen` or a `touch`."""
        if pointer == "touch":
            self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[_at(points[0])])
            for point in points[1:]:
                self.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[_at(point)])
            self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            return
        self._mouse("mousePressed", points[0], pointer)
        for point in points[1:]:
            self._mouse("mouseMoved", point, pointer)
        self._mouse("mouseReleased", points[-1], pointer)

    def _mouse(self, kind: str, point: Point, pointer: str) -> None:
        self.call(
            "Input.dispatchMouseEvent", type=kind, **_at(point), button="left", buttons=1, clickCount=1,
            pointerType=pointer,
        )  # fmt: skip

    def press(self, key: str, *, ctrl: bool = False) -> None:
        """Presses a key, such as `Tab`, `Enter`, `Escape` or `z`."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowDown": 40}.get(key, ord(key[0].upper()))
        values: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 2 if ctrl else 0}
        text = {} if ctrl else {"Enter": {"text": "\r"}}.get(key, {})
        self.call("Input.dispatchKeyEvent", type="keyDown", **values, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def choose(self, selector: str, path: Path) -> None:
        """Chooses a file in an element for files, as its dialogue does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def drop(self, selector: str, path: Path) -> None:
        """Drops a file on an element."""
        left, top, width, height = self.box(selector)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=left + width / 2, y=top + height / 2, data=data)


def _at(point: Point) -> dict[str, float]:
    return {"x": point[0], "y": point[1]}


@contextlib.contextmanager
def browsing(program: str, folder: Path) -> Iterator[Browser]:
    """A browser that ends with the `with`."""
    browser = Browser(program, folder)
    try:
        yield browser
    finally:
        browser.close()
