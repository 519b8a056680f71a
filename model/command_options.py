"""Options of commands, each defined once, and both ways: from arguments to values, and from values to arguments.

    @dataclass(frozen=True)
    class LoadOptions:
        dtype: Annotated[Dtype, typer.Option(help="Precision of the weights.")] = "auto"

    @commands.command()
    @flatten_options
    def score(model: ModelOptions, loading: LoadOptions, out: Out = None) -> None: ...

The command takes `--model`, `--dtype`, ..., `--out`, and `to_args(LoadOptions("float32"))` is `["--dtype", "float32"]`.
"""

from __future__ import annotations

import dataclasses
import inspect
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, cast, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from model.errors import MicroStepError
from model.hub.model_info import ModelInfo
from model.hub.spec import ModelSpec
from model.text.document import read_template_args, template_arguments

if TYPE_CHECKING:  # it brings torch
    from model.scoring.scores import Sampling

Options = TypeVar("Options")
_UNLIMITED = float("inf")


@dataclass(frozen=True)
class ListOf:
    """Marks an option of several values: given once with commas or blanks between, or repeated."""

    kind: Callable[[str], Any]  # int, float or str
    least: float = -_UNLIMITED
    below: float = _UNLIMITED

    def read(self, option: str, given: Sequence[str]) -> tuple[Any, ...]:
        words = [word for part in given for word in part.replace(",", " ").split()]
        try:
            values = tuple(map(self.kind, words))
        except ValueError:
            values = ()
        numbers = self.kind is not str
        if not values or (numbers and not all(self.least <= value < self.below for value in values)):
            what = "names" if not numbers else "whole numbers" if self.kind is int else "numbers"
            bound = "" if self.least == -_UNLIMITED else f" from {self.least:g} on"
            raise MicroStepError(f"{option} takes {what}{bound} with commas or blanks between, got {' '.join(given)!r}")
        return values


@dataclass(frozen=True)
class OnlyWith:
    """Marks an option that is refused where another option of its command is not given."""

    other: str  # the name of its parameter


def flatten_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses of options: each of their fields becomes an option of the command itself."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    lists: dict[str, ListOf] = {}
    flags: dict[str, str] = {}
    bound: dict[str, str] = {}  # options, and those that they go with
    flat: list[inspect.Parameter] = []

    def add(name: str, hint: Any, default: Any) -> None:
        marks = get_args(hint)
        bound.update((name, mark.other) for mark in marks if isinstance(mark, OnlyWith))
        marker = next((mark for mark in marks if isinstance(mark, ListOf)), None)
        if marker is not None:
            lists[name] = marker
            others = [mark for mark in marks[1:] if mark is not marker]
            hint = Annotated[(list[str] if default is inspect.Parameter.empty else list[str] | None, *others)]
            default = default if default is inspect.Parameter.empty else None
        flags[name] = _flags(name, hint)[0]
        flat.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))

    defaults: dict[str, Any] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        group = hints[name]
        if not dataclasses.is_dataclass(group) or not isinstance(group, type):
            defaults[name] = parameter.default
            add(name, group, parameter.default)
            continue
        groups[name] = group
        own = get_type_hints(group, include_extras=True)
        for field in dataclasses.fields(group):
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            defaults[field.name] = default
            add(field.name, own[field.name], default)

    def run(context: typer.Context, **given: Any) -> None:
        for name, other in bound.items():
            source = context.get_parameter_source(name)
            if other in given and not given[other] and source is not None and source.name == "COMMANDLINE":
                raise MicroStepError(f"{flags[name]} goes with {flags[other]}: give that, too")
        for name, marker in lists.items():
            given[name] = marker.read(flags[name], given[name]) if given[name] else defaults[name]
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        command(**given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    run.__signature__ = inspect.Signature([context, *flat])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (context, *flat)}
    return run


def options_from(options: type[Options], value: object) -> Options:
    """The options whose fields have the values of the fields of the same names."""
    return options(**{field.name: getattr(value, field.name) for field in dataclasses.fields(cast(Any, options))})


def to_args(*groups: Any) -> list[str]:
    """The arguments that give these dataclasses of options, but for values that are their fields' defaults."""
    args: list[str] = []
    for group in groups:
        hints = get_type_hints(type(group), include_extras=True)
        for field in dataclasses.fields(group):
            value = getattr(group, field.name)
            if value is None or value == field.default:
                continue
            on, off = _flags(field.name, hints[field.name])
            if isinstance(value, bool):
                args.append(on if value else off)
            elif any(isinstance(each, ListOf) for each in get_args(hints[field.name])):
                args += [on, ",".join(map(str, value))]
            elif isinstance(value, list | tuple):
                args += [word for each in value for word in (on, str(each))]
            else:
                args += [on, str(value)]
    return args


