"""A rendered chat is transformers' own, and each character of a message that is said to stand in it does."""

import dataclasses
import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.uncertainty.compare import compare
from analysis.uncertainty.scoring import encode_for
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.scoring import score_corpus
from model.errors import ExportError, TextError
from model.hub.loading import ModelSpec, load
from model.text import template_process
from model.text.chat_template import render
from model.text.document import Document, Message, TextInput, read_template_args, template_arguments
from model.text.encoding import encode
from model.text.template_process import TemplateLimits, TemplateStopped, apply_chat_template
from tests.support.templates import CHATML, DATED, DROPS_SYSTEM, DROPS_THINKING, LAST_THINKING, NO_SYSTEM, TOOLS
from tests.support.tiny import save_tiny, tiny_tokenizer

THINK = "<think>\nsix sevens are forty-two\n</think>\n\nIt is 42."
HALF = "<think>\nhalf\n</think>\n\n21."


def tokenizer_with(template: str):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def talk(*turns: tuple[str, str], **more) -> Document:
    return Document(tuple(Message(role, content) for role, content in turns), **more)


def read(document: Document, template: str, **how):
    """The rendering, once it is sure that it is transformers' and that every piece holds what it says."""
    tokenizer = tokenizer_with(template)
    found = render(document, tokenizer, chat=True, **how)
    assert_placed(document, found)
    return found


def assert_placed(document: Document, found) -> None:
    last = (0, 0)
    for piece in found.pieces:
        n = piece.end - piece.start
        assert n > 0 or not document.text
        assert found.text[piece.start : piece.end] == document.text[piece.source : piece.source + n]
        assert piece.start >= last[0] and piece.source >= last[1]
        last = piece.end, piece.source + n


def kept(document: Document, found) -> str:
    """The characters of the document that are read."""
    return "|".join(document.text[p.source : p.source + p.end - p.start] for p in found.pieces)


def test_reasoning_that_a_template_drops_is_not_read():
    """Such a conversation was refused outright."""
    document = talk(("user", "What is 6 times 7?"), ("assistant", THINK))
    found = read(document, DROPS_THINKING)
    assert kept(document, found) == "What is 6 times 7?|It is 42."
    assert found.text.endswith("assistant\nIt is 42.<|im_end|>\n")
    assert found.notes == ("the chat template leaves out 36 characters of turn 2 (assistant): not read",)
    encoded = encode(TextInput(document, chat=True), tokenizer_with(DROPS_THINKING))
    dropped = document.text.index("<think>"), document.text.index("It is")
    own = encoded.source_start[encoded.source_start >= 0]
    assert not ((own >= dropped[0]) & (own < dropped[1])).any() and encoded.notes == found.notes


def test_reasoning_that_a_template_lays_out_anew_is_read_where_it_stands():
    document = talk(("user", "What is 6 times 7?"), ("assistant", THINK), ("user", "Half of it?"), ("assistant", HALF))
    found = read(document, LAST_THINKING)
    assert kept(document, found) == f"What is 6 times 7?|It is 42.|Half of it?|{HALF}"
    tight = talk(("user", "Half of it?"), ("assistant", "<think>half</think>21."))
    assert kept(tight, read(tight, LAST_THINKING)) == "Half of it?|half|21."  # the marks are the template's own


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "rewrites"),
        ("{% for m in messages %}{{ m.content | replace('6', 'six') }}{% endfor %}", "rewrites"),
        ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "moves or repeats"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "moves or repeats"),
        ("{{ messages[0].content }}", "drops message 2"),
    ],
)
def test_a_template_that_rewrites_moves_repeats_or_drops_messages_is_refused(template, reason):
    with pytest.raises(TextError, match=reason):
        read(talk(("user", "What is 6 times 7?"), ("assistant", "forty-two")), template)


