"""`micro-step serve`: an OpenAI-compatible server for one model."""

from __future__ import annotations

import ipaddress
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from model.command_options import Adapter, LoadOptions, Revision, Threads, flatten_options
from model.errors import MicroStepError
from model.terminal import progress_bar
from serving.options import AddressOptions, LimitOptions, SegmentOptions


@flatten_options
def serve(
    model: Annotated[str, typer.Argument(help="Catalog name, hub id or model folder.")],
    address: AddressOptions,
    segments: SegmentOptions,
    limits: LimitOptions,
    loading: LoadOptions,
    revision: Revision = None,
    adapter: Adapter = None,
    threads: Threads = None,
) -> None:
    """Serve a model over OpenAI's API until Ctrl-C or SIGTERM."""
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise MicroStepError(f"the server needs {' and '.join(missing)}: pip install 'micro_step[serve]'")
    import torch

    from model.hub.loading import load
    from serving.server import listen, run_server, url_of
    from serving.service import Service

    listening = listen(address)
    if threads is not None:
        torch.set_num_threads(threads)
    with progress_bar() as tell:
        loaded = load(loading.spec(model, revision, adapter), tell)
        service = Service(loaded, Path(model).name if Path(model).is_dir() else model, segments, limits)
    if address.api_key is None and not _is_loopback(address.host):
        print("note: there is no API key, so everyone who reaches this address can use the model", file=sys.stderr)

    def started() -> None:
        print(f"{service.name} is served at {url_of(listening)}", flush=True)

    run_server(service, address, listening, started)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