def _flags(name: str, hint: Any) -> tuple[str, str]:
    plain = "--" + name.replace("_", "-")
    info = next((each for each in get_args(hint) if isinstance(each, OptionInfo)), None)
    declared = [] if info is None else [info.default, *(info.param_decls or ())]
    first = next((each for each in declared if isinstance(each, str) and each.startswith("--")), plain)
    on, _, off = first.partition("/")
    return on, off or "--no-" + on[2:]


def figure_command(verb: str, *groups: Any, names: Sequence[str] = ()) -> Callable[[str, str], str]:
    """The command that draws a figure, as a function of the figure's name and the file to write."""
    return lambda figure, out: command_line(verb, *names, *to_args(*groups), "--figure", figure, "--out", out)


def command_line(*words: str) -> str:
    return shlex.join(["micro-step", *words])


Chat = Annotated[bool, typer.Option("--chat", help="Apply each model's own chat template.")]
ForceBos = Annotated[bool, typer.Option("--force-bos", help="Put BOS first even if the tokenizer does not.")]
TemplateArg = Annotated[
    list[str] | None,
    typer.Option("--template-arg", help="NAME=JSON, an argument of the chat template: enable_thinking=false."),
]
TemplateDate = Annotated[
    str | None, typer.Option(help="YYYY-MM-DD, the date that a chat template writes; today if not given.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Adapter = Annotated[str | None, typer.Option(help="A LoRA adapter: hub id or folder.")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="Precision of the weights.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Tokenizer = Annotated[
    str | None, typer.Option(help="Tokenizer of a model that has none: catalog name, hub id or folder.")
]
Local = Annotated[Path | None, typer.Option(help="Folder with the files of data sets; without it, the hub.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use at most this many documents.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of torch; its own choice if not given.")]
EPS_HELP = (
    "Where the base checks drafts: it also keeps a drafted token that it gives at least this share of its likeliest"
    " token's probability. 1 is lossless; below 1 the answer no longer is."
)
EpsValues = Annotated[tuple[float, ...], typer.Option(help=f"{EPS_HELP} Several: 1,0.5."), ListOf(float)]
ByCost = Annotated[
    bool,
    typer.Option(
        "--by-cost",
        help="Where the base checks drafts: draft only as much as the measured times of passes make quickest.",
    ),
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")]
_OF_CONTINUATIONS = OnlyWith("new_tokens")  # of commands that continue a text only where they are asked to
_MODEL = typer.Option(help="Catalog name, hub id or folder.")


@dataclass(frozen=True)
class LoadOptions:
    """How every model is loaded."""

    dtype: Dtype = "auto"
    device: Device = "auto"
    attn_implementation: Annotated[
        str | None, typer.Option("--attn-implementation", help="sdpa, eager, flash_attention_2, ...")
    ] = None
    quantization: Annotated[Literal["none", "8bit", "4bit"], typer.Option(help="Needs bitsandbytes.")] = "none"
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False
    tokenizer: Tokenizer = None

    def spec(self, name: str, revision: str | None = None, adapter: str | None = None) -> ModelSpec:
        return ModelSpec(name, revision, adapter, **vars(self))

    @classmethod
    def of(cls, spec: ModelSpec, models: Sequence[ModelInfo]) -> LoadOptions:
        """The options that load these models again; "auto" becomes the precision that all of them came to, if one."""
        dtypes = {info.dtype for info in models}
        dtype: Any = dtypes.pop() if spec.dtype == "auto" and len(dtypes) == 1 else spec.dtype
        tokenizer = None if spec.tokenizer is None else _anywhere(spec.tokenizer)
        return cls(
            dtype,
            attn_implementation=spec.attn_implementation,
            quantization=spec.quantization,
            trust_remote_code=spec.trust_remote_code,
            tokenizer=tokenizer,
        )


@dataclass(frozen=True)
class ModelOptions:
    model: Annotated[str, _MODEL]
    revision: Revision = None
    adapter: Adapter = None

    def spec(self, loading: LoadOptions) -> ModelSpec:
        return loading.spec(self.model, self.revision, self.adapter)

    @classmethod
    def of(cls, spec: ModelSpec, info: ModelInfo) -> ModelOptions:
        return cls(*_place(spec, info))


@dataclass(frozen=True)
class PairOptions:
    """Two models, A and B."""

    a: Annotated[str | None, typer.Option("--a", "--model-a", help="Model A: catalog name, hub id or folder.")] = None
    b: Annotated[str | None, typer.Option("--b", "--model-b", help="Model B: catalog name, hub id or folder.")] = None
    a_revision: Revision = None
    b_revision: Revision = None
    a_adapter: Adapter = None
    b_adapter: Adapter = None

    def specs(self, loading: LoadOptions) -> tuple[tuple[str, ModelSpec], ...]:
        given = (("A", self.a, self.a_revision, self.a_adapter), ("B", self.b, self.b_revision, self.b_adapter))
        return tuple(
            (key, loading.spec(name, revision, adapter)) for key, name, revision, adapter in given if name is not None
        )

    @classmethod
    def of(cls, models: Sequence[tuple[str, ModelSpec, ModelInfo]]) -> Self:
        places = {key: _place(spec, info) for key, spec, info in models}
        none = None, None, None
        (a, a_revision, a_adapter), (b, b_revision, b_adapter) = places.get("A", none), places.get("B", none)
        return cls(a, b, a_revision, b_revision, a_adapter, b_adapter)

    def pair(self, loading: LoadOptions) -> tuple[ModelSpec, ModelSpec]:
        specs = self.specs(loading)
        if len(specs) != 2:
            raise MicroStepError("give two models, with --a and --b")
        return specs[0][1], specs[1][1]


@dataclass(frozen=True)
class ModelsOptions(PairOptions):
    model: Annotated[str | None, _MODEL] = None
    revision: Revision = None
    adapter: Adapter = None

    def specs(self, loading: LoadOptions) -> tuple[tuple[str, ModelSpec], ...]:
        """The models under their letters; the only one is A, unless it is given with --b."""
        pair = super().specs(loading)
        if self.model is None:
            return pair
        if pair:
            raise MicroStepError("give one model with --model, or two with --a and --b")
        return (("A", loading.spec(self.model, self.revision, self.adapter)),)

    def some(self, loading: LoadOptions) -> tuple[tuple[str, ModelSpec], ...]:
        specs = self.specs(loading)
        if not specs:
            raise MicroStepError("give a model with --model, or two with --a and --b")
        return specs

    @classmethod
    def of(cls, models: Sequence[tuple[str, ModelSpec, ModelInfo]]) -> Self:
        (key, spec, info), *others = models
        if key != "A" or others:
            return super().of(models)
        name, revision, adapter = _place(spec, info)
        return cls(model=name, revision=revision, adapter=adapter)


@dataclass(frozen=True)
class SamplingOptions:
    temperature: Annotated[
        float, typer.Option(min=0, help="Temperature of sampling; 0 is greedy."), _OF_CONTINUATIONS
    ] = 0.0
    top_p: Annotated[
        float, typer.Option(help="Sample from the likeliest tokens of this total probability."), _OF_CONTINUATIONS
    ] = 1.0
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampling."), _OF_CONTINUATIONS] = 0

    def sampling(self) -> Sampling:
        from model.scoring.scores import Sampling

        return Sampling(self.temperature, self.top_p, self.seed)

    @classmethod
    def of(cls, sampling: Sampling) -> SamplingOptions:
        return options_from(cls, sampling) if sampling.temperature else cls()


@dataclass(frozen=True)
class TemplateOptions:
    """What a chat template is given beside the messages."""

    template_arg: TemplateArg = None
    template_date: TemplateDate = None

    @property
    def arguments(self) -> tuple[tuple[str, str], ...] | None:
        """The arguments as JSON by name; None where there are none."""
        return template_arguments(read_template_args(self.template_arg)) or None


def _place(spec: ModelSpec, info: ModelInfo) -> tuple[str, str | None, str | None]:
    """Name, revision and adapter; of the hub, the commit that answered, so that no newer one answers later."""
    revision = spec.revision or (info.revision if info.source.startswith("hub ") else None)
    return _anywhere(spec.name), revision, spec.adapter


def _anywhere(name: str) -> str:
    """A folder's name as it is from everywhere on this machine."""
    try:
        return str(Path(name).resolve(strict=True))
    except (OSError, ValueError):  # no path, but a name
        return name