MARKS = ["<think>", "</think>", "<think>\n", "\n</think>\n\n", "\n", " "]
WORDS = ["user", "assistant", "a", "aa", "é", "🙂", "42", "{{ x }}"]
CONTENT = st.lists(st.sampled_from(MARKS + WORDS), max_size=8).map("".join)
TURNS = st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(TURNS, st.sampled_from([DROPS_THINKING, LAST_THINKING, CHATML]))
def test_whatever_is_placed_stands_there(turns, template):
    """Of any conversation: the text is transformers', each piece holds the document's characters, in order."""
    document = talk(*[turn for ask, say in turns for turn in (("user", ask), ("assistant", say))])
    tokenizer = tokenizer_with(template)
    plain = [{"role": m.role, "content": m.content} for m in document.messages]
    try:
        found = render(document, tokenizer, chat=True)
    except TextError:
        return
    assert found.text == tokenizer.apply_chat_template(plain, tokenize=False)
    assert_placed(document, found)


@pytest.mark.parametrize(
    ("template", "whole"),
    [
        (NO_SYSTEM, "<start>user\nBe brief.\n\nName a colour.<end>\n"),
        (DROPS_SYSTEM, "[user] Be brief.\n\nName a colour.\n"),
    ],
)
def test_a_system_message_is_folded_into_the_first_question_where_a_template_has_none(template, whole):
    """It was refused, or dropped without a word."""
    document = talk(("system", "Be brief."), ("user", "Name a colour."), ("assistant", "Blue."))
    found = read(document, template)
    assert found.text.startswith(whole) and kept(document, found) == "Be brief.|Name a colour.|Blue."
    assert [piece.role for piece in found.pieces] == ["system", "user", "assistant"]
    assert "no system message" in found.notes[0]
    with pytest.raises(TextError, match="System role|drops the system message"):
        read(talk(("system", "Be brief."), ("assistant", "Blue.")), template)


def test_a_date_can_be_fixed_and_is_told():
    document = talk(("user", "hi"))
    found = read(dataclasses.replace(document, date="2024-02-29"), DATED)
    assert found.text.startswith("Today: 29 Feb 2024\n") and found.date == "2024-02-29"
    today = datetime.date.today().isoformat()
    assert read(document, DATED).date == today and today in read(document, DATED).notes[0]
    given = dataclasses.replace(document, arguments=template_arguments({"date_string": "long ago"}))
    assert read(given, DATED).date is None and read(given, DATED).notes == ()
    odd = "{% set f = '%Y' %}{{ strftime_now(f) }}" + CHATML
    assert "cannot be fixed" in read(document, odd).notes[0]
    with pytest.raises(TextError, match="YYYY-MM-DD"):
        read(dataclasses.replace(document, date="29.2.2024"), DATED)


def test_template_arguments_reach_the_template():
    document = talk(("user", "hi"), arguments=template_arguments(read_template_args(["enable_thinking=false"])))
    assert read(document, DROPS_THINKING, reply=True).text.endswith("<think>\n\n</think>\n\n")
    assert read(document, CHATML).notes == ("the chat template has no argument 'enable_thinking': it was ignored",)
    with pytest.raises(TextError, match="not an argument of a chat template"):
        read(talk(("user", "hi"), arguments=(("tokenize", "true"),)), CHATML)
    for wrong in (["enable_thinking"], ["a=1", "a=2"], ["1x=2"]):
        with pytest.raises(TextError):
            read_template_args(wrong)
    assert read_template_args(["who=me", 'x={"a": [1]}']) == {"who": "me", "x": {"a": [1]}}


CALL = '{"tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Riga"}}}]}'


