"""What the commands of analyses share: the options of a text, and how they speak.

Those of models and of chat templates are in `model.command_options`, those of figures in `analysis.view`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from model.command_options import (
    Chat,
    ForceBos,
    ListOf,
    LoadOptions,
    ModelsOptions,
    TemplateArg,
    TemplateDate,
    figure_command,
)
from model.errors import MicroStepError, TextError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.hub.model_info import ModelInfo
from model.terminal import one_line, progress_bar
from model.text.document import Document, Message, TextInput, read_template_args

if TYPE_CHECKING:  # they bring torch and pandas, seconds that help and mistakes need not wait for
    import pandas as pd

    from analysis.answer import Result
    from analysis.figures.figure import Figure
    from analysis.provenance import Provenance
    from model.progress import Progress

Out = Annotated[Path | None, typer.Option(help="File to write; its suffix chooses the format.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="parameter=value of the strategy; may be repeated. Entropies in nats."),
]
MAX_LENGTH_OPTION = typer.Option(min=1, help="M, the most tokens of a segment; 4 unless given.")
MaxLength = Annotated[int, MAX_LENGTH_OPTION]
PromptApart = Annotated[
    bool | None,
    typer.Option(
        help="Each token that the assistant did not write is a segment. Default: where a chat template is applied"
        " to a conversation with an answer."
    ),
]

Method = Literal["exact", "strided", "banded"]  # of a limited history
HISTORY_METHOD = typer.Option(help="How a history is limited, for limited_history.")
HISTORY_STRIDE = typer.Option(min=1, help="For strided histories: one window for every this many tokens.")
HistoryMethod = Annotated[Method, HISTORY_METHOD]
HistoryStride = Annotated[int, HISTORY_STRIDE]
Column = Annotated[str, typer.Option(help="Column of a table with the text or conversation.")]
Ids = Annotated[
    list[str] | None,
    typer.Option("--id", help="Columns that together name a text, as item,condition; no two texts may be alike."),
]
TargetLengths = Annotated[
    tuple[float, ...] | None,
    typer.Option("--target-length", help="Mean lengths of segments to solve for, as 2,3, which is the default."),
    ListOf(float),
]


def figure_option(names: Collection[str]) -> Any:
    """The option that asks a command for a figure instead of its table."""
    return typer.Option(
        help=f"Draw {', '.join(names)} instead. --out ends in png, svg, pdf, html, csv, parquet, json or zip."
    )


@dataclass(frozen=True)
class TextOptions:
    """The text, and how a model reads it."""

    text: Annotated[str | None, typer.Option("--text", "--prompt", help="The text itself.")] = None
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
        return self.text is not None or self.text_file is not None

    @classmethod
    def of(cls, text: TextInput) -> TextOptions:
        """The options that read this text from the file that `document_file` makes of it."""
        from analysis.document_file import document_file

        document = text.document
        name, _ = document_file(document)
        if not text.chat:
            return cls(text_file=name, force_bos=text.force_bos)
        held = () if name.endswith(".txt") else ("tools",)  # a conversation's file holds its tools
        told = [f"{argument}={value}" for argument, value in document.arguments if argument not in held]
        return cls(
            text_file=name, chat=True, force_bos=text.force_bos, template_arg=told or None, template_date=document.date
        )

    def input(self) -> TextInput:
        return TextInput(self.document(), self.chat, self.force_bos)

    def document(self) -> Document:
        """The document that the options describe, with the settings of its chat template.

        Raises:
            TextError: there is none, or two, or it cannot be read.
        """
        document = self._document()
        need_chat(self.chat, self.template_arg, self.template_date)
        if not self.chat:
            return document
        return document.with_template_settings(read_template_args(self.template_arg), self.template_date)

    def _document(self) -> Document:
        from analysis.document_file import read_document

        if (self.text is None) == (self.text_file is None):
            raise TextError("give the text with either --text or --text-file")
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
class Reader:
    """A model that read a text, as the manifest of a figure names it."""

    key: str  # a, b; or model, where there is one
    spec: ModelSpec
    facts: ModelInfo
    read: str | None  # the text that it read, its chat template included; None: not told
    notes: tuple[str, ...] | None  # None: not told


def text_provenance(
    verb: str, request: dict[str, Any], text: TextInput, view: Any, readers: Sequence[Reader], *options: Any
) -> Provenance:
    """Where a figure of a text comes from.

    Args:
        verb: of the command that reproduces it.
        request: what was asked, in plain values.
        text: as the models read it.
        view: a dataclass.
        readers: the models.
        options: of the command, beside those of models, loading and text.
    """
    from analysis.document_file import document_file
    from analysis.provenance import Provenance, python_lines

    letters = {"model": "A", "a": "A", "b": "B"}
    models = [(letters[reader.key], reader.spec, reader.facts) for reader in readers]
    loading = LoadOptions.of(readers[0].spec, [reader.facts for reader in readers])
    return Provenance(
        command=figure_command(verb, ModelsOptions.of(models), TextOptions.of(text), loading, *options),
        request=request,
        view=asdict(view),
        models={reader.key: reader.facts for reader in readers},
        notes={reader.key: reader.notes for reader in readers if reader.notes is not None},
        files=dict([document_file(text.document)]),
        read={reader.key: reader.read for reader in readers if reader.read is not None},
        python=python_lines(verb, [reader.spec for reader in readers], loading, text, view, options),
    )


def id_columns(given: Sequence[str] | None) -> tuple[str, ...]:
    """The columns of --id, which may be given once with commas between, or repeated."""
    return tuple(name.strip() for words in given or () for name in words.split(",") if name.strip())


def need_chat(chat: bool, arguments: list[str] | None, date: str | None) -> None:
    """Raise TextError where a chat template is told something that is not applied."""
    if (arguments or date) and not chat:
        raise TextError("--template-arg and --template-date apply to a chat template: give --chat, too")


def check_table(out: Path | None) -> None:
    """Refuse, before heavy work, a file that no table can be written to."""
    from analysis.export import TABLES, check_out

    if out is not None:
        check_out(out, TABLES)


def check_output(out: Path | None, figure: str | None, figures: Collection[str]) -> None:
    """Refuse, before heavy work, a figure that does not exist, and a file that cannot be written.

    Raises:
        ExportError: nothing can be written under this name.
    """
    from analysis.export import FIGURE_FORMATS, check_out
    from analysis.figures.figure import check_figure

    if figure is None:
        check_table(out)
        return
    check_figure(figure, figures)
    if out is None:
        raise MicroStepError("--figure needs --out, the file to write")
    check_out(out, FIGURE_FORMATS)


def save_drawn(drawn: Figure, out: Path | None, origin: Provenance) -> None:
    """Write a figure in the file that `check_output` accepted, and print its name."""
    from analysis.export import save_figure

    assert out is not None
    save_figure(drawn, out, origin)
    print(out)


def load_shown(spec: ModelSpec) -> LoadedModel:
    """Load a model and show how far it is."""
    with progress_bar() as tell:
        return load(spec, tell)


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A bar for a run."""
    with progress_bar() as tell:
        yield lambda share: tell(what, share)


