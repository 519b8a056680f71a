"""Apply a model's chat template under limits: in another process, which is killed if the template does not end.

A template can loop or grow inside a single operation (a power, a repeated string), where nothing in this process could
stop it. The process is started once and kept, since rendering a text takes a millisecond and a start a second.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import MicroStepError, TextError
from model.text import template_worker

KEPT = 2  # idle processes
START_SECONDS = 120.0  # for a process to start: its imports, on a busy machine


class TemplateStopped(MicroStepError):
    """A chat template took too much time, memory or text, and was stopped."""


class TemplateRefusal(TextError):
    """A chat template raised an error."""


@dataclass(frozen=True)
class TemplateLimits:
    """What one text of a chat template may take."""

    seconds: int = 3  # of a processor
    wall_seconds: float = 30.0  # where the system counts no processor's time, and in case of a machine at its limit
    memory: int = 2**30  # bytes of addresses, for the whole process
    characters: int = 20_000_000


LIMITS = TemplateLimits()


def apply_chat_template(tokenizer: Any, conversation: Sequence[dict[str, Any]], **options: Any) -> str:
    """The text that the tokenizer's own `apply_chat_template` returns for these options, with `tokenize=False`.

    Raises:
        TemplateRefusal: the template refuses the conversation.
        TemplateStopped: the template passed a limit.
    """
    from transformers import PreTrainedTokenizerBase

    own = getattr(type(tokenizer), "apply_chat_template", None)
    if own is not PreTrainedTokenizerBase.apply_chat_template:  # code of its own, which runs by the user's leave
        try:
            return str(tokenizer.apply_chat_template(conversation, tokenize=False, **options))
        except Exception as error:
            raise TemplateRefusal(str(error)) from error
    source = tokenizer.get_chat_template(options.pop("chat_template", None), options.get("tools"))
    turns = [{name: value for name, value in turn.items() if value is not None} for turn in conversation]
    given = {**tokenizer.special_tokens_map, **options}
    given |= {"conversations": [turns], "chat_template": source}
    answer = _ask({"given": given, "seconds": LIMITS.seconds, "characters": LIMITS.characters})
    if "refusal" in answer:
        raise TemplateRefusal(answer["refusal"])
    if "limit" in answer:
        most = {"memory": f"{LIMITS.memory / 2**30:.0f} GiB of memory", "length": f"{LIMITS.characters:,} characters"}
        raise _stopped(most[answer["limit"]])
    return str(answer["text"])


class TemplateProcess:
    """One process that renders, one text after another."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", str(Path(template_worker.__file__)), str(LIMITS.memory)]
        environment = {**os.environ, "USE_TORCH": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        if self._receive(START_SECONDS) is None:
            self.end()
            raise MicroStepError("the process that applies chat templates did not start; try again")

    def __call__(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None if the process was stopped."""
        assert self._process.stdin is not None
        try:
            template_worker.write(self._process.stdin, request)  # type: ignore[arg-type]  # Popen's IO is binary
        except OSError:
            return None
        return self._receive(LIMITS.wall_seconds)

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            return template_worker.read(self._process.stdout)  # type: ignore[arg-type]
        finally:
            timer.cancel()

    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the process, and wait for its end."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was written last is not read any more
                    pipe.close()
        self._process.wait()


_idle: list[TemplateProcess] = []
_guard = threading.Lock()


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    with _guard:
        process = _idle.pop() if _idle else None
    if process is not None and not process.alive():
        process.end()
        process = None
    process = process or TemplateProcess()
    answer = None
    try:
        answer = process(request)
    finally:
        with _guard:
            keep = answer is not None and len(_idle) < KEPT
            if keep:
                _idle.append(process)
        if not keep:
            process.end()
    if answer is None:
        raise _stopped(f"{LIMITS.seconds} s")
    return answer


def _stopped(most: str) -> TemplateStopped:
    return TemplateStopped(
        f"the model's chat template was stopped: it takes more than {most}. Leave out the chat template, or choose "
        "another model"
    )


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


if hasattr(os, "register_at_fork"):  # a forked process may not talk over its parent's pipes
    os.register_at_fork(after_in_child=_idle.clear)
