"""`micro-step depth`: what every layer predicts, and where each token is decided."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.depth.options import DepthView, TunedLensOptions
from analysis.options import (
    Out,
    TextOptions,
    check_output,
    check_table,
    figure_option,
    load_shown,
    print_answer,
    print_notes,
    print_or_save,
    progress,
)
from model.command_options import LoadOptions, ModelsOptions, flatten_options

FIGURE_NAMES = ("strip", "heatmap", "layers", "decided", "agreement")


@flatten_options
def depth(
    models: ModelsOptions,
    text: TextOptions,
    loading: LoadOptions,
    lenses: TunedLensOptions,
    view: DepthView,
    tokens: Annotated[Path | None, typer.Option(help="Also write a row for each token and layer.")] = None,
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """What every layer predicts (the logit lens), and at which layer each token is decided.

    Writes a row for each layer, means over tokens with their 95% intervals, or with --figure draws a figure. Layer 0
    is of the embeddings, the last layer is the model's own prediction. kl is KL(final || layer).

    A token is decided at the first layer from which the likeliest word stays the one that is likeliest in the end.
    Of a micro_step model, the layers are those of its base, read token by token.
    """
    from analysis.depth.answer import depth_answer
    from analysis.depth.request import DepthRequest, lens_files
    from analysis.depth.tables import brief_table, token_table
    from analysis.export import save_table

    check_output(out, figure, FIGURE_NAMES)
    check_table(tokens)
    specs = models.some(loading)
    request = DepthRequest(specs, text.input(), lens_files(lenses.tuned_lens, lenses.b_tuned_lens, len(specs)))
    with progress("reading layers") as tell:
        answer = depth_answer(request, view, load_shown, tell)
    if tokens is not None:
        save_table(token_table(answer.raw, view.unit), tokens)
    if figure is None and out is None:
        print_notes("", answer.notes)
        print_or_save(brief_table(answer.table), None, answer.summary)
    else:
        print_answer(answer, figure, out)
