"""Run the application on a socket until it is told to stop; requests that are being answered are answered first."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from model.errors import MicroStepError
from serving.api import build_app
from serving.connections import GuardedConnection
from serving.model_service import ModelService
from serving.options import AddressOptions


def listen(address: AddressOptions) -> socket.socket:
    """Return a socket that listens at an address.

    Raises:
        MicroStepError: the address is taken, or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise MicroStepError(
            f"cannot listen on {address.host} port {address.port}: {error.strerror or error}; choose another with"
            " --host and --port"
        ) from error


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def run_server(
    service: ModelService, address: AddressOptions, listening: socket.socket, started: Callable[[], None]
) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then only those that are under way, and end."""
    app = build_app(service, address.api_key, [address.host, *(address.allowed_host or ())])
    config = uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="off",
        http=GuardedConnection,
        timeout_graceful_shutdown=service.limits.timeout,
    )
    service.engine.start()
    started()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        service.engine.close()
