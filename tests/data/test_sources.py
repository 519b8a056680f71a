"""Sources and mixes are data; their records become texts, pairs and conversations, from files, hub and templates."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.corpus.documents import CorpusSpec, open_corpus
from data.examples import TABLE, Example, read_examples, write_examples
from data.mixes import FOLDER, Mix, names, read_mix
from data.sources.prompt_grammar import Grammar, prompts, read_grammar
from data.sources.reading import FILTERS, UNUSABLE, SourceExample, readings
from data.sources.registry import source, sources
from data.sources.schema import Filter, Source
from data.yaml_config import read_yaml
from model.errors import MicroStepError, TextError
from model.text.document import Document, Message

NOTES = {
    "tinycodepython": "nampdn-ai/tiny-codes",
    "pythonalpaca": "Vezora/Tested-143k-Python-Alpaca",
    "opencoder": "OpenCoder-LLM/opc-sft-stage1",
    "opencoder2": "OpenCoder-LLM/opc-sft-stage2",
    "magicoder": "ise-uiuc/Magicoder-Evol-Instruct-110K",
    "openorca": "imone/OpenOrca_FLAN",
    "openplatypus": "garage-bAInd/Open-Platypus",
    "ifevallike": "argilla/ifeval-like-data",
    "gsm8k": "openai/gsm8k",
    "metamathqa": "meta-math/MetaMathQA",
    "openr1math": "open-r1/OpenR1-Math-220k",
    "mathgpt": "PawanKrd/math-gpt-4o-200k",
    "mathinstruct": "TIGER-Lab/MathInstruct",
    "mathplus": "TIGER-Lab/MATH-plus",
}


def lines(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def own(path: Path, **shape: Any) -> Source:
    return Source(name="mine", title="mine", licence="MIT", local=str(path), **shape)


def turns(reading: SourceExample) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in reading.messages or ()]


# --- what is shipped


def test_the_fourteen_sources_of_the_notes_are_there() -> None:
    assert {name: source(name).hub for name in NOTES} == NOTES
    assert {use.source for use in read_mix("notes").sources} == set(NOTES)
    assert source("openorca").filters == (Filter(column="condition", equals="GPT4"),)
    assert (source("opencoder").subset, source("ifevallike").subset) == ("filtered_infinity_instruct", "filtered")


def test_no_evaluation_set_is_in_any_mix_and_each_is_flagged() -> None:
    assert all(sources()[name].evaluate_only for name in ("gsm8k_test", "humaneval", "mbpp", "arc_challenge_test"))
    for each in sources().values():
        assert each.evaluate_only == (each.split in ("test", "validation")) or each.name == "wikitext"
    for name in names():
        assert read_mix(name).name == name and read_mix(name).about
        assert not any(use.definition.evaluate_only for use in read_mix(name).sources)


def test_the_tiny_prompts_are_thousands_each_once_and_always_the_same() -> None:
    made = list(prompts(read_grammar("tiny")))
    assert len(made) == len(set(made)) > 3000
    assert made == list(prompts(read_grammar("tiny")))
    assert not any(mark in prompt for prompt in made for mark in "{}")
    assert not any(f" a {vowel}" in prompt for prompt in made for vowel in "aeiou")
    assert len({prompt.split()[0] for prompt in made[:40]}) > 5  # templates take turns


def test_a_grammar_is_filled_in_every_way_once() -> None:
    grammar = Grammar(count=99, slots={"x": ("ant", "bee", "cat")}, templates=("{a x} and {a x2}", "{x}"))
    assert Counter(prompts(grammar)) == Counter(
        ["ant", "bee", "cat"]
        + [f"{a} and {b}" for a in ("an ant", "a bee", "a cat") for b in ("an ant", "a bee", "a cat") if a != b]
    )
    with pytest.raises(ValueError, match="slot 'y'"):
        Grammar(count=1, slots={"x": ("a",)}, templates=("{y}",))
    with pytest.raises(ValueError, match="brace"):
        Grammar(count=1, slots={"x": ("a",)}, templates=("{x} {X!}",))


# --- reading


def test_pairs_are_read_with_a_system_message_and_joined_prompts(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl",
        {"s": "Be kind.", "q": "Why?", "more": "", "a": " Because.\r\nSo. "},
        {"s": None, "q": "Sum:", "more": "1 2", "a": "3"},
        {"s": "", "q": " ", "more": "", "a": "4"},
        {"s": "", "q": "What?", "more": "", "a": None},
    )
    found = list(readings(own(file, system="s", prompt=("q", "more"), response="a")))
    assert turns(found[0]) == [("system", "Be kind."), ("user", "Why?"), ("assistant", "Because.\nSo.")]
    assert turns(found[1]) == [("user", "Sum:\n\n1 2"), ("assistant", "3")]
    assert [each.reason for each in found] == [None, None, UNUSABLE, UNUSABLE]
    assert [each.number for each in found] == [0, 1, 2, 3]
    assert turns(next(readings(own(file, prompt="q")))) == [("user", "Why?")]


def test_conversations_are_read_with_their_own_names_up_to_the_last_answer(tmp_path: Path) -> None:
    def said(*talk: str) -> dict[str, Any]:
        return {"talk": [{"from": each.split(":")[0], "value": each.split(":")[1]} for each in talk]}

    file = lines(
        tmp_path / "a.jsonl",
        said("human:Hi", "gpt:Hello", "human:Bye"),
        said("gpt:Hello", "human:Hi"),
        said("human:Hi"),
        said("human:Hi", "tool:x", "gpt:y"),
        {"talk": "Hi"},
    )
    names_ = {"human": "user", "gpt": "assistant"}
    shape = {"columns": ("talk",), "role": "from", "content": "value", "roles": names_}
    found = list(readings(own(file, messages=shape)))
    assert turns(found[0]) == [("user", "Hi"), ("assistant", "Hello")]
    assert [each.reason for each in found[1:]] == [UNUSABLE] * 4


def test_preference_pairs_are_two_columns_of_turns(tmp_path: Path) -> None:
    turn = [{"role": "assistant", "content": "4"}]
    record = {"input": {"messages": [{"role": "user", "content": "2 + 2?"}]}, "preferred_output": turn}
    path = tmp_path / (source("openorca_dpo_validation").local or "")
    path.parent.mkdir()
    path.write_bytes(gzip.compress(json.dumps(record).encode()))
    (found,) = readings(source("openorca_dpo_validation"), tmp_path)
    assert turns(found) == [("user", "2 + 2?"), ("assistant", "4")]


def test_filters_are_declared_and_counted(tmp_path: Path) -> None:
    records = [{"t": "x", "n": n, "lang": lang} for n, lang in ((1, "Python"), (2, "Go"), (3, None), (True, "Python"))]
    file = lines(tmp_path / "a.jsonl", *records)
    for rule, kept in (
        ({"equals": "Python"}, [0, 3]),
        ({"one_of": ("Go", "Rust")}, [1]),
        ({"contains": "o"}, [0, 1, 3]),
    ):
        found = list(readings(own(file, text="t", filters=({"column": "lang", **rule},))))
        assert [each.number for each in found if each.messages] == kept
        assert {each.reason for each in found} == {None, FILTERS}
    found = list(readings(own(file, text="t", filters=({"column": "n", "min": 1, "max": 2},))))
    assert [each.number for each in found if each.messages] == [0, 1]  # true is no number
    with pytest.raises(ValueError, match="a filter needs one of"):
        Filter(column="n")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
def test_every_kind_of_file_reads_the_same(tmp_path: Path, suffix: str) -> None:
    records = [{"q": "Why é?", "a": "Because."}, {"q": "Who?", "a": "Me."}]
    file = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), file)
    elif suffix == ".json":
        file.write_text(json.dumps(records), "utf-8")
    else:
        plain = lines(tmp_path / "plain.jsonl", *records).read_bytes()
        file.write_bytes(gzip.compress(plain) if suffix.endswith("gz") else plain)
    found = [turns(each) for each in readings(own(file, prompt="q", response="a"))]
    assert found == [[("user", r["q"]), ("assistant", r["a"])] for r in records]


def test_a_source_without_the_column_ends_in_one_line_that_lists_those_there_are(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"question": "x", "solution": "y"})
    for shape in ({"prompt": "question", "response": "answer"}, {"text": "answer"}, {"text": "question.answer"}):
        with pytest.raises(TextError, match=r"no text in column '[a-z.]*answer', only question, solution"):
            list(readings(own(file, **shape)))
    with pytest.raises(TextError, match="no text in column 'lang', only question, solution"):
        list(readings(own(file, text="question", filters=({"column": "lang", "equals": "x"},))))
    with pytest.raises(TextError, match="column 'n'"):
        list(readings(own(lines(tmp_path / "n.jsonl", {"n": 3}), text="n")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b"{"),
        ("a.jsonl", b"[1]\n"),
        ("a.jsonl", b"\xff\xfe"),
        ("a.jsonl", b"[" * 20000),
        ("a.json", b'{"t": "x"}'),
        ("a.jsonl.gz", b"no gzip"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9]),
        ("a.parquet", b"PAR1"),
        ("a.csv", b"t\nx\n"),
        ("a.parquet.gz", b""),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError) as caught:
        list(readings(own(tmp_path / name, text="t")))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_may_hold_files_by_the_names_of_their_sources(tmp_path: Path) -> None:
    lines(tmp_path / "metamathqa.jsonl", {"query": "1 + 1?", "response": "2"})
    pq.write_table(
        pa.Table.from_pylist([{"prompt": "p", "response": "r"}] * 3), _made(tmp_path / "mathgpt") / "0.parquet"
    )
    assert len(list(readings(source("metamathqa"), tmp_path))) == 1
    assert len(list(readings(source("mathgpt"), tmp_path))) == 3
    with pytest.raises(TextError, match=r"no file magicoder\.jsonl in .*give the folder that holds it"):
        list(readings(source("magicoder"), tmp_path))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_without_a_network_the_hub_is_one_line() -> None:
    for name in ("metamathqa", "tinycodepython"):
        with pytest.raises(TextError) as caught:
            next(readings(source(name)))
        assert "cannot be read from the hub" in str(caught.value) and "\n" not in str(caught.value)
    assert "accept its terms" in str(caught.value)


# --- examples


def test_examples_come_back_and_read_as_a_corpus(tmp_path: Path) -> None:
    pair = (Message("user", "Why?"), Message("assistant", "é\n\0"))
    given = [
        Example("a", 0, pair, held_out=True),
        Example("b", 7, (Message("text", "A text."),), ended=False, repeat=3),
        Example("c", 1, (Message("user", "Only asked"),)),
    ]
    write_examples(tmp_path, given)
    assert list(read_examples(tmp_path)) == given
    corpus = open_corpus(CorpusSpec(str(tmp_path / TABLE), "messages"))
    documents = [entry.document for entry in corpus.entries()]
    assert documents == [Document(each.messages) for each in given] and documents[1] == Document.plain("A text.")
    (tmp_path / TABLE).write_bytes(b"PAR1")
    with pytest.raises(TextError, match="is damaged"):
        list(read_examples(tmp_path))
    with pytest.raises(TextError, match="micro-step data clean"):
        list(read_examples(tmp_path / "no"))


# --- mixes


def mix(folder: Path, text: str) -> Mix:
    (folder / "m.yaml").write_text(text, "utf-8")
    return read_mix(str(folder / "m.yaml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: [{source: gsm8k_test}]", "gsm8k_test is for evaluation only"),
        ("sources: [{source: gsm8}]", "no data source is called 'gsm8'; did you mean 'gsm8k'?"),
        ("sources: [{source: gsm8k}, {source: gsm8k}]", "gsm8k is named twice; use repeat"),
        ("sources: [{source: gsm8k, file: x.jsonl}]", "name either a source or a file"),
        ("sources: [{file: x.jsonl}]", "a file needs columns"),
        ("sources: [{file: x.jsonl, columns: {text: t, prompt: p}}]", "either text, prompt or messages"),
        ("sources: [{file: x.jsonl, columns: {txt: t}}]", "'sources.0.columns.txt'; did you mean 'text'?"),
        ("sources: [{file: x.jsonl, columns: {text: t, removed: ['(']}}]", "not a regular expression"),
        ("sources: [{source: gsm8k, repeat: 0}]", "sources.0.repeat"),
        ("sources: []", "sources"),
        ("sources: [{source: gsm8k}]\ncleaning: {decontaminate: {against: [humanevil]}}", "did you mean 'humaneval'"),
        ("sources: [{source: gsm8k}]\ncleaning: {line_break: real}", "did you mean 'line_breaks'?"),
        ("sources: [{source: gsm8k}]\nheld_out: 1", "held_out"),
    ],
)
def test_a_wrong_mix_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(MicroStepError) as caught:
        mix(tmp_path, f"name: m\n{text}\n")
    assert said in str(caught.value) and "m.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_mix_is_found_by_name_or_path_and_its_files_beside_it(tmp_path: Path) -> None:
    found = mix(tmp_path, "name: m\nsources: [{file: sub/x y.jsonl, columns: {text: t}, licence: MIT}]\n")
    assert found.sources[0].file == str(tmp_path / "sub/x y.jsonl") and found.sources[0].name == "x y.jsonl"
    with pytest.raises(TextError, match="there is no file .*x y.jsonl; check the path in the mix"):
        list(readings(found.sources[0].definition))
    lines(tmp_path / "sub/x y.jsonl", {"t": "text"})
    assert turns(next(readings(found.sources[0].definition, tmp_path / "elsewhere"))) == [("text", "text")]
    assert read_mix("tiny") == read_yaml(FOLDER / "tiny.yaml", Mix)
    with pytest.raises(MicroStepError, match="no mix 'tinny'; did you mean 'tiny'"):
        read_mix("tinny")
