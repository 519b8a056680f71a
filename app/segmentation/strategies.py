"""The strategies of the segmentation page: their list in the session and the URL, and the widgets that edit it.

The registry of rules decides which widgets a strategy has. Values are stored in nats and shown in the sidebar's unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import streamlit as st

from analysis.score_registry import Unit, significant
from analysis.segmentation.segmented_text import SegmentedText
from analysis.segmentation.single import unreached
from analysis.segmentation.strategy import Strategy, check_rule, labels, scale
from app.error_net import safely
from app.escape import escape_markdown
from app.links import held, went_back
from model.errors import MicroStepError
from model.segmentation.features import FEATURES
from model.segmentation.segment import MAX_LENGTH, RULES, Parameter
from model.segmentation.solver import POINTS, Solved, solve

DEFAULT = ("entropy:threshold=3", "confidence:tau=0.3")  # similar mean lengths
IN_LINE = 2  # strategies whose controls stand above the strip
MOST = 12  # strategies side by side
LOWEST = -6.0  # nats; the lower end of the slider for a rise
URL, CURVE = "cut", "values_of"  # in the link: the strategies, and the place of the one whose values are drawn, from 1
_LIST, _NEXT, _CHOSEN, _MIRRORS = "strategies", "strategies_next", "strategy_chosen", "strategy_mirrors"


@dataclass(frozen=True)
class StrategyEntry:
    """A strategy in the list. Its number never changes, and its widgets' keys contain it."""

    number: int
    strategy: Strategy
    message: str = ""  # what the solver reports, or why a change was refused


@dataclass
class BoundWidget:
    """A number box or slider that shows a parameter, with the value that the browser last reported.

    Only the reader changes its value. If a value comes from elsewhere, a new widget with a new key is made: written
    into the old one, it could collide with a report from the browser, and an old value would look like a move of the
    reader.
    """

    name: str
    turn: int
    value: float  # the parameter's value
    first: float  # what it showed when it was made, in the unit shown
    shown: float  # what it shows now

    @property
    def key(self) -> str:
        """The widget's key."""
        return f"{self.name}_{self.turn}"


def entries() -> list[StrategyEntry]:
    """The strategies; on a first visit those of the URL, or examples."""
    words = held(URL, [])
    if _LIST not in st.session_state or (went_back() and words != _words()):
        strategies: list[Strategy] = []
        for word in words[:MOST]:
            try:
                strategies.append(Strategy.parse(word))
            except MicroStepError as error:
                st.warning(f"A strategy in this link is left out: {escape_markdown(str(error))}")
        strategies = strategies or [Strategy.parse(word) for word in DEFAULT]
        number = st.session_state.get(_NEXT, 0)
        st.session_state[_LIST] = [StrategyEntry(number + i, strategy) for i, strategy in enumerate(strategies)]
        st.session_state[_NEXT] = number + len(strategies)
    listed: list[StrategyEntry] = st.session_state[_LIST]
    st.session_state[URL] = _words()
    return listed


def _words() -> list[str]:
    return [str(entry.strategy) for entry in st.session_state[_LIST]]


def chosen() -> int:
    """The index in the list of the strategy whose values are drawn."""
    listed, number, place = entries(), st.session_state.get(_CHOSEN), held(CURVE, 1, formerly="curve")
    if number is None or went_back():
        number = st.session_state[_CHOSEN] = listed[min(max(place, 1), len(listed)) - 1].number
    at = next((i for i, entry in enumerate(listed) if entry.number == number), 0)
    st.session_state[CURVE] = at + 1
    return at


def choose(place: int) -> None:
    """Draw the values of the strategy at this index."""
    st.session_state[_CHOSEN] = entries()[place].number


def editor(cuts: Sequence[SegmentedText], unit: Unit, max_length: int, usable: Sequence[str], why_not: str) -> None:
    """Draw a line for each strategy: its rule, parameters, a target to solve for, and buttons to copy and remove it.

    Args:
        cuts: the segmentations on which targets are solved; with two models, the reader chooses one of them.
        unit: of the entropies shown.
        max_length: M.
        usable: names of the rules that can be used here.
        why_not: what to tell the reader who chooses another rule.
    """
    listed = entries()
    sides = list(dict.fromkeys(cut.side.key for cut in cuts))
    on = sides[0] if sides else "A"
    if len(sides) > 1:
        on = st.segmented_control(
            "Targets are solved on model", sides, default=sides[0], key="solve_on", required=True,
            help="A strategy has one parameter for both models. The target is the mean length under this model.",
        )  # fmt: skip
    for place, (entry, label) in enumerate(zip(listed, labels([e.strategy for e in listed]), strict=True)):
        cut = next((cut for cut in cuts if cut.number == place and cut.side.key == on), None)
        _line(entry, label, cut, unit, max_length, usable, why_not)
    st.button(
        "Add a strategy", key="add_strategy", on_click=safely(_add), disabled=len(listed) >= MOST,
        help=f"Up to {MOST} side by side.",
    )  # fmt: skip


