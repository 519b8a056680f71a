"""Conversations as files hold them: OpenAI's messages, ShareGPT's turns, bare lists; one reader for all of them.

What a message may hold beyond a plain string is handed to the chat template, read as something else and said, or
refused with the number of the message and the reason. Nothing is guessed. Knows nothing about files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.errors import TextError
from model.text.document import PLAIN, Document, Message, template_arguments

SPEAKERS = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
    PLAIN: PLAIN,  # a plain text among conversations
}
"""Who speaks, by the names that files give them."""
EXPECTED = 'it should hold {"messages": [{"role": "user", "content": "..."}]}, or such a list, or ShareGPT\'s turns'
_LISTS = ("messages", "conversations", "conversation")
_WITH_TEXT = ("text", "input_text", "output_text")  # types of parts of a content
_TOLD = ("tool_calls", "tool_call_id", "name", "reasoning_content")  # what templates are told of a turn
_REASONING = ("reasoning_content", "reasoning", "thinking")
_READ = {"role", "from", "content", "value", "function_call", *_TOLD, *_REASONING}


@dataclass(frozen=True)
class Conversation:
    """Turns, and what was left out or read as something else."""

    messages: tuple[Message, ...]
    notes: tuple[str, ...]


def read_conversation(held: Any, name: str) -> Document:
    """The document of a parsed JSON file.

    Args:
        held: a list of turns, or an object with one under messages or conversations; beside it may stand tools and
            chat_template_kwargs, which the chat template is given.
        name: of the file, for errors.

    Raises:
        TextError: it is no conversation, or a message holds what cannot be read; told with its number.
    """
    turns, beside = held, {}
    if isinstance(held, Mapping):
        keys = [key for key in _LISTS if key in held]
        if len(keys) != 1:
            raise TextError(f"{name} is no conversation; {EXPECTED}")
        turns, beside = held[keys[0]], {key: value for key, value in held.items() if key != keys[0]}
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise TextError(f"{name} is no conversation; {EXPECTED}")
    arguments = _arguments(beside, name)
    system = beside.pop("system", None)
    if isinstance(system, str) and system:
        turns = [{"role": "system", "content": system}, *turns]
    found = read_turns(turns, name)
    ignored = sorted(set(beside) - {"tools", "functions", "chat_template_kwargs"})
    notes = [*found.notes, *([f"{', '.join(ignored)} of the file: not read"] if ignored else [])]
    return Document(found.messages, template_arguments(arguments), notes=tuple(notes))


def read_turns(turns: Sequence[Mapping[str, Any]], name: str) -> Conversation:
    """The messages of a conversation.

    Raises:
        TextError: one holds what cannot be read.
    """
    messages, notes, ignored = [], [], set()
    for number, turn in enumerate(turns, 1):
        try:
            message, said = read_turn(turn)
        except TextError as error:
            raise TextError(f"{name}, message {number}: {error}") from None
        messages.append(message)
        notes += [f"message {number}: {note}" for note in said]
        ignored |= {str(key) for key, value in turn.items() if key not in _READ and value is not None}
    if ignored:
        notes.append(f"{', '.join(sorted(ignored))} of messages: not read")
    return Conversation(tuple(messages), tuple(notes))


def read_turn(turn: Mapping[str, Any]) -> tuple[Message, list[str]]:
    """One message, and what must be said of it.

    Raises:
        TextError: why it cannot be read.
    """
    speaker = turn.get("role", turn.get("from"))
    content = turn["content"] if "content" in turn else turn.get("value")
    notes: list[str] = []
    calls = _calls(turn)
    if speaker == "function_call":  # ShareGPT: the turn is the call
        speaker, calls, content = "assistant", [_call(_parsed(content))], None
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise TextError(f"unknown role {speaker!r}; use one of {', '.join(dict.fromkeys(SPEAKERS.values()))}")
    role = SPEAKERS[speaker]
    if speaker == "developer":
        notes.append("the developer's message is read as a system message")
    extra = {key: turn[key] for key in ("tool_call_id", "name") if turn.get(key) is not None}
    reasoning = next((turn[key] for key in _REASONING if turn.get(key)), None)
    if reasoning is not None:
        if not isinstance(reasoning, str):
            raise TextError("its reasoning is no text")
        extra["reasoning_content"] = reasoning
    if calls:
        if role != "assistant":
            raise TextError(f"a message of role {role} has tool calls; only the assistant's can")
        extra["tool_calls"] = calls
    elif content is None:
        raise TextError("it has no content")
    text = _text(content, notes)
    return Message(role, text, json.dumps(extra, ensure_ascii=False, sort_keys=True) if extra else ""), notes


def _text(content: object, notes: list[str]) -> str:
    """The text of a content: a string, none at all beside tool calls, or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TextError(f"its content is {_kind(content)}; a text, or a list of parts, is expected")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and kind in _WITH_TEXT and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            what = f"a part of type {kind!r}" if isinstance(kind, str) else f"a part that is {_kind(part)}"
            raise TextError(f"its content has {what}, and only parts of text can be read")
    if len(texts) > 1:
        notes.append(f"{len(texts)} parts of text are read one after the other, with nothing between them")
    return "".join(texts)


def _calls(turn: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = turn.get("tool_calls") or []
    if (legacy := turn.get("function_call")) is not None:
        calls = [*calls, legacy] if isinstance(calls, list) else calls
    if not isinstance(calls, list):
        raise TextError(f"its tool_calls are {_kind(calls)}; a list is expected")
    return [_call(call) for call in calls]


def _call(call: object) -> dict[str, Any]:
    """A tool call as chat templates expect it: its arguments are an object, which OpenAI's files hold as JSON text."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise TextError("a tool call has no function with a name")
    arguments = function.get("arguments")
    arguments = {} if arguments in (None, "") else _parsed(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(arguments, Mapping):
        raise TextError(f"the arguments of the tool call {function['name']} are {_kind(arguments)}, not an object")
    made: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": dict(arguments)}}
    if isinstance(call, Mapping) and isinstance(call.get("id"), str):
        made["id"] = call["id"]
    return made


def _parsed(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        raise TextError("the arguments of a tool call are no JSON") from None


def _arguments(beside: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the file gives the chat template beside the messages."""
    arguments = beside.get("chat_template_kwargs") or {}
    if not isinstance(arguments, Mapping):
        raise TextError(f"{name}: chat_template_kwargs is {_kind(arguments)}; an object is expected")
    tools = beside.get("tools") or beside.get("functions")
    if isinstance(tools, str):  # ShareGPT's files hold them as JSON text
        tools = _parsed(tools)
    if tools and not (isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)):
        raise TextError(f"{name}: tools are {_kind(tools)}; a list of objects is expected")
    return {**arguments, **({"tools": [_tool(tool) for tool in tools]} if tools else {})}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as chat templates expect it; those of the older `functions` lack a wrapper."""
    return dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)}


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", int: "a number"}
    return "nothing" if value is None else names.get(type(value), "a number")
