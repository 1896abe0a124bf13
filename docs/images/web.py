"""Make web.png: the page with drawn people, 1280 pixels wide.

    python docs/images/web.py [OUTPUT.png] [--width 390]

Needs the extras web and dev, and Chromium on the PATH.
"""

import argparse
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

parser = argparse.ArgumentParser()
parser.add_argument("output", nargs="?", type=Path, default=Path(__file__).with_suffix(".png"))
parser.add_argument("--width", type=int, default=1280)
parser.add_argument("--example", default="Try drawn people", help="the button to press; '' for none")
words = parser.parse_args()

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = str(probe.getsockname()[1])
command = [sys.executable, "-m", "diffusionpose", "web", "--port", port, "--device", "cpu"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
    address = server.stdout.readline().split()[0]
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": words.width, "height": 900})
    page.set_default_timeout(300_000)
    page.goto(address)
    if words.example:
        page.get_by_role("button", name=words.example).click()
        page.locator("#overlay img").first.wait_for()
        page.wait_for_timeout(2000)
    page.screenshot(path=words.output, full_page=True)
    browser.close()
    server.terminate()
