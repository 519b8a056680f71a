"""`micro-step model list`, `fetch` and `show`. Results go to standard output, progress and errors to standard error.

It computes nothing itself; torch and transformers are loaded only by the commands that load a model.
"""

import json
import sys
from typing import Annotated, Any

import typer

from model.command_options import Adapter, LoadOptions, Revision, flatten_options
from model.hub.catalog import CatalogEntry, catalog, find
from model.hub.default_pair import default_pair
from model.hub.sources import BundledSource, HubSource
from model.tables import console, print_table
from model.terminal import progress_bar

_NAME = typer.Argument(help="Catalog name, hub id, model folder or .gguf file.")
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")]
AcceptLicence = Annotated[bool, typer.Option("--accept-licence", help="You have read and accept the model's terms.")]


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


def _count(parameters: int) -> str:
    if parameters >= 1e9:
        return f"{parameters / 1e9:.2f} B"
    return f"{parameters / 1e6:.{0 if parameters >= 1e7 else 1}f} M"


@flatten_options
def list_models(as_json: AsJson = False) -> None:
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
    table = [
        (
            row["name"],
            row["kind"],
            _count(row["parameters"]),
            row["licence"] + (" (terms)" if row["terms_needed"] else ""),
            "yes" if row["cached"] else "no",
            "\n".join(row["sources"]),
        )
        for row in rows
    ]
    print_table(("name", "kind", "parameters", "licence", "in cache", "sources"), table)
    console().print(
        "\nAny hub id, model folder or .gguf file can be named instead. (terms): accept them on the hub or with"
        " --accept-licence.",
        highlight=False,
    )


@flatten_options
def fetch_model(
    name: Annotated[str | None, _NAME] = None,
    default: Annotated[bool, typer.Option("--default", help="Fetch the pair that the app opens with.")] = False,
    revision: Revision = None,
    accept_licence: AcceptLicence = False,
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


@flatten_options
def show_model(
    name: Annotated[str, _NAME],
    loading: LoadOptions,
    tokens: Annotated[int, typer.Option(help="Tokens of the text whose memory is estimated.", min=1)] = 1024,
    revision: Revision = None,
    adapter: Adapter = None,
    accept_licence: AcceptLicence = False,
    as_json: AsJson = False,
) -> None:
    """Load a model and show what it is and what scoring a text of that length takes."""
    from model.causal_lm.device_memory import available_memory
    from model.hub.loading import load
    from model.hub.memory import estimate_memory, tokens_that_fit

    with progress_bar() as tell:
        loaded = load(loading.spec(name, revision, adapter), tell, accept_licence)
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
    rows = []
    for key, value in facts.items():
        shown = "; ".join(value) if isinstance(value, list) else f"{value:,}" if key == "parameters" else value
        rows.append((key, "-" if shown in (None, "") else str(shown)))
    rows += [("", ""), ("memory", f"for a text of {tokens:,} tokens, estimated")]
    for key in ("weights", "activations", "logits_chunk", "attention", "total", "available"):
        rows.append((f"  {key}", f"{figures[key] / 1e6:,.1f} MB"))
    rows.append(("  longest text", f"{figures['tokens_that_fit']:,} tokens by memory"))
    print_table(("", ""), rows)
