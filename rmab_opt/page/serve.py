"""Start the planner's page on this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rmab_opt.errors import ModelError

__all__ = ["serve"]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def serve(
    name: str | Path,
    *,
    out: Path | None = None,
    host: str | None = None,
    port: int = 0,
    password: str | None = None,
    ready: Callable[[str], Any] = lambda address: None,
) -> None:
    """Serve a folder or a model until it is stopped.

    Parameters
    ----------
    out
        Folder that a model is copied into; ``NAME-weeks`` by default.
    host
        Address of this machine in a shared office; None listens on the loopback alone.
    port
        0 takes a free one.
    ready
        Called with the address, which holds the key of this start.

    Raises
    ------
    ModelError
        When the extra ``app`` is missing, ``host`` comes without a password or is no address of this machine.
    """
    try:
        import uvicorn

        from rmab_opt.page.app import Page, new_token
    except ImportError as error:
        raise ModelError(f"the page needs {error.name}", "pip install 'rmab-opt[app]'.") from None
    from rmab_opt._startup import load_whole
    from rmab_opt.page.safety import Door
    from rmab_opt.programme.desk import Desk, begin_desk

    if host is not None and not password:
        raise ModelError(f"--host {host} without a password", "give one with --password or RMAB_OPT_PASSWORD.")
    load_whole()
    listening = _socket(host, port)
    bound = listening.getsockname()[1]
    names = [*LOOPBACK, *([] if host is None else [f"[{host}]" if ":" in host else host])]
    token = new_token()
    door = Door(token, frozenset(f"{one.lower()}:{bound}" for one in names), password, f"rmab_opt_{bound}")
    desk = Desk(begin_desk(name, out))
    desk.settle()
    page = Page(desk, door)
    config = uvicorn.Config(page.app, log_level="warning", access_log=False, server_header=False, lifespan="off")
    server = uvicorn.Server(config)
    address = f"http://{names[-1] if host is not None else '127.0.0.1'}:{bound}/?token={token}"
    ready(address)
    server.run(sockets=[listening])


def _socket(host: str | None, port: int) -> socket.socket:
    address = "127.0.0.1" if host is None else host
    try:
        wide = ipaddress.ip_address(address).is_unspecified
    except ValueError:
        wide = False
    if wide:
        raise ModelError(f"--host {host}: every address at once", "name this machine's own address in the office.")
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address, port))
        # From here on a browser may come; it waits until the page is ready.
        found.listen(128)
    except OSError as error:
        raise ModelError(f"{address}:{port}: {error.strerror or error}", "name another --port or --host.") from None
    return found