def test_tool_calls_are_the_templates_to_write_or_the_conversation_is_refused():
    document = Document(
        (
            Message("user", "Rain?"),
            Message("assistant", "", CALL),
            Message("tool", "rain"),
            Message("assistant", "Yes."),
        ),
        template_arguments({"tools": [{"type": "function", "function": {"name": "weather"}}]}),
    )
    found = read(document, TOOLS)
    assert '<call>weather {"city": "Riga"}</call>' in found.text and '"name": "weather"' in found.text
    assert kept(document, found) == "Rain?|rain|Yes."
    encoded = encode(TextInput(document, chat=True), tokenizer_with(TOOLS))
    at = found.text.index("<call>") + 3
    assert encoded.role[(encoded.start <= at) & (encoded.end > at)].tolist() == ["template"]
    with pytest.raises(TextError, match="does not write the tool calls of message 2"):
        read(document, CHATML)
    assert "tool_calls of message 2 are not read" in render(document, tiny_tokenizer()).notes[0]


def test_a_refusal_says_which_of_a_and_b(tmp_path):
    folder = save_tiny(tmp_path / "odd", chat=True)
    a = load(ModelSpec(str(folder)))
    b = dataclasses.replace(a, tokenizer=tokenizer_with("{{ messages[0].content | upper }}"))
    document = talk(("user", "hi"))
    with pytest.raises(TextError, match="^model B, .*rewrites"):
        compare(a, b, TextInput(document, chat=True))
    with pytest.raises(TextError, match="^odd: .*rewrites"):
        encode_for(b, TextInput(document, chat=True))


def test_a_store_keeps_the_date_and_the_arguments_that_it_was_begun_with(tmp_path):
    """Scored over midnight, or gone on with on another day, its documents had two dates."""
    loaded = load(ModelSpec(str(save_tiny(tmp_path / "tiny", chat=True)), device="cpu"))
    loaded.tokenizer.chat_template = DATED.replace("Today", "{{ place }}")
    file = tmp_path / "talks.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "hi there"}]}\n', encoding="utf-8")
    corpus = open_corpus(CorpusSpec(str(file), "messages"))

    def scored(name: str, **how):
        options = CorpusOptions(chat=True, template=(("place", '"Riga"'),), **how)
        return score_corpus(lambda: loaded, corpus, tmp_path / name, options)

    first = scored("store", template_date="2024-02-29")
    assert first.manifest["parameters"]["template_date"] == "2024-02-29"
    assert first.manifest["parameters"]["template"] == {"place": '"Riga"'}
    again = scored("store")  # today
    assert again.manifest == first.manifest
    (row,) = list(first.rows())
    said = [{"role": "user", "content": "hi there"}]
    whole = loaded.tokenizer.apply_chat_template(said, return_dict=False, place="Riga", date_string="29 Feb 2024")
    assert row.ids.tolist() == whole
    with pytest.raises(ExportError, match="template_date"):
        scored("store", template_date="2024-03-01")
    assert scored("other").manifest["parameters"]["template_date"] == datetime.date.today().isoformat()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"messages": []}, "'messages' is not an argument of a chat template"), ({"tools": 5}, "tools must be a list")],
)
def test_an_argument_that_no_template_takes_is_named(arguments, said):
    """They were told as the template's own refusal, in Python's words."""
    document = Document.plain("Hi").with_template_settings(arguments, "2024-05-01")
    with pytest.raises(TextError, match=said):
        render(document, tiny_tokenizer(chat=True), chat=True)


@pytest.mark.parametrize(
    ("source", "most"),
    [
        ("{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}", "1 s"),
        ("{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}", "GiB|1 s"),
        ("{{ 'x' * 10**11 }}", "GiB"),
        ("{{ 'x' * 10**7 }}", "characters"),
    ],
)
def test_a_template_that_does_not_end_is_stopped_and_the_next_one_works(monkeypatch, source, most):
    monkeypatch.setattr(template_process, "LIMITS", TemplateLimits(seconds=1, characters=10**6))
    said = [{"role": "user", "content": "Hello"}]
    with pytest.raises(TemplateStopped, match=most):
        apply_chat_template(tokenizer_with(source), said)
    assert apply_chat_template(tokenizer_with("{{ messages[0].content }}"), said) == "Hello"
