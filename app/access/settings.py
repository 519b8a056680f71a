"""The operator's choices, given when the app starts and the same for all visitors: read once, used everywhere.

Started for oneself, the app opens whatever its user may open. Served to others, it opens only the folders that were
named, fetches nothing, and runs no code that comes with models, unless the operator says otherwise.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Literal

import typer

from analysis.discovery import Found
from app.scheduling.run_queue import RunLimits
from model.access import ModelAccess, Root, Roots, limit_access
from model.errors import MicroStepError, TextError
from model.hub.fetch import ROOT

Kind = Literal["runs", "evaluations", "stores"]
SHIPPED: dict[Kind, str] = {"runs": "data/demo", "evaluations": "data/demo/evaluated", "stores": "data/demo/scored"}
# No option of the command, since other accounts of the machine see those.
TOKEN = "MICRO_STEP_TOKEN"
SHORTEST = 16  # characters of a token that the operator chose
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class OperatorOption:
    """One choice of the operator: an option of `micro-step app`, or a variable of the environment."""

    flag: str
    variable: str
    meaning: str

    def option(self, **more: Any) -> Any:
        """The option of the command."""
        return typer.Option(self.flag, help=f"{self.meaning} Variable: {self.variable}.", **more)


_FOLDERS = "as NAME=FOLDER. Repeat it for several; the variable separates them by a colon."
SERVE = OperatorOption(
    "--serve/--no-serve", "MICRO_STEP_SERVE",
    "For others: visitors open only the folders that you name here, fetch nothing and run no code of models. The "
    "default if the app listens on more than this machine.",
)  # fmt: skip
MODELS = OperatorOption("--models", "MICRO_STEP_MODELS", f"Offer a folder of models, {_FOLDERS}")
RUNS = OperatorOption("--runs", "MICRO_STEP_RUNS", f"Offer training runs and their checkpoints, {_FOLDERS}")
EVALUATIONS = OperatorOption("--evaluations", "MICRO_STEP_EVALUATIONS", f"Offer evaluations, {_FOLDERS}")
STORES = OperatorOption("--stores", "MICRO_STEP_STORES", f"Offer corpus stores, {_FOLDERS}")
HUB_CACHE = OperatorOption(
    "--hub-cache/--no-hub-cache", "MICRO_STEP_HUB_CACHE",
    "Offer, by their hub ids, the models of the Hugging Face hub that are on this machine.",
)  # fmt: skip
FETCH = OperatorOption("--fetch/--no-fetch", "MICRO_STEP_FETCH", "Let visitors fetch models.")
REMOTE_CODE = OperatorOption(
    "--remote-code/--no-remote-code", "MICRO_STEP_REMOTE_CODE", "Let visitors run Python code that comes with models."
)
RUN_MINUTES = OperatorOption("--run-minutes", "MICRO_STEP_RUN_MINUTES", "End a run that has worked for longer.")
QUEUE = OperatorOption("--queue", "MICRO_STEP_QUEUE", "Refuse a run while so many wait.")


@dataclass(frozen=True)
class Settings:
    """What the operator decided."""

    serve: bool  # for others
    models: ModelAccess
    runs: Roots | None  # None: any folder, as for all below
    evaluations: Roots | None
    stores: Roots | None
    limits: RunLimits
    token: str | None  # that lets visitors in; None: a proxy in front says who may come in

    @classmethod
    def read(cls, said: Mapping[str, str]) -> Settings:
        """Read them from the variables of the environment.

        Raises:
            MicroStepError: a variable cannot be read, or a folder does not exist.
        """
        serve = _flag(said, SERVE, False)
        runs = _roots(said, RUNS, serve, SHIPPED["runs"])
        models = _roots(said, MODELS, serve)
        fetch = _flag(said, FETCH, not serve)
        return cls(
            serve,
            ModelAccess(
                None if models is None else _together(models, runs),
                _flag(said, HUB_CACHE, fetch),
                fetch,
                _flag(said, REMOTE_CODE, not serve),
            ),
            runs,
            _roots(said, EVALUATIONS, serve, SHIPPED["evaluations"]),
            _roots(said, STORES, serve, SHIPPED["stores"]),
            RunLimits(
                seconds=60 * _number(said, RUN_MINUTES, RunLimits.seconds / 60),
                waiting=int(_number(said, QUEUE, RunLimits.waiting, 1)),
            ),
            _token(said),
        )

    def roots(self, kind: Kind) -> Roots | None:
        """The folders that are offered of a kind; None: any folder."""
        return {"runs": self.runs, "evaluations": self.evaluations, "stores": self.stores}[kind]

    def folder(self, kind: Kind, typed: str, whole: bool = False) -> Path:
        """The folder that a visitor typed; all of what it holds is looked at for links to the outside if `whole`.

        Raises:
            TextError: it is not offered; the message is the same whether or not it exists.
        """
        roots, typed = self.roots(kind), typed.strip() or "."
        if roots is not None:
            if (found := roots.find(typed)) is None or (whole and not roots.holds(found)):
                raise TextError(
                    f"this server offers no folder {typed!r} of {kind}; type one of these names, or NAME/FOLDER below"
                    f" it: {roots.names}"
                )
            return found
        if typed == SHIPPED[kind]:
            return ROOT / typed
        try:
            return Path(typed).expanduser()
        except RuntimeError:  # the home folder of a user who does not exist
            return Path(typed)

    def own(self, kind: Kind, found: Found) -> Found:
        """What was found, without what links out of the folders that are offered."""
        roots = self.roots(kind)
        if roots is None:
            return found
        return Found(tuple(place for place in found.places if roots.holds(place.path)), found.left_out)


@cache
def settings() -> Settings:
    """The operator's choices. The first call reads them, and limits which models this process loads.

    Raises:
        MicroStepError: a variable cannot be read.
    """
    read = Settings.read(os.environ)
    limit_access(read.models)
    return read


def _token(said: Mapping[str, str]) -> str | None:
    """The token: the operator's, or a new one."""
    word = said.get(TOKEN, "").strip()
    if word == "off":
        return None
    if word and (len(word) < SHORTEST or not word.isascii()):
        raise MicroStepError(f"{TOKEN} is too easy to guess: give {SHORTEST} or more letters and digits, or off")
    return word or token_urlsafe(32)


