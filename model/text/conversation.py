"""Read conversations in the forms in which files hold them: OpenAI's messages, ShareGPT's turns, bare lists.

Anything in a message beyond a plain string is passed to the chat template, read as something else with a note, or
refused with the message's number and the reason. Nothing is guessed. This module knows nothing about files.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.errors import TextError
from model.reading.json_text import parse_json
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
"""Maps the names of speakers in files to roles."""
EXPECTED = 'it should hold {"messages": [{"role": "user", "content": "..."}]}, or such a list, or ShareGPT\'s turns'
_LISTS = ("messages", "conversations", "conversation")
_WITH_TEXT = ("text", "input_text", "output_text")  # types of parts of a content that hold text
_EXTRAS = ("tool_calls", "tool_call_id", "name", "reasoning_content")  # passed to templates
_REASONING = ("reasoning_content", "reasoning", "thinking")
_READ = {"role", "from", "content", "value", "function_call", *_EXTRAS, *_REASONING}


@dataclass(frozen=True)
class Conversation:
    """Turns, and notes on what was left out or read as something else."""

    messages: tuple[Message, ...]
    notes: tuple[str, ...]


def read_conversation(data: Any, name: str) -> Document:
    """Return the document of a parsed JSON file.

    Args:
        data: a list of turns, or an object with one under messages or conversations; it may also hold tools and
            chat_template_kwargs, which are passed to the chat template.
        name: name of the file, for errors.
    """
    turns, others = data, {}
    if isinstance(data, Mapping):
        keys = [key for key in _LISTS if key in data]
        if len(keys) != 1:
            raise TextError(f"{name} is not a conversation; {EXPECTED}")
        turns, others = data[keys[0]], {key: value for key, value in data.items() if key != keys[0]}
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise TextError(f"{name} is not a conversation; {EXPECTED}")
    arguments = _arguments(others, name)
    system = others.pop("system", None)
    if isinstance(system, str) and system:
        turns = [{"role": "system", "content": system}, *turns]
    conversation = read_turns(turns, name)
    ignored = sorted(set(others) - {"tools", "functions", "chat_template_kwargs"})
    notes = [*conversation.notes, *([f"{', '.join(ignored)} of the file: not read"] if ignored else [])]
    return Document(conversation.messages, template_arguments(arguments), notes=tuple(notes))


def read_turns(turns: Sequence[Mapping[str, Any]], name: str) -> Conversation:
    messages, notes, ignored = [], [], set()
    for number, turn in enumerate(turns, 1):
        try:
            message, turn_notes = read_turn(turn)
        except TextError as error:
            raise TextError(f"{name}, message {number}: {error}") from None
        messages.append(message)
        notes += [f"message {number}: {note}" for note in turn_notes]
        ignored |= {str(key) for key, value in turn.items() if key not in _READ and value is not None}
    if ignored:
        notes.append(f"{', '.join(sorted(ignored))} of messages: not read")
    return Conversation(tuple(messages), tuple(notes))


def read_turn(turn: Mapping[str, Any]) -> tuple[Message, list[str]]:
    """Return one message, and notes for the reader about it."""
    speaker = turn.get("role", turn.get("from"))
    content = turn["content"] if "content" in turn else turn.get("value")
    notes: list[str] = []
    calls = _calls(turn)
    if speaker == "function_call":  # in ShareGPT, the turn is the call
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
            raise TextError("its reasoning is not a text")
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
    """Return the text of a content: a string, a list of parts, or nothing beside tool calls."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TextError(f"its content is {_kind(content)}; expected a text or a list of parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and kind in _WITH_TEXT and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            what = f"a part of type {kind!r}" if isinstance(kind, str) else f"a part that is {_kind(part)}"
            raise TextError(f"its content has {what}, but only text parts can be read")
    if len(texts) > 1:
        notes.append(f"{len(texts)} text parts are joined with nothing between them")
    return "".join(texts)


def _calls(turn: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = turn.get("tool_calls") or []
    if (legacy := turn.get("function_call")) is not None:
        calls = [*calls, legacy] if isinstance(calls, list) else calls
    if not isinstance(calls, list):
        raise TextError(f"its tool_calls are {_kind(calls)}; expected a list")
    return [_call(call) for call in calls]


def _call(call: object) -> dict[str, Any]:
    """Return a tool call as chat templates expect it: its arguments are an object.

    OpenAI's files hold the arguments as JSON text.
    """
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
        return parse_json(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        raise TextError("the arguments of a tool call are not valid JSON") from None


def _arguments(others: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what the file passes to the chat template besides the messages."""
    arguments = others.get("chat_template_kwargs") or {}
    if not isinstance(arguments, Mapping):
        raise TextError(f"{name}: chat_template_kwargs is {_kind(arguments)}; expected an object")
    tools = others.get("tools") or others.get("functions")
    if isinstance(tools, str):  # ShareGPT's files hold them as JSON text
        tools = _parsed(tools)
    if tools and not (isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)):
        raise TextError(f"{name}: tools are {_kind(tools)}; expected a list of objects")
    return {**arguments, **({"tools": [_tool(tool) for tool in tools]} if tools else {})}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool as chat templates expect it; the older `functions` lack the wrapper."""
    return dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)}


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number"}
    return "nothing" if value is None else names.get(type(value), "a number")
