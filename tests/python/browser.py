"""A browser that a test drives: headless Chromium through chromedriver, spoken to as WebDriver has it, over HTTP.

Nothing but the standard library, so that a browser is all that the tests of a page need.
"""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

DEPS = Path(__file__).resolve().parents[2] / ".deps"
# The names under which systems know it.
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS_TO_START = 60

FLAGS = (
    "--headless",
    # Tests run as root in containers, where the sandbox cannot be set up; the page under test is our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def find(*names):
    """The program that `tools/setup.sh browser` has found or installed, or else one on the PATH."""
    placed = [str(DEPS / "bin" / name) for name in names if (DEPS / "bin" / name).exists()]
    return next(iter(placed), None) or next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One window. `with Browser() as browser:` starts it and ends it."""

    def __enter__(self):
        # What the setup has found wanting is not tried: it may be there and not work.
        reason = DEPS / "no-browser"
        if reason.exists():
            pytest.skip(reason.read_text().strip())
        chromium, driver = find(*CHROMIUM), find("chromedriver")
        if not (chromium and driver):
            raise FileNotFoundError("Chromium and chromedriver are not set up: run `make setup-browser`")
        with contextlib.ExitStack() as stack:
            profile = stack.enter_context(tempfile.TemporaryDirectory(prefix="restok-browser-", ignore_cleanup_errors=True))
            output = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="restok-driver-"))) / "output"
            # The driver takes a free port itself and says which: one that was free a moment ago may be somebody else's by now.
            with output.open("wb") as file:
                process = subprocess.Popen([driver, "--port=0"], stdout=file, stderr=subprocess.STDOUT)
            stack.callback(self._end, process)
            self._address = f"http://127.0.0.1:{self._port(process, output)}"
            self._wait(process)
            options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            logs = {"browser": "ALL", "performance": "ALL"}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}
            session = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._address += f"/session/{session['sessionId']}"
            stack.callback(self._send, "DELETE", "")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self._stack.close()

    @staticmethod
    def _end(process):
        process.terminate()
        try:
            process.wait(timeout=SECONDS_TO_START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @staticmethod
    def _port(process, output):
        """The port that the driver has taken."""
        ends = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < ends and process.poll() is None:
            if said := re.search(r"started successfully on port (\d+)", output.read_text(errors="replace")):
                return int(said[1])
            time.sleep(0.05)
        raise TimeoutError(f"chromedriver does not say its port; it said: {output.read_text(errors='replace')}")

    def _wait(self, process):
        ends = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < ends and process.poll() is None:
            with contextlib.suppress(OSError):
                if self._send("GET", "/status")["ready"]:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"chromedriver at {self._address} does not answer")

    def _send(self, method, path, body=None):
        data = None if method == "GET" or method == "DELETE" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"}, method=method)
        # A proxy of the environment is not for this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=SECONDS_TO_START) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()}") from error

    def devtools(self, command, **parameters):
        """Sends a command of the DevTools protocol."""
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, path, width, height, scheme):
        """Opens a file as one would from the disk, on a screen of that size, with the system in a `light` or `dark` scheme."""
        self.width = width
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._send("POST", "/url", {"url": Path(path).resolve().as_uri()})
        # On a busy machine the driver has been seen to come back while the page was still being read.
        ends = time.monotonic() + SECONDS_TO_START
        while self.run("return document.readyState") != "complete":
            if time.monotonic() > ends:
                raise TimeoutError(f"{path} is not read to its end")
            time.sleep(0.05)

    def run(self, script):
        """What a script that ends with `return` returns."""
        return self._send("POST", "/execute/sync", {"script": script, "args": []})

    def log(self, kind):
        """What was logged since the last look: `browser` for the console, `performance` for events of the network."""
        return self._send("POST", "/se/log", {"type": kind})

    def requests(self, page):
        """Addresses that a page asked for since the last look, its own among them; what the browser's start page asks for is not."""
        events = (json.loads(entry["message"])["message"] for entry in self.log("performance"))
        sent = (event["params"] for event in events if event["method"] == "Network.requestWillBeSent")
        return [request["request"]["url"] for request in sent if request["documentURL"] == Path(page).resolve().as_uri()]

    def picture(self, path, whole=False):
        """Saves what is seen, or the whole page, as a PNG file."""
        answer = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(answer["data"]))
