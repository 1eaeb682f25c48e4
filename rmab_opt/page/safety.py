"""Who may ask the page for anything: this machine, from this page, with this start's token; nobody else."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException

__all__ = ["HEADERS", "Door", "Guard"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer a browser would send no origin with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""Of every answer: nothing from elsewhere, no script in a page, nothing kept by a browser."""

MOST_BYTES = 20 * 2**20
"""Of one request: a register of 20,000 families is a tenth of it."""

TOO_LARGE = f"This is more than {MOST_BYTES >> 20} MB: send the sheet alone."

MOST_WRONG = 20
"""Wrong passwords after which nobody is let in until the page is started again."""


@dataclass
class Door:
    """What opens the page.

    Parameters
    ----------
    token
        In the address that the start prints; whoever has it gets the cookie.
    hosts
        Values of ``Host`` that are answered, with the port.
    password
        Asked where the token is not in the address; None where it must be.
    """

    token: str
    hosts: frozenset[str]
    password: str | None = None
    cookie: str = "rmab_opt"
    wrong: int = field(default=0)

    def has_cookie(self, headers: Mapping[str, str]) -> bool:
        """Whether a request carries the cookie of this start."""
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self.token.encode())

    def takes(self, password: str) -> bool:
        """Whether this is the password; after too many wrong ones none is."""
        if self.password is None or self.wrong >= MOST_WRONG:
            return False
        right = hmac.compare_digest(password.encode(), self.password.encode())
        self.wrong += not right
        return right

    def handed(self) -> str:
        """The header that hands over the cookie."""
        return f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"


class Guard:
    """Around an application: refuses what :class:`Door` does not let in, limits sizes, adds :data:`HEADERS`."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status, said = self._refused(scope, headers)
        if status:
            await _plain(safely, status, said)
        elif not self._is_in(scope, headers):
            await self._let_in(scope, receive, safely)
        else:
            await self.app(scope, _limited(receive), safely)

    def _refused(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str]:
        if headers.get("host", "").lower() not in self.door.hosts:
            return 421, "This page answers only under its own address."
        origin = headers.get("origin")
        ours = {f"http://{host}" for host in self.door.hosts}
        if origin is not None and origin.lower() not in ours:
            return 403, "This request comes from another page."
        if scope["method"] not in ("GET", "HEAD") and origin is None:
            return 403, "This request does not say which page it comes from."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["method"] != "GET":
            return 403, "This request comes from another page."
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return 413, TOO_LARGE
        return 0, ""

    def _is_in(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        # The style of the door itself is no secret.
        return self.door.has_cookie(headers) or scope["path"] == "/static/page.css"

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Token in the address or password in a form: the cookie; anything else: the door."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = query.get("token", [""])[0]
        if scope["method"] == "GET" and hmac.compare_digest(given.encode(), self.door.token.encode()):
            await _plain(send, 303, "", [("location", "/"), ("set-cookie", self.door.handed())])
            return
        if self.door.password is None:
            await _plain(send, 403, "Open the address that `rmab-opt serve` printed: it holds the key of this start.")
            return
        if scope["method"] == "POST" and scope["path"] == "/password":
            body = await _body(receive, 10_000)
            if self.door.takes(parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0]):
                await _plain(send, 303, "", [("location", "/"), ("set-cookie", self.door.handed())])
                return
        page = (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>rmab-opt</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<link rel="stylesheet" href="/static/page.css"></head><body><main><h1>rmab-opt</h1>'
            '<form method="post" action="/password"><p><label for="password">Password</label> '
            '<input id="password" name="password" type="password" autocomplete="current-password" required> '
            "<button>Enter</button></p></form></main></body></html>"
        )
        await _plain(send, 401, page, [("content-type", "text/html; charset=utf-8")])


def _limited(receive: Receive) -> Receive:
    """A body that may grow to the limit."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BYTES:
            raise HTTPException(413, TOO_LARGE)
        return message

    return counted


async def _body(receive: Receive, most: int) -> bytes:
    body, more = b"", True
    while more and len(body) <= most:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _plain(send: Send, status: int, text: str, headers: list[tuple[str, str]] | None = None) -> None:
    found = {"content-type": "text/plain; charset=utf-8", **dict(headers or [])}
    listed = [(name.encode(), value.encode()) for name, value in found.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": text.encode()})