def print_answer(
    answer: Result[Any], figure: str | None, out: Path | None, head: str = "", caption: str = "", turned: bool = False
) -> None:
    """Say what a reader must know, and draw the figure that is asked for; without one, show or write the table.

    Args:
        answer: what was asked.
        figure: its name.
        out: the file to write.
        head: stands before each note.
        caption: of the table; the answer's summary if not given.
        turned: show columns as rows.
    """
    print_notes(head, answer.notes)
    if figure is not None:
        save_drawn(answer.draw(figure, answer.view), out, answer.provenance(figure, answer.view))
        return
    print_or_save(answer.table, out, caption or answer.summary, turned)
    if out is not None and not caption:
        print_notes("", (answer.summary,))


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
    """The numbers of --set."""
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


def split_strategies(words: Sequence[str]) -> list[str]:
    """Strategies that were given with commas or blanks between: `entropy:threshold=1.2,word` is two."""
    strategies: list[str] = []
    for part in re.split(r"[,\s]+", re.sub(r"\s*([:=,])\s*", r"\1", ",".join(words).strip(" ,"))):
        if strategies and "=" in part and ":" not in part:  # a further parameter of the one before
            strategies[-1] += f",{part}"
        else:
            strategies.append(part)
    return strategies


def strategy_word(strategy: str, settings: list[str] | None) -> str:
    """A strategy as one word, from `--strategy NAME:key=value` or `--strategy NAME --set key=value`."""
    rule, colon, own = strategy.partition(":")
    given = [part.partition("=")[0].strip() for part in own.split(",")] if colon else []
    for name in set_parameters(settings):
        if name in given:
            raise MicroStepError(f"{name!r} is set twice; set it once")
    return f"{rule}:{','.join([*([own] if own else []), *(settings or ())])}" if own or settings else rule
