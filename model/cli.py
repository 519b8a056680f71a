"""The command line of the model package. Results go to standard output, progress and errors to standard error.

It computes nothing itself; torch and transformers are loaded only by the commands that load a model.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from model.hub.catalog import CatalogEntry, catalog, find
from model.hub.default_pair import default_pair
from model.hub.sources import BundledSource, HubSource
from model.terminal import progress_bar, run

app = typer.Typer(
    name="python -m model",
    help="The models that can be compared: list them, fetch them, look at one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    run(app)


def _source_titles(entry: CatalogEntry) -> list[str]:
    titles = []
    for source in entry.sources:
        if isinstance(source, HubSource):
            titles.append(f"hub {source.repo}" + (" (gated: log in)" if source.gated else ""))
        elif isinstance(source, BundledSource):
            titles.append(f"project {source.folder}")
        else:
            titles.append(source.title)
    return titles


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """List the models that have a name, their licences, and which are on this machine."""
    from model.hub.fetch import is_cached

    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "title": entry.title,
            "kind": entry.kind,
            "family": entry.family,
            "parameters": entry.parameters,
            "licence": entry.licence,
            "licence_url": entry.licence_url,
            "terms_needed": entry.terms_needed,
            "cached": is_cached(entry.name),
            "sources": _source_titles(entry),
        }
        for entry in catalog()
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "kind", "parameters", "licence", "in cache"):
        table.add_column(column, no_wrap=True)
    table.add_column("sources", overflow="fold")
    for row in rows:
        size = row["parameters"]
        table.add_row(
            row["name"],
            row["kind"],
            f"{size / 1e9:.2f} B" if size >= 1e9 else f"{size / 1e6:.0f} M" if size >= 1e7 else f"{size / 1e6:.1f} M",
            row["licence"] + (" (terms)" if row["terms_needed"] else ""),
            "yes" if row["cached"] else "no",
            "\n".join(row["sources"]),
        )
    console = _console()
    console.print(table)
    console.print(
        "\nAny hub id, model folder or .gguf file can be named instead. (terms): accept them on the hub or with"
        " --accept-licence.",
        highlight=False,
    )


@app.command("fetch")
def fetch_model(
    name: Annotated[str | None, typer.Argument(help="Catalog name, hub id, model folder or .gguf file.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Fetch the pair that the app opens with.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read and accept the model's terms.")
    ] = False,
) -> None:
    """Fetch a model if it is not on this machine yet, and print the folder that holds it."""
    from model.hub.fetch import fetch

    if (name is None) != default:
        raise typer.BadParameter("give either a NAME or --default")
    names = [name] if name is not None else []
    if default:
        pair = default_pair(offline_ok=False)
        names = [pair.a, pair.b]
    with progress_bar() as tell:
        for each in names:
            entry = find(each)
            if entry is not None and entry.terms_needed:
                print(f"{entry.title}: terms at {entry.licence_url}", file=sys.stderr)
            folder = fetch(each, revision, tell, accept_licence)
            print(folder, flush=True)


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Catalog name, hub id, model folder or .gguf file.")],
    tokens: Annotated[int, typer.Option(help="Length of the text for the cost estimate.", min=1)] = 1024,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    adapter: Annotated[str | None, typer.Option(help="LoRA adapter: hub id or folder.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    attn_implementation: Annotated[str | None, typer.Option(help="sdpa, eager, ...")] = None,
    quantization: Annotated[str, typer.Option(help="none, 8bit or 4bit.")] = "none",
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer of a model that comes without one: catalog name, hub id or folder.")
    ] = None,
    accept_licence: Annotated[bool, typer.Option("--accept-licence")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """Load a model and show what it is and what scoring a text of that length takes."""
    from model.causal_lm.device_memory import available_memory
    from model.hub.loading import ModelSpec, load
    from model.hub.memory import estimate_memory, tokens_that_fit

    spec = ModelSpec(
        name,
        revision,
        adapter,
        cast("Any", dtype),  # ModelSpec checks it
        device,
        attn_implementation,
        cast("Any", quantization),
        trust_remote_code,
        tokenizer,
    )
    with progress_bar() as tell:
        loaded = load(spec, tell, accept_licence)
    cost = estimate_memory(loaded, tokens)
    figures = {
        "tokens": tokens,
        "weights": cost.weights,
        "activations": cost.activations,
        "logits_chunk": cost.logits_chunk,
        "attention": cost.attention,
        "total": cost.total,
        "available": available_memory(loaded.facts.device),
        "tokens_that_fit": tokens_that_fit(loaded, loaded.facts.device),
    }
    facts = loaded.facts.to_dict()
    if as_json:
        print(json.dumps({"facts": facts, "cost": figures}, indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in facts.items():
        shown = "; ".join(value) if isinstance(value, list) else f"{value:,}" if key == "parameters" else value
        table.add_row(key, "-" if shown in (None, "") else _plain(str(shown)))
    table.add_row("", "")
    table.add_row("memory", f"for a text of {tokens:,} tokens, estimated")
    for key in ("weights", "activations", "logits_chunk", "attention", "total", "available"):
        table.add_row(f"  {key}", f"{figures[key] / 1e6:,.1f} MB")
    table.add_row("  longest text", f"{figures['tokens_that_fit']:,} tokens by memory")
    _console().print(table)


def _console() -> Console:
    """Standard output; wide when it goes into a file or a pipe, so that nothing is cut there."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # no markup: names come from anyone
