"""The program that renders chat templates: a process of its own, which may be killed. `template_process.py` starts it.

A chat template comes with a model, and is a program: it can loop forever, or write a text that fills the memory. Here
it has a processor's time for each text, and memory for all. Requests and answers are JSON, each behind its length.
"""

import json
import os
import signal
import sys
from typing import Any, BinaryIO

LENGTH = 8  # bytes before each request and each answer: how many follow


def main() -> None:
    """Render what standard input asks for, until it ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    from transformers.utils.chat_template_utils import render_jinja_template

    _limit(int(sys.argv[1]))
    write(answers, {})  # ready
    while (request := read(sys.stdin.buffer)) is not None:
        _timer(request["seconds"])
        write(answers, _answer(render_jinja_template, request["given"], request["characters"]))
        _timer(0)


def _answer(render: Any, given: dict[str, Any], longest: int) -> dict[str, str]:
    try:
        (text,), _ = render(**given)
    except MemoryError:
        return {"limit": "memory"}
    except Exception as error:  # noqa: BLE001 - jinja raises whatever the template's own code raises
        return {"refusal": str(error)[:longest] or type(error).__name__}
    return {"text": text} if len(text) <= longest else {"limit": "length"}


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _timer(seconds: int) -> None:
    """Let the system end this process after so many seconds of a processor; 0: no longer."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def write(stream: BinaryIO, value: dict[str, Any]) -> None:
    """Send a request or an answer."""
    content = json.dumps(value, default=str).encode()
    stream.write(len(content).to_bytes(LENGTH, "big") + content)
    stream.flush()


def read(stream: BinaryIO) -> dict[str, Any] | None:
    """Receive a request or an answer; None at the end."""
    size = int.from_bytes(stream.read(LENGTH), "big")
    content = stream.read(size)
    value: dict[str, Any] | None = json.loads(content) if content else None
    return value


if __name__ == "__main__":
    main()
