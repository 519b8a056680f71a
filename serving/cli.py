"""`micro-step serve`: an OpenAI-compatible server for one model."""

from __future__ import annotations

import ipaddress
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model.command_options import Adapter, LoadOptions, Revision, Threads, flatten_options
from model.errors import MicroStepError
from model.hub.spec import ModelSpec
from model.progress import Tell
from model.terminal import progress_bar
from serving.options import AddressOptions, LimitOptions, SegmentOptions

if TYPE_CHECKING:
    from serving.model_service import ModelService


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
    engine: Annotated[
        Literal["own", "vllm"], typer.Option(help="What writes the answers; vllm must be installed (docs/serving.md).")
    ] = "own",
) -> None:
    """Serve a model over OpenAI's API until Ctrl-C or SIGTERM."""
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise MicroStepError(f"the server needs {' and '.join(missing)}: pip install 'micro_step[serve]'")
    if engine == "vllm":
        from serving.vllm_plugin.launch import need_vllm

        need_vllm(loading)
        if segments.by_cost:
            raise MicroStepError("--by-cost goes by the times of this project's own decoding: leave it or --engine out")
    from serving.server import listen, run_server, url_of

    listening = listen(address)
    name = Path(model).resolve().name if Path(model).is_dir() else model
    spec = loading.spec(model, revision, adapter)
    with progress_bar() as tell:
        service = (_in_vllm if engine == "vllm" else _alone)(spec, name, segments, limits, threads, tell)
    if address.api_key is None and not _is_loopback(address.host):
        print("note: there is no API key, so everyone who reaches this address can use the model", file=sys.stderr)

    def started() -> None:
        print(f"{service.name} is served at {url_of(listening)}", flush=True)

    run_server(service, address, listening, started)


def _alone(
    spec: ModelSpec, name: str, segments: SegmentOptions, limits: LimitOptions, threads: int | None, tell: Tell
) -> ModelService:
    """A model that this project's own decoding writes with."""
    import torch

    from model.hub.loading import load
    from serving.service import Service

    if threads is not None:
        torch.set_num_threads(threads)
    return Service(load(spec, tell), name, segments, limits)


def _in_vllm(
    spec: ModelSpec, name: str, segments: SegmentOptions, limits: LimitOptions, threads: int | None, tell: Tell
) -> ModelService:
    """A model that vLLM writes with."""
    from serving.vllm_plugin.folder import vllm_folder
    from serving.vllm_plugin.service import VllmService

    folder = vllm_folder(spec, segments.lossless, tell)
    tell(f"vLLM loads {name}", None)
    return VllmService(folder, name, segments, limits, spec.dtype, threads)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
