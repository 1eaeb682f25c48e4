"""The planner's page for several test files: asked without a server, or served for a browser."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOKEN, HOST = "the-token-of-this-start", "127.0.0.1:8000"

pytest.importorskip("starlette", reason="the extra app is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")


class Asker:
    """Asks the application as a browser with the cookie would; ``headers`` and ``cookie`` may be anybody's."""

    def __init__(self, app):
        self.app = app

    def ask(self, method, path, *, cookie=TOKEN, host=HOST, origin="ours", **options):
        headers = {"host": host, **options.pop("headers", {})}
        if cookie is not None:
            headers["cookie"] = f"rmab_opt={cookie}" + ("; language=es" if options.pop("spanish", False) else "")
        if origin == "ours":
            origin = f"http://{HOST}" if method == "POST" else None
        if origin is not None:
            headers["origin"] = origin

        async def once():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(once())

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, path, data=None, **options):
        return self.ask("POST", path, data=data, **options)


def page_of(folder, password=None):
    """The page over a folder and one who asks it."""
    from rmab_opt.page.app import Page
    from rmab_opt.page.safety import Door
    from rmab_opt.programme.desk import Desk

    desk = Desk(folder)
    desk.settle()
    page = Page(desk, Door(TOKEN, frozenset({HOST}), password))
    return page, Asker(page.app)


def ended(page, seconds=60.0):
    """The job that was begun, when it has ended."""
    begun = time.monotonic()
    while page.jobs.running is not None and time.monotonic() - begun < seconds:
        time.sleep(0.02)
    assert page.jobs.running is None
    return page.jobs.last


class Served:
    """A page that is served by the command, until the block ends."""

    def __init__(self, folder, *more):
        self.command = [sys.executable, "-m", "rmab_opt.cli", "serve", str(folder), "--no-browser", *more]
        self.address = ""

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + self.process.stderr.read()
        self.address = found[0]
        self.root = self.address.split("/?")[0]
        return self

    def kill(self):
        """As the power would."""
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=20)
        self.process.stdout.close()
        self.process.stderr.close()


CHROMIUM = next((path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(path).is_file()), None)
