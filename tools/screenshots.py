"""Shoot every page in light and dark, wide and narrow, and report what is wrong with it.

    python tools/screenshots.py --url http://127.0.0.1:8765 --key husai_… OUT
    python tools/screenshots.py --husai .venv/bin/husai OUT

The second form runs the smallest pipeline in a new home, with a job that was cancelled and one that runs. Either needs
Chromium with its driver, the packages of requirements-browser.txt, and axe-core below tools/browser. It exits with 1
when a page is wider than its window, writes an error to the console, or has a serious fault of accessibility.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

AXE = Path(__file__).parent / "browser/node_modules/axe-core/axe.min.js"
WIDTHS, SCHEMES = (1440, 390), ("light", "dark")
TALLEST = 16_000
SERIOUS = ("serious", "critical")
RUN_AXE = "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(r => done(r.violations));"
WIDER = """
const wide = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth <= wide) return [];
return [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > wide + 1
  && !e.closest('.scroll, pre, nav')).slice(0, 5).map(e => e.tagName + '.' + e.getAttribute('class'));
"""


@dataclass(frozen=True)
class Api:
    """What the addresses of pages are read from."""

    url: str
    key: str

    def read(self, path: str, body: bytes | None = None) -> bytes:
        """The bytes that a path answers with."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)
        with urllib.request.urlopen(request) as response:
            return bytes(response.read())

    def get(self, path: str) -> Any:
        """A document."""
        return json.loads(self.read(path))

    def post(self, path: str, document: Any) -> Any:
        """What comes back for a document."""
        return json.loads(self.read(path, json.dumps(document).encode()))


def pages(api: Api) -> dict[str, str]:
    """Name and path of every kind of page, with one job of every job kind."""
    paths = {"jobs": "/jobs", "jobs-all": "/jobs?children=true", "jobs-none": "/jobs?label=nothing"}
    for job in reversed(api.get("/v1/jobs?limit=200")["items"]):
        paths[f"job-{job['kind']}-{job['state']}"] = f"/jobs/{job['id']}"
        paths[f"report-{job['kind']}"] = f"/v1/jobs/{job['id']}/report"
    paths |= {"kinds": "/kinds"} | {f"kind-{k['name']}": f"/kinds/{k['name']}" for k in api.get("/v1/kinds")["items"]}
    paths["candidates"] = "/candidates"
    for row in api.get("/v1/candidates?limit=1")["items"]:
        paths["candidate"] = f"/candidates/{row['sha256']}"
    paths["decisions"] = "/decisions"
    for row in api.get("/v1/decisions?limit=1")["items"]:
        paths["decision"] = f"/decisions/{row['id']}"
    return paths | {"workers": "/workers", "keys": "/keys", "missing": "/jobs/" + "0" * 24}


def start(chromium: str, driver: str) -> webdriver.Chrome:
    """A headless browser that keeps what pages write to the console."""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


def look(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    """Set the window's width and the colour scheme."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def shoot(browser: webdriver.Chrome, width: int, path: Path) -> None:
    """A picture of the whole page, in a window as high as the page, so that what sticks to an edge hides nothing."""
    size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    metrics = {"width": width, "height": min(int(size["height"]), TALLEST), "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], TALLEST), "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))


def faults(browser: webdriver.Chrome, name: str) -> list[str]:
    """What is wrong with the page that is open."""
    wider = [f"wider than the window: {element}" for element in browser.execute_script(WIDER)]
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    if name == "missing":
        errors = [error for error in errors if "404" not in error]
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    violations = browser.execute_async_script(RUN_AXE)
    serious = [
        f"{violation['id']}: {violation['help']}: {violation['nodes'][0]['html'][:160]}"
        for violation in violations
        if violation["impact"] in SERIOUS
    ]
    return [*wider, *errors, *serious]


def sign_in(browser: webdriver.Chrome, api: Api) -> None:
    """Sign in as a person does."""
    browser.get(f"{api.url}/sign-in")
    browser.find_element(By.ID, "key").send_keys(api.key)
    browser.find_element(By.CSS_SELECTOR, "button.primary").click()


def main() -> int:
    """Shoot the pages; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--url", help="a service that runs")
    parser.add_argument("--key", help="a key of an administrator of that service")
    parser.add_argument("--husai", type=Path, help="the command that makes a service with something to see")
    parser.add_argument("--only", default="", help="only pages whose name has this in it")
    arguments = parser.parse_args()
    chromium, driver = shutil.which("chromium") or "", shutil.which("chromedriver") or ""
    if not chromium or not driver:
        parser.error("install Chromium and its driver: apt-get install chromium chromium-driver")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.husai is None:
        if not (arguments.url and arguments.key):
            parser.error("name a service with --url and --key, or a command with --husai")
        count = look_at(Api(arguments.url.rstrip("/"), arguments.key), chromium, driver, arguments.out, arguments.only)
    else:
        with tempfile.TemporaryDirectory() as home, service(arguments.husai, Path(home)) as api:
            count = look_at(api, chromium, driver, arguments.out, arguments.only)
    print(f"{count} faults; pictures in {arguments.out}")
    return 1 if count else 0


@contextmanager
def service(husai: Path, home: Path) -> Iterator[Api]:
    """A service in a new home that has run the smallest pipeline."""
    subprocess.run([husai, "demo", "--preset", "smoke", "--home", home], check=True)
    with subprocess.Popen([husai, "up", "--home", home, "--port", "0"]) as process:
        try:
            while not (home / "server.json").exists():
                if process.poll() is not None:
                    raise SystemExit("the service did not start")
                time.sleep(0.1)
            api = Api(json.loads((home / "server.json").read_text())["url"], (home / "key").read_text().strip())
            for seed, path in ((1, ":cancel"), (2, "")):
                spec = {"steps": 30_000, "stop_accuracy": 1.0, "seed": seed}
                job = api.post("/v1/jobs", {"kind": "train.transformer", "spec": spec})["id"]
                if path:
                    api.post(f"/v1/jobs/{job}{path}", {})
            yield api
        finally:
            process.terminate()


def look_at(api: Api, chromium: str, driver: str, out: Path, only: str) -> int:
    """Shoot every page; the number of faults."""
    browser, count = start(chromium, driver), 0
    try:
        count += check(browser, api, out, {"sign-in": "/sign-in"}, only)
        sign_in(browser, api)
        return count + check(browser, api, out, pages(api), only)
    finally:
        browser.quit()


def address(api: Api, path: str, out: Path) -> str:
    """Where to open a page; a report is opened from a file, since no script may run on it."""
    if not path.endswith("/report"):
        return api.url + path
    copy = (out / "report.html").absolute()
    copy.write_bytes(api.read(path))
    return copy.as_uri()


def check(browser: webdriver.Chrome, api: Api, out: Path, paths: dict[str, str], only: str) -> int:
    """Shoot pages in every look; prints and counts their faults."""
    count = 0
    for name, path in paths.items():
        if only not in name:
            continue
        for width in WIDTHS:
            for scheme in SCHEMES:
                look(browser, width, scheme)
                browser.get(address(api, path, out))
                shoot(browser, width, out / f"{name}-{width}-{scheme}.png")
                for fault in faults(browser, name):
                    count += 1
                    print(f"{name} {width} {scheme}: {fault}")
    return count


if __name__ == "__main__":
    sys.exit(main())
