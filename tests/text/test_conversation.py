"""Conversations as files hold them are read right, or refused with the message and the reason."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.document_file import document_file, read_document
from data.corpus.documents import CorpusSpec, open_corpus
from data.sources.reading import readings
from data.sources.schema import Source
from model.errors import TextError
from model.text.document import Document

ASK, SAY = {"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue."}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Riga"}'}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Riga"}}}
TOOL = {"type": "function", "function": {"name": "weather"}}


def read(held: object) -> Document:
    return read_document(json.dumps(held).encode(), "talk.json")


def turns(document: Document) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in document.messages]


@pytest.mark.parametrize(
    "held",
    [
        {"messages": [ASK, SAY]},
        [ASK, SAY],
        {"conversations": [{"from": "human", "value": "Name a colour."}, {"from": "gpt", "value": "Blue."}]},
        {
            "messages": [
                {**ASK, "content": [{"type": "text", "text": "Name a "}, {"type": "text", "text": "colour."}]},
                SAY,
            ]
        },
        {"messages": [ASK, {**SAY, "tool_calls": None, "function_call": None}]},
    ],
)
def test_the_forms_of_a_conversation_are_one(held):
    document = read(held)
    assert turns(document) == [("user", "Name a colour."), ("assistant", "Blue.")]
    assert all(message.extra == "" for message in document.messages)


def test_a_content_of_null_beside_tool_calls_is_no_text():
    """It was scored as the word None."""
    held = {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}, SAY], "tools": [TOOL]}
    document = read(held)
    assert turns(document)[1] == ("assistant", "") and document.messages[1].extras == {"tool_calls": [CALLED]}
    assert dict(document.arguments) == {"tools": json.dumps([TOOL])}
    legacy = read([ASK, {"role": "assistant", "content": None, "function_call": CALL["function"]}])
    assert legacy.messages[1].extras["tool_calls"][0]["function"] == CALLED["function"]
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "Rain?"},
            {"from": "function_call", "value": json.dumps(CALLED["function"])},
            {"from": "observation", "value": "rain"},
        ],
        "tools": json.dumps([TOOL["function"]]),
    }
    found = read(sharegpt)
    assert [role for role, _ in turns(found)] == ["user", "assistant", "tool"]
    assert found.messages[1].extras["tool_calls"][0]["function"] == CALLED["function"]
    assert found.arguments == document.arguments


def test_what_is_read_as_something_else_or_not_at_all_is_said():
    document = read(
        {
            "id": 7,
            "messages": [{"role": "developer", "content": "Be brief."}, {**ASK, "weight": 0}, SAY],
            "source": "web",
        }
    )
    assert turns(document)[0] == ("system", "Be brief.")
    assert document.notes == (
        "message 1: the developer's message is read as a system message",
        "weight of messages: not read",
        "id, source of the file: not read",
    )


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ({"messages": [ASK, {"role": "assistant", "content": None}]}, "talk.json, message 2: it has no content"),
        (
            {"messages": [{**ASK, "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "message 1: .*'image_url'",
        ),
        ({"messages": [{**ASK, "content": [{"type": "input_audio"}]}]}, "'input_audio', but only text"),
        ({"messages": [{**ASK, "content": 7}]}, "its content is a number"),
        ({"messages": [{**ASK, "role": "narrator"}]}, "message 1: unknown role 'narrator'"),
        ({"messages": [{"content": "hi"}]}, "unknown role None"),
        ({"messages": [{**ASK, "tool_calls": [CALL]}]}, "only the assistant's can"),
        ({"messages": [{**SAY, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}, "are not valid JSON"),
        ({"messages": [{**SAY, "tool_calls": [{"type": "function"}]}]}, "no function with a name"),
        ({"messages": [{**ASK, "content": "\ud800"}]}, "lone surrogate"),
        ({"prompt": "a", "completion": "b"}, "is not a conversation"),
        ({"messages": []}, "is not a conversation"),
        ("hi", "is not a conversation"),
    ],
)
def test_what_cannot_be_read_is_refused_with_message_and_reason(held, reason):
    with pytest.raises(TextError, match=reason):
        read(held)


def test_a_documents_file_reads_as_the_same_document():
    held = {
        "messages": [
            ASK,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ],
        "tools": [TOOL],
    }
    document = read(held)
    name, content = document_file(document)
    assert read_document(content, name) == document


def test_a_corpus_and_a_mix_read_as_a_file_does(tmp_path):
    """Each had a reader of its own: a corpus took null for an error of types, a mix dropped parts of text."""
    parts = {**ASK, "content": [{"type": "text", "text": "Name a colour."}]}
    image = {**ASK, "content": [{"type": "image_url"}]}
    rows = [[parts, SAY], [image, SAY], [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}]]
    file = tmp_path / "talks.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    entries = list(open_corpus(CorpusSpec(str(file), "messages")).entries())
    assert turns(entries[0].document) == [("user", "Name a colour."), ("assistant", "Blue.")]
    assert "message 1: its content has a part of type 'image_url'" in entries[1].problem
    assert entries[2].document.messages[1].extras == {"tool_calls": [CALLED]}

    source = Source(name="talks", title="t", licence="own", local=str(file), messages={"columns": ("messages",)})
    first, second, third = readings(source)
    assert [message.content for message in first.messages] == ["Name a colour.", "Blue."]
    assert "image_url" in second.sample and "tool_calls, which is not trained on" in third.sample

    table = pa.table({"messages": [[{"role": "user", "content": "hi", "name": None}]]})
    pq.write_table(table, tmp_path / "talks.parquet")
    (entry,) = open_corpus(CorpusSpec(str(tmp_path / "talks.parquet"), "messages")).entries()
    assert turns(entry.document) == [("user", "hi")] and entry.document.notes == ()
