"""Pictures of the planner's page for the docs, from the shipped sheets; `--widths 360,800,1400` for looking at them."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
SHEETS = ROOT / "models" / "weekly_calls_sheets"
CHROMIUM = next((path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(path).is_file()), None)


def made(folder: Path) -> Path:
    """A programme in its second week, so that there is something to compare with."""
    own = folder / "calls"
    run = [sys.executable, "-m", "rmab_opt.cli"]
    start = ["start", str(SHEETS / "register.csv"), "--log", str(SHEETS / "call_log.csv")]
    subprocess.run([*run, *start, "--roster", str(SHEETS / "roster.csv"), "--out", str(own), "--yes"], check=True)
    seen = ["--outcomes", str(SHEETS / "seen.csv"), "--register", str(SHEETS / "changes.csv")]
    subprocess.run([*run, "next", str(own), *seen], check=True)
    return own


def views() -> dict[str, str]:
    """Every view with something on it: names of pictures and addresses."""
    asked = {"week": "/", "why_not": "/why?id=0004", "groups": "/groups?by=Village"}
    return asked | {"changes": "/changes", "record": "/record", "proof": "/proof", "what_if": "/what-if"}


def prepared(window: Page, name: str) -> None:
    """What a person would press on a view first."""
    if name == "what_if":
        window.select_option("#change", "more=Asha")
        window.wait_for_selector("#slide table", timeout=60_000)
        window.select_option("#case-2", "more=Asha")
        window.select_option("#case-3", "less=Brij")
        window.select_option("#column", "Village")
        window.click("form.cases button")
        window.wait_for_selector("h3", timeout=120_000)
    if name == "week":
        window.locator(".acts summary").nth(1).click()
        window.locator(".menu:visible >> text=Move").click()
        window.wait_for_selector("#places li", timeout=60_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "images" / "page")
    parser.add_argument("--widths", default="1100")
    parser.add_argument("--full", action="store_true", help="Whole pages, not what a window shows.")
    parser.add_argument("--folder", type=Path, help="A programme's folder that is there already.")
    parser.add_argument("--only", default="", help="One picture by name.")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        own = given.folder or made(Path(folder))
        command = [sys.executable, "-m", "rmab_opt.cli", "serve", own.name, "--no-browser"]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=own.parent) as served,
            sync_playwright() as engine,
        ):
            assert served.stdout is not None
            found = re.search(r"http://\S+", served.stdout.readline())
            assert found is not None
            root = found[0].split("/?")[0]
            browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            window = browser.new_page()
            window.goto(found[0])
            widths = [int(width) for width in given.widths.split(",")]
            asked = {name: address for name, address in views().items() if given.only in ("", name)}
            for name, address in asked.items():
                window.goto(root + address)
                prepared(window, name)
                for width in widths:
                    window.set_viewport_size({"width": width, "height": 760})
                    window.wait_for_load_state("networkidle")
                    suffix = "" if len(widths) == 1 else f"-{width}"
                    window.screenshot(path=given.out / f"{name}{suffix}.png", full_page=given.full)
            browser.close()
            served.terminate()


if __name__ == "__main__":
    main()
