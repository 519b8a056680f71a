"""The commands of before `micro-step`, in today's words: `figure strip` is `compare --figure strip`.

Bundles that were made with them say how to draw their figures again, and that must go on working.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

PROGRAMS = {
    "model": "model",
    "data": "data",
    "trainer": "train",
    "evals": "eval",
    "benchmarks": "bench",
    "serving": "serve",
}
VERBS = {
    "corpus": "corpus score",
    "corpus-report": "corpus report",
    "corpus-gather": "corpus gather",
    "corpus-change": "corpus change",
    "corpus-study": "corpus study",
}
FIGURES = {
    "figure": "compare",
    "segmentation-figure": "segment",
    "generation-figure": "generate",
    "attention-figure": "attention",
    "micro-attention-figure": "micro-attention",
    "attribution-figure": "attribute",
    "runs-figure": "runs",
    "evenness-figure": "evenness",
}
FLAGS = {  # of `python -m analysis`: no value follows
    *("--help", "--chat", "--force-bos", "--trust-remote-code", "--prompt-apart", "--no-prompt-apart", "--rollout"),
    *("--written", "--lossless", "--merged", "--other-precision", "--log", "--untrained", "--no-untrained"),
    *("--windows", "--ray", "--report", "--no-report", "--allow-incomplete"),
}
Given = list[tuple[str, str | None]]  # an option with its value, a flag with None, or "" with an argument


def translated(program: str, words: Sequence[str]) -> list[str]:
    """The words after `python -m PROGRAM` as words after `micro-step`; those of no program stay as they are."""
    if program in PROGRAMS:
        return [PROGRAMS[program], *words]
    if program != "analysis" or not words or words[0].startswith("-"):
        return list(words)
    old, given = words[0], _parsed(words[1:])
    verb = FIGURES.get(old, VERBS.get(old, old))
    figure = None
    if old in FIGURES and (places := [i for i, (option, _) in enumerate(given) if not option]):
        figure = given.pop(places[0])[1]
        given.append(("--figure", figure))
    change = _CHANGES.get(verb)
    given = given if change is None else change(given, figure)
    return [*verb.split(), *(word for pair in given for word in pair if word)]


def _parsed(words: Sequence[str]) -> Given:
    found: Given = []
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        if not word.startswith("--"):
            found.append(("", word))
        elif equals:
            found.append((option, value))
        else:
            found.append((word, None if word in FLAGS else next(left, None)))
    return found


def _renamed(given: Given, names: dict[str, str]) -> Given:
    return [(names.get(option, option), value) for option, value in given]


def _from_zero(given: Given, *options: str) -> Given:
    """Numbers that were counted from 1."""
    return [
        (option, str(int(value) - 1) if option in options and value and value.isdecimal() else value)
        for option, value in given
    ]


def _attribute(given: Given, figure: str | None) -> Given:
    given = _renamed(given, {"--unit": "--group-by", "--information": "--unit"})
    if any(option == "--b" for option, _ in given):
        given = _renamed(given, {"--model": "--a", "--revision": "--a-revision", "--adapter": "--a-adapter"})
    return given


def _generate(given: Given, figure: str | None) -> Given:
    """Several values of tau had an option of their own, which only some figures read."""
    taus = next((value for option, value in given if option == "--taus"), None)
    given = [pair for pair in given if pair[0] != "--taus"]
    if taus is None or (figure is not None and not figure.startswith("sweep")):
        return given
    return [*(pair for pair in given if pair[0] != "--confidence"), ("--confidence", taus)]


def _segment(given: Given, _: str | None) -> Given:
    """Places were counted from 1, and options that no strategy of the command reads were ignored."""
    from model.segmentation.segment import RULES

    words = [value.partition(":")[0].strip() for option, value in given if option == "--strategy" and value]
    needs = {need for word in words if word in RULES for need in RULES[word].needs}
    if any(option == "--window" for option, _ in given):
        needs.add("window")
    unread = set() if "attention" in needs else {"--layer", "--head"}
    unread |= set() if "window" in needs else {"--history-method", "--history-stride"}
    return _from_zero([pair for pair in given if pair[0] not in unread], "--chosen")


def _study(given: Given, _: str | None) -> Given:
    letters = iter(("--a", "--b"))
    return [(next(letters, option), value) if option == "--model" else (option, value) for option, value in given]


def _attention(given: Given, _: str | None) -> Given:
    return [("--source", "rollout") if option == "--rollout" else (option, value) for option, value in given]


_CHANGES: dict[str, Callable[[Given, str | None], Given]] = {
    "corpus study": _study,
    "segment": _segment,
    "solve": _segment,
    "micro-attention": lambda given, _: _from_zero(given, "--layer", "--segment"),
    "attention": _attention,
    "attribute": _attribute,
    "generate": _generate,
    "evenness": lambda given, figure: given if figure is None else _renamed(given, {"": "--table"}),
}