def _flag(said: Mapping[str, str], choice: OperatorOption, otherwise: bool) -> bool:
    word = said.get(choice.variable, "").strip().lower()
    if word not in ("", "0", "1", "false", "true", "no", "yes"):
        raise MicroStepError(f"{choice.variable} is {word!r}; give 1 or 0")
    return word in ("1", "true", "yes") if word else otherwise


def _number(said: Mapping[str, str], choice: OperatorOption, otherwise: float, least: float = 0.1) -> float:
    word = said.get(choice.variable, "").strip()
    try:
        number = float(word) if word else otherwise
    except ValueError:
        number = math.nan
    if not least <= number < math.inf:
        raise MicroStepError(f"{choice.variable} is {word!r}; give a number of at least {least:g}")
    return number


def _roots(said: Mapping[str, str], choice: OperatorOption, serve: bool, shipped: str = "") -> Roots | None:
    """The folders that a variable names, and the one that comes with the project; None: any."""
    words = [word for word in said.get(choice.variable, "").split(os.pathsep) if word.strip()]
    if not words and not serve:
        return None
    named = [_root(choice, word.strip()) for word in words]
    if shipped:
        named.append(Root(shipped, ROOT / shipped, (ROOT / shipped).resolve()))
    names = [root.name for root in named]
    if len(set(names)) < len(names):
        raise MicroStepError(f"{choice.variable} gives one name to two folders; give each its own")
    return Roots(tuple(named))


def _together(models: Roots, runs: Roots | None) -> Roots:
    """The folders that models are opened from: checkpoints of runs are models, too."""
    both = dict.fromkeys((*models.roots, *(runs.roots if runs is not None else ())))
    if len({root.name for root in both}) < len(both):
        raise MicroStepError(f"{MODELS.variable} and {RUNS.variable} give one name to two folders; give each its own")
    return Roots(tuple(both))


def _root(choice: OperatorOption, word: str) -> Root:
    name, _, folder = word.rpartition("=")
    path = Path(os.path.normpath(Path(folder).expanduser().absolute()))
    name = name or path.name
    if not _NAME.fullmatch(name):
        raise MicroStepError(f"{choice.variable}: {name!r} is no name of letters, digits, dots and dashes; give NAME=")
    if not path.is_dir():
        raise MicroStepError(f"{choice.variable}: there is no folder {path}")
    return Root(name, path, path.resolve())


def as_variables(choices: Mapping[OperatorOption, bool | float | Sequence[str] | None]) -> dict[str, str]:
    """Options of the command as variables, which the app reads; None: not given."""
    return {
        choice.variable: os.pathsep.join(value) if isinstance(value, Sequence) else str(value + 0)
        for choice, value in choices.items()
        if value is not None and value != []
    }