def strategy_line(unit: Unit, usable: Sequence[str], why_not: str) -> None:
    """Draw the first strategies in one line: the rule of each, and the parameter that sets the mean length."""
    for place, entry in enumerate(entries()[:IN_LINE], 1):
        rule = entry.strategy.rule
        with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", width="content"):
            _rule_box(entry, f"pick_{entry.number}", f"Strategy {place}", usable, why_not, 160)
            if rule.solves is not None:
                parameter = rule.parameter(rule.solves)
                st.caption(_label(parameter, unit).removesuffix(", probability"), width="content")
                _number(entry, parameter, unit, "line")


def line_messages() -> None:
    """Say why a change in the line was refused."""
    for entry in entries()[:IN_LINE]:
        if entry.message:
            st.caption(escape_markdown(entry.message))


def threshold_slider(place: int, top: float, unit: Unit) -> None:
    """Draw a wide slider for the parameter that sets the mean length.

    Args:
        place: index of the strategy in the list.
        top: the largest value that the rule compares with its threshold; entropies in nats.
        unit: of the entropies shown.
    """
    entry = entries()[place]
    rule = entry.strategy.rule
    if rule.solves is None:
        st.caption("This rule has no threshold to move.")
        return
    parameter = rule.parameter(rule.solves)
    factor, (mirror, move) = scale(parameter.unit, unit), _mirror(entry, parameter, unit, "slide")
    high = max(min(parameter.high, 16 if parameter.integer else top), parameter.low + parameter.step) * factor
    high = max(high, mirror.first, mirror.shown)  # other ends would make Streamlit start a new widget
    low = max(parameter.low * factor, min(LOWEST * factor, mirror.first, mirror.shown))
    kind = int if parameter.integer else float
    st.slider(
        _label(parameter, unit), kind(low), kind(high), kind(mirror.shown), kind(parameter.step),
        format=None if parameter.integer else "%.3g", key=mirror.key, help=parameter.meaning, on_change=safely(move),
    )  # fmt: skip


def _line(
    entry: StrategyEntry,
    label: str,
    cut: SegmentedText | None,
    unit: Unit,
    max_length: int,
    usable: Sequence[str],
    why_not: str,
) -> None:
    rule, number = entry.strategy.rule, entry.number
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key=f"strategy_{number}"):
        _rule_box(entry, f"rule_{number}", "Strategy", usable, why_not, 230)
        for parameter in rule.parameters:
            _number(entry, parameter, unit)
        if rule.solves is not None:
            if (st.session_state.get(f"target_{number}") or 0) > max_length:
                st.session_state[f"target_{number}"] = float(max_length)
            st.number_input(
                "Target length", 1.0, float(max_length), None, 0.1, key=f"target_{number}", width=120,
                placeholder="tokens", help="The mean segment length, in tokens, for which to solve the parameter.",
            )  # fmt: skip
            st.button(
                "Solve", key=f"solve_{number}", on_click=safely(_solve), args=(number, cut, max_length),
                disabled=cut is None,
                help=f"Set {rule.solves} to the value that comes nearest to the target length.",
            )  # fmt: skip
        full = len(entries()) >= MOST
        st.button(
            ":material/content_copy:",
            key=f"copy_{number}",
            on_click=safely(_copy),
            args=(number,),
            disabled=full,
            help=f"Copy {label}",
        )
        st.button(
            ":material/close:", key=f"drop_{number}", on_click=safely(_drop), args=(number,),
            disabled=len(entries()) < 2, help=f"Remove {label}",
        )  # fmt: skip
    if entry.message:
        st.caption(escape_markdown(entry.message))


def _rule_box(entry: StrategyEntry, key: str, label: str, usable: Sequence[str], why_not: str, width: int) -> None:
    """Draw the choice of a strategy's rule; in the line above the strip without its label."""
    rule = entry.strategy.rule
    st.session_state[key] = rule.name
    st.selectbox(
        label, list(RULES), key=key, format_func=lambda name: _rule_name(name, usable), width=width,
        on_change=safely(_change_rule), args=(entry.number, key, tuple(usable), why_not),
        label_visibility="visible" if label == "Strategy" else "collapsed",
        help=f"{escape_markdown(rule.title)}: a token starts a segment when {escape_markdown(rule.meaning)}."
        f" Source: {escape_markdown(rule.source)}."
        f"{'' if rule.causal else ' It needs the token itself, so it cannot be used while writing.'}",
    )  # fmt: skip


def _number(entry: StrategyEntry, parameter: Parameter, unit: Unit, kind_of_box: str = "number") -> None:
    factor, kind = scale(parameter.unit, unit), int if parameter.integer else float
    mirror, move = _mirror(entry, parameter, unit, kind_of_box)
    in_line = kind_of_box == "line"
    st.number_input(
        _label(parameter, unit), kind(parameter.low * factor), kind(parameter.high * factor), kind(mirror.shown),
        step=kind(parameter.step), format=None if parameter.integer else "%.4g", key=mirror.key,
        width=92 if in_line else 150, label_visibility="collapsed" if in_line else "visible",
        help=f"{escape_markdown(parameter.meaning)}.", on_change=safely(move),
    )  # fmt: skip


