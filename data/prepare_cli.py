"""`micro-step data prepare`: clean a mix, score it under a base, and say what each strategy would give."""

from pathlib import Path
from typing import Annotated

import typer

from data.ray_pool import RayOptions
from model.command_options import Device, Dtype, Local, TemplateOptions, flatten_options
from model.errors import MicroStepError
from model.tables import print_table
from model.terminal import progress_bar


@flatten_options
def prepare_command(
    mix: Annotated[str, typer.Argument(help="Name of a mix, or a YAML file.")],
    model: Annotated[str, typer.Option(help="The base: catalog name, hub id or folder.")],
    template: TemplateOptions,
    cluster: RayOptions,
    out: Annotated[Path, typer.Option(help="Folder of the prepared data; a begun one is gone on with.")],
    local: Local = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Examples, after cleaning.")] = None,
    chat: Annotated[bool, typer.Option("--chat/--plain", help="Apply the base's chat template.")] = True,
    max_tokens: Annotated[int, typer.Option(min=2, help="Of an example; the rest is cut.")] = 512,
    distill: Annotated[
        int | None, typer.Option(min=1, help="Let the base write the responses, of so many tokens at most.")
    ] = None,
    max_length: Annotated[int, typer.Option(min=1, help="M, the most tokens of a segment, for the table.")] = 4,
    dtype: Dtype = "auto",
    device: Device = "auto",
    states: Annotated[
        str | None,
        typer.Option(
            metavar="LAYERS",
            help="Also keep the base's states for training, of the same pass: after these layers, such as 8,15,22,30,"
            " or 'even' for four evenly spaced ones.",
        ),
    ] = None,
    teacher_top: Annotated[
        int | None, typer.Option(min=1, help="Also keep so many likeliest next tokens as a teacher, of the same pass.")
    ] = None,
) -> None:
    """Clean a mix, score it under a base (resumable), and show what each strategy would give on the responses."""
    from data.distill.run import DistillOptions
    from data.mixes import read_mix
    from data.prepare import PrepareOptions, prepare
    from data.prepared import STATES
    from data.states.spec import StatesSpec
    from data.training_rows import strategy_rows
    from model.hub.loading import ModelSpec, load

    chosen = read_mix(mix)
    spec = ModelSpec(model, dtype=dtype, device=device)
    answers = None if distill is None else DistillOptions(max_new_tokens=distill)
    kept = None
    if states is not None or teacher_top is not None:
        kept = StatesSpec((out / STATES).resolve(), None if states is None else _layers(states), teacher_top)
    options = PrepareOptions(
        chat, max_tokens, limit, answers, cluster, template.arguments, template.template_date, kept
    )
    with progress_bar() as tell:
        made = prepare(chosen, model, lambda: load(spec, tell), out, local, options, (), tell)
    titles = ("strategy", "tokens a macro step", *(f"of {n + 1}" for n in range(max_length)))
    rows = [
        (row.strategy, f"{row.mean_length:.3f}", *(f"{share:.1%}" for share in row.shares))
        for row in strategy_rows(made, max_length)
    ]
    if rows:
        print_table(titles, rows, 1)
    else:
        print("no example has an answer to learn; --distill lets the model write them")
    print(f"{len(made.held_out):,} examples, {int(made.held_out.sum()):,} held out; {made.hash}")
    print(out)


def _layers(text: str) -> tuple[int, ...]:
    if text == "even":
        return ()
    try:
        return tuple(int(layer) for layer in text.split(","))
    except ValueError:
        raise MicroStepError(f"--states takes numbers of layers, such as 8,15,22,30, or 'even', not {text!r}") from None
