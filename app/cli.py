"""`micro-step app`: the web app, in a browser; `micro-step examples`: the results that it shows at first.

Such results are those of the worked examples. The pages say what they need: each is opened with each example, and the
answers to its questions are kept.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from analysis.stored_results.store import FOLDER, store_answer
from app.access import settings
from data.samples import samples
from model.errors import MicroStepError
from model.hub.default_pair import PAIRS, DefaultPair
from model.hub.fetch import is_cached

PAGES = ("uncertainty", "segmentation", "attention", "attribution", "depth")  # generations have recordings
FIRST_ONLY = ("depth",)  # stored for the first example alone: all layers of a text take 0.1 MB a model
MAIN = Path(__file__).with_name("main.py")
SECONDS = 600.0  # for one page


def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the address.")] = 8501,
    address: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 is every interface.")] = "127.0.0.1",
    host: Annotated[
        list[str], typer.Option(help="A name by which visitors reach the app; repeat it for several.")
    ] = [],  # noqa: B006 - typer makes it anew
    for_others: Annotated[bool | None, settings.SERVE.option()] = None,
    models: Annotated[list[str], settings.MODELS.option()] = [],  # noqa: B006
    runs: Annotated[list[str], settings.RUNS.option()] = [],  # noqa: B006
    evaluations: Annotated[list[str], settings.EVALUATIONS.option()] = [],  # noqa: B006
    stores: Annotated[list[str], settings.STORES.option()] = [],  # noqa: B006
    hub_cache: Annotated[bool | None, settings.HUB_CACHE.option()] = None,
    fetch: Annotated[bool | None, settings.FETCH.option()] = None,
    remote_code: Annotated[bool | None, settings.REMOTE_CODE.option()] = None,
    run_minutes: Annotated[float | None, settings.RUN_MINUTES.option(min=0.1)] = None,
    queue: Annotated[int | None, settings.QUEUE.option(min=1)] = None,
) -> None:
    """Start the app and print its link; Ctrl-C ends it. How to serve it to others: docs/serving-a-team.md."""
    if find_spec("streamlit") is None:
        raise MicroStepError("the app needs Streamlit: pip install 'micro_step[app]'")
    if address not in settings.LOOPBACK and not host:
        raise MicroStepError(f"name the host by which visitors reach {address}: --host bench.example.org")
    given = {
        settings.SERVE: for_others, settings.MODELS: models, settings.RUNS: runs, settings.EVALUATIONS: evaluations,
        settings.STORES: stores, settings.HUB_CACHE: hub_cache, settings.FETCH: fetch,
        settings.REMOTE_CODE: remote_code, settings.RUN_MINUTES: run_minutes, settings.QUEUE: queue,
    }  # fmt: skip
    os.environ.update(settings.as_variables(given))
    settings.Settings.read(os.environ)  # says at once what is wrong
    command = [sys.executable, "-m", "streamlit", "run", str(MAIN), "--server.port", str(port)]
    command += ["--server.address", address] if address != settings.LOOPBACK[0] else []
    for name in (*host, *settings.LOOPBACK) if host else ():
        command += ["--server.allowedHosts", name]
    os.execv(sys.executable, command)  # in place of this process, so that Ctrl-C and exit codes are its own


def examples_command(
    out: Annotated[Path, typer.Option(help="The folder of the results. Older ones in it are removed.")] = FOLDER,
) -> None:
    """Open every page with every worked example and each default pair of models, and keep what the models answer."""
    new = out.with_name(f"{out.name}.new")
    for folder in (out, new):
        if folder.exists() and not (folder.is_dir() and all(file.suffix == ".npz" for file in folder.iterdir())):
            raise MicroStepError(f"{folder} holds other files than stored results; name another folder with --out")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for pair in PAIRS:
        if not (is_cached(pair.a) and is_cached(pair.b)):
            raise MicroStepError(f"fetch {pair.a} and {pair.b} first: micro-step model fetch {pair.a}")
    for file in (file for pair in PAIRS for file in kept(pair, new)):
        typer.echo(f"{file.stat().st_size / 1000:7.1f} kB  {file.name}")
    size = sum(file.stat().st_size for file in new.iterdir()) / 1e6
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)
    typer.echo(f"{size:.2f} MB in {out}")


def kept(pair: DefaultPair, folder: Path) -> Iterator[Path]:
    """Open the pages with a pair of models, and write what these answer."""
    from streamlit.testing.v1 import AppTest

    from app import run_query
    from app.cache import model_pool

    run_query.HEAVY = math.inf
    logging.getLogger("streamlit").setLevel(logging.ERROR)  # caches complain that there is no server
    model_pool().examples = None
    written = {query for query, _ in model_pool().computed()}
    for place, sample in enumerate(samples()):
        at = AppTest.from_file(str(MAIN), default_timeout=SECONDS)
        link = {"a": pair.a, "b": pair.b, "example": sample.name, "chat": str(sample.is_chat).lower()}
        for key, value in link.items():
            at.query_params[key] = value
        for page in PAGES if place == 0 else [page for page in PAGES if page not in FIRST_ONLY]:
            at = (at if page == PAGES[0] else at.switch_page(f"../pages/{page}.py")).run()
            if problems := [*at.exception, *at.error]:
                raise MicroStepError(f"{page} with {sample.title}: {problems[0].value}")
            for query, answer in model_pool().computed():
                if query not in written:
                    written.add(query)
                    yield store_answer(query, answer, folder)