def _mirror(
    entry: StrategyEntry, parameter: Parameter, unit: Unit, kind: str
) -> tuple[BoundWidget, Callable[[], None]]:
    """The box or slider of a parameter (a new one if its value came from elsewhere), and the callback of a move."""
    mirrors: dict[str, BoundWidget] = st.session_state.setdefault(_MIRRORS, {})
    name = f"{kind}_{entry.number}_{entry.strategy.name}_{parameter.name}_{unit}"
    mirror, value = mirrors.get(name), entry.strategy.parameters[parameter.name]
    if mirror is None or mirror.value != value:
        shown = value * scale(parameter.unit, unit)
        mirror = mirrors[name] = BoundWidget(name, mirror.turn + 1 if mirror else 0, value, shown, shown)
    return mirror, partial(_moved, entry.number, entry.strategy.name, parameter, unit, mirror)


def _label(parameter: Parameter, unit: Unit) -> str:
    return f"{parameter.name}, {unit if parameter.unit == 'nats' else parameter.unit}"


def _rule_name(name: str, usable: Sequence[str]) -> str:
    rule = RULES[name]
    if name not in usable:
        return f"{rule.title} (not available)"
    return f"{rule.title} (extra model pass)" if rule.needs & FEATURES.keys() else rule.title


# Callbacks of the widgets, which run before the page


def _put(number: int, changed: StrategyEntry | None) -> None:
    listed = [changed if entry.number == number else entry for entry in entries()]
    st.session_state[_LIST] = [entry for entry in listed if entry is not None]


def _find(number: int) -> StrategyEntry | None:
    """The strategy; None if it was removed, since its widgets may still report a change."""
    return next((entry for entry in entries() if entry.number == number), None)


def _moved(number: int, rule: str, parameter: Parameter, unit: Unit, mirror: BoundWidget) -> None:
    """A box or slider reports a value, perhaps late, and perhaps an unchanged one."""
    entry, shown = _find(number), st.session_state.get(mirror.key)
    if entry is None or entry.strategy.name != rule or shown is None or shown == mirror.shown:
        return
    value = float(f"{shown / scale(parameter.unit, unit):.6g}")
    mirror.shown, mirror.value = shown, min(max(value, parameter.low), parameter.high)
    _put(number, replace(entry, strategy=entry.strategy.with_value(parameter.name, mirror.value), message=""))


def _change_rule(number: int, key: str, usable: tuple[str, ...], why_not: str) -> None:
    entry, name = _find(number), st.session_state.get(key)
    if entry is None or name is None:
        return
    try:
        check_rule(name, {}, MAX_LENGTH)
        if name not in usable:
            raise MicroStepError(why_not)
        _put(number, StrategyEntry(number, Strategy.of(name)))
    except MicroStepError as error:
        _put(number, replace(entry, message=str(error)))


def _new_number() -> int:
    number: int = st.session_state[_NEXT]
    st.session_state[_NEXT] = number + 1
    return number


def _add() -> None:
    used = {entry.strategy.name for entry in entries()}
    free = [name for name, rule in RULES.items() if rule.needs <= {"scores", "text"} and name not in used]
    st.session_state[_LIST] = [*entries(), StrategyEntry(_new_number(), Strategy.of(free[0] if free else "entropy"))]


def _copy(number: int) -> None:
    entry, listed = _find(number), entries()
    if entry is not None:
        after = listed.index(entry) + 1
        st.session_state[_LIST] = [*listed[:after], StrategyEntry(_new_number(), entry.strategy), *listed[after:]]


def _drop(number: int) -> None:
    _put(number, None)


def _solve(number: int, cut: SegmentedText, max_length: int) -> None:
    entry, target = _find(number), st.session_state.get(f"target_{number}")
    if entry is None:
        return
    if target is None:
        _put(number, replace(entry, message="Type a target length first: the mean number of tokens per segment."))
        return
    strategy = entry.strategy
    try:
        solved = solve(strategy.name, cut.inputs, float(target), max_length, POINTS, **strategy.others)
    except MicroStepError as error:
        _put(number, replace(entry, message=str(error)))
        return
    changed = strategy.with_value(solved.parameter, solved.value)
    _put(number, replace(entry, strategy=changed, message=_solver_message(solved, cut.side.key)))


def _solver_message(solved: Solved, side: str) -> str:
    """What was reached, and what cannot be reached."""
    reached = f"{significant(solved.mean_length, 4)} tokens per segment on model {side} ({solved.segments:,} segments)."
    return " ".join([f"Solved: {reached}", *unreached(solved)])
