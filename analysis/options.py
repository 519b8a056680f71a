"""What the commands share: options, as dataclasses that a command spreads into its own, and how they speak.

    @commands.command()
    @spread
    def score(model: OneModel, text: TextOptions, out: Out = None) -> None: ...

takes `--model`, `--revision`, ..., `--text`, `--text-file`, ..., `--out`. `analysis/cli.py` puts the commands together.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from model.errors import MicroStepError, TextError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.terminal import one_line, progress_bar
from model.text.document import Document, Message, TextInput, read_template_args

if TYPE_CHECKING:  # they bring torch and pandas, seconds that help and mistakes need not wait for
    import pandas as pd

    from analysis.uncertainty.request import ComparisonQuery
    from model.progress import Progress

Chat = Annotated[bool, typer.Option("--chat", help="Apply each model's own chat template.")]
ForceBos = Annotated[bool, typer.Option("--force-bos", help="Put BOS first even if the tokenizer does not.")]
TemplateArg = Annotated[
    list[str] | None,
    typer.Option("--template-arg", help="NAME=JSON, an argument of the chat template: enable_thinking=false."),
]
TemplateDate = Annotated[
    str | None, typer.Option(help="YYYY-MM-DD that a chat template writes as the day's date; today if not given.")
]
Unit = Annotated[Literal["bits", "nats"], typer.Option(help="Unit of entropy and surprisal; the tables name it.")]
UNIT: Literal["nats"] = "nats"  # of every command unless it is told: strategies and stores are in nats as well
Theme = Annotated[Literal["light", "dark"], typer.Option(help="Colours of the figure.")]
Pinned = Annotated[int | None, typer.Option(min=0, help="Character of the text to mark.")]
Out = Annotated[Path | None, typer.Option(help="File to write; its suffix chooses the format.")]
FigureOut = Annotated[Path, typer.Option(help="png, svg, pdf, html, csv, parquet, json or zip.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Adapter = Annotated[str | None, typer.Option(help="A LoRA adapter: hub id or folder.")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="Precision of the weights.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Attention = Annotated[str | None, typer.Option("--attn-implementation", help="sdpa, eager, flash_attention_2, ...")]
Quantization = Annotated[Literal["none", "8bit", "4bit"], typer.Option(help="Needs bitsandbytes.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]


def flatten_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses of options: each of their fields becomes an option of the command itself."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        group = hints[name]
        if not dataclasses.is_dataclass(group) or not isinstance(group, type):
            flat.append(parameter.replace(annotation=group, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[name] = group
        own = get_type_hints(group, include_extras=True)
        for field in dataclasses.fields(group):
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            flat.append(
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=own[field.name]
                )
            )

    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        command(**given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return run


@dataclass(frozen=True)
class TextOptions:
    """The text, and how a model reads it."""

    text: Annotated[str | None, typer.Option("--text", help="The text itself.")] = None
    text_file: Annotated[
        str | None,
        typer.Option("--text-file", "--file", help="A UTF-8 file, a .json conversation, or - for standard input."),
    ] = None
    system: Annotated[str | None, typer.Option(help="A system message before the text.")] = None
    answer: Annotated[str | None, typer.Option(help="An assistant's answer after the text.")] = None
    chat: Chat = False
    force_bos: ForceBos = False
    template_arg: TemplateArg = None
    template_date: TemplateDate = None

    @property
    def given(self) -> bool:
        """Whether there is any text."""
        return self.text is not None or self.text_file is not None

    def document(self) -> Document:
        """The document that the options describe, with the settings of its chat template.

        Raises:
            TextError: there is none, or two, or it cannot be read.
        """
        document = self._document()
        need_chat(self.chat, self.template_arg, self.template_date)
        if not self.chat:
            return document
        return document.told(read_template_args(self.template_arg), self.template_date)

    def input(self) -> TextInput:
        """The document, and how a model reads it.

        Raises:
            TextError: as `document`.
        """
        return TextInput(self.document(), self.chat, self.force_bos)

    def _document(self) -> Document:
        from analysis.document_file import read_document

        if (self.text is None) == (self.text_file is None):
            raise TextError("give the text with --text or with --text-file, one of them")
        if self.text_file == "-":
            document = read_document(sys.stdin.buffer.read(), "standard input")
        elif self.text_file is not None:
            try:
                document = read_document(Path(self.text_file).read_bytes(), self.text_file)
            except OSError as error:
                raise TextError(f"{self.text_file} cannot be read: {error.strerror}") from None
        else:
            document = Document.plain(self.text or "")
        if self.system is None and self.answer is None:
            return document
        if len(document.messages) > 1:
            raise TextError("the file is a conversation already; --system and --answer go with a plain text")
        turns = [Message("user", document.text)]
        turns = [Message("system", self.system), *turns] if self.system is not None else turns
        return Document((*turns, *([Message("assistant", self.answer)] if self.answer is not None else [])))


@dataclass(frozen=True)
class LoadOptions:
    """How every model is loaded."""

    dtype: Dtype = "auto"
    device: Device = "auto"
    attn_implementation: Attention = None
    quantization: Quantization = "none"
    trust_remote_code: Trust = False
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer of models that come without one: catalog name, hub id or folder.")
    ] = None

    def spec(self, name: str, revision: str | None, adapter: str | None) -> ModelSpec:
        """One model, loaded so."""
        return ModelSpec(
            name,
            revision,
            adapter,
            self.dtype,
            self.device,
            self.attn_implementation,
            self.quantization,
            self.trust_remote_code,
            self.tokenizer,
        )


@dataclass(frozen=True)
class ModelOptions:
    """One model."""

    model: Annotated[str, typer.Option(help="Catalog name, hub id or folder.")]
    revision: Revision = None
    adapter: Adapter = None

    def spec(self, loading: LoadOptions) -> ModelSpec:
        """As it is to be loaded."""
        return loading.spec(self.model, self.revision, self.adapter)


@dataclass(frozen=True)
class PairOptions:
    """Two models on one text."""

    a: Annotated[str, typer.Option("--a", "--model-a", help="Model A: catalog name, hub id or folder.")]
    b: Annotated[str, typer.Option("--b", "--model-b", help="Model B: catalog name, hub id or folder.")]
    a_revision: Revision = None
    b_revision: Revision = None
    a_adapter: Adapter = None
    b_adapter: Adapter = None
    new_tokens: Annotated[
        int, typer.Option("--continue", min=0, help="Let each model continue by up to so many tokens.")
    ] = 0
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling; 0 is greedy.")] = 0.0
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens of this total probability.")] = 1.0
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0

    def request(self, text: TextOptions, loading: LoadOptions) -> ComparisonQuery:
        """What is asked of them."""
        from analysis.uncertainty.request import ComparisonQuery
        from model.scoring.continuation import Sampling

        return ComparisonQuery(
            loading.spec(self.a, self.a_revision, self.a_adapter),
            loading.spec(self.b, self.b_revision, self.b_adapter),
            text.input(),
            self.new_tokens,
            Sampling(self.temperature, self.top_p, self.seed),
        )


def need_chat(chat: bool, arguments: list[str] | None, date: str | None) -> None:
    """Raise TextError where a chat template is told something that is not applied."""
    if (arguments or date) and not chat:
        raise TextError("--template-arg and --template-date are of a chat template: give --chat, too")


def check_table(out: Path | None) -> None:
    """Refuse, before heavy work, what a table cannot be written to."""
    from analysis.export import TABLES, check_out

    if out is not None:
        check_out(out, TABLES)


def load_shown(spec: ModelSpec) -> LoadedModel:
    """Load a model and show how far it is."""
    with progress_bar() as tell:
        return load(spec, tell)


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A bar for a run."""
    with progress_bar() as tell:
        yield lambda share: tell(what, share)


def print_notes(head: str, notes: tuple[str, ...]) -> None:
    """Say on standard error what a reader must know."""
    for note in notes:
        print(one_line(f"{head}{note}"), file=sys.stderr)


def print_or_save(table: pd.DataFrame, out: Path | None, caption: str, turned: bool = False) -> None:
    """Write a table to a file, or show it: by rows, or turned round where it has few rows and many columns."""
    from analysis.export import save_table
    from analysis.text_tables import show_table

    if out is not None:
        save_table(table, out)
        print(out)
    else:
        show_table(table, one_line(caption), turned)


def set_parameters(settings: list[str] | None) -> dict[str, float]:
    """The numbers of --set.

    Raises:
        MicroStepError: one that does not read like parameter=number, or a name that is set twice.
    """
    found: dict[str, float] = {}
    for setting in settings or ():
        name, _, value = setting.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise MicroStepError(f"--set takes parameter=number, got {setting!r}") from None
        if name in found:
            raise MicroStepError(f"{name!r} is set twice; set it once")
        found[name] = number
    return found
