"""Each rule of cleaning against cases made by hand; what a whole clean counts, keeps and leaves behind."""

from __future__ import annotations

import errno
import json
import os
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cleaning.clean import clean
from data.cleaning.dedup import ContaminationIndex, Duplicates, NearDuplicates, words
from data.cleaning.filters import languages, literal_line_breaks, mistyped, real_line_breaks
from data.cleaning.report import REPORT, CleaningReport
from data.examples import TABLE, read_examples
from data.mixes import Cleaning, Mix, Use, read_mix
from data.sources.schema import Shape
from model.errors import ExportError, TextError

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def made(folder: Path, records: list[dict[str, Any]], name: str = "a.jsonl", **more: Any) -> Mix:
    """A mix of one file of questions and answers."""
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    use = {key: more.pop(key) for key in ("repeat", "limit", "opening", "columns") if key in more}
    columns = use.pop("columns", Shape(prompt="q", response="a"))
    return Mix(name="m", sources=(Use(file=str(folder / name), columns=columns, **use),), **more)


def pairs(*texts: str) -> list[dict[str, Any]]:
    return [{"q": text, "a": f"answer {i}"} for i, text in enumerate(texts)]


def questions(folder: Path) -> list[str]:
    return [example.prompt for example in read_examples(folder)]


# --- line breaks


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        (r"def f():\n    return 1\n", "def f():\n    return 1\n"),
        (r"Answer: 4\nThanks", "Answer: 4\nThanks"),
        (r"One.\r\nTwo.", "One.\nTwo."),
        (r'print("a\n")\nprint("b\n")', 'print("a\\n")\nprint("b\\n")'),  # what a program prints stays
        (r"it's one\nit's two", "it's one\nit's two"),  # an apostrophe opens no quote
        (r'"""Doc.\n\nMore."""\nx = 1', '"""Doc.\n\nMore."""\nx = 1'),  # three quotes may span lines
        (r"print('a\n'); print('b\n')", None),
        (r"Use \n to break a line.", None),
        (r"Write `\n`, or '\n'.", None),
        ("x = 'a'\nprint('\\n')\n", None),  # it has line breaks
        (r"$\nabla f \neq 0$", None),
        (r"Let $x \in A$.\nThen $\nu \notin B$.", "Let $x \\in A$.\nThen $\\nu \\notin B$."),
        (r"a doubled \\n stays", None),
        ("", None),
    ],
)
def test_literal_line_breaks_become_real_where_they_were_meant(text: str, turned: str | None) -> None:
    assert real_line_breaks(text) == (text if turned is None else turned)


@given(st.text(alphabet="ab \\n\n'\"`$.", max_size=40))
@settings(max_examples=500, deadline=None)
def test_line_breaks_once_is_enough(text: str) -> None:
    assert real_line_breaks(real_line_breaks(text)) == real_line_breaks(text)


@given(st.text(alphabet="abcd .:\n", max_size=80))
@settings(deadline=None)
def test_real_is_the_inverse_of_literal_for_texts_of_many_lines(text: str) -> None:
    text = f"begin\n{text}\nend"
    assert "\n" not in literal_line_breaks(text)
    assert real_line_breaks(literal_line_breaks(text)) == text


# --- code languages


def test_fenced_blocks_are_known_by_their_labels() -> None:
    text = (
        "```py\nx\n```\ntext\n~~~ {.JavaScript}\ny\n~~~\n```\nz\n```\n   ````C++ title\n```\n````\n```python\nunclosed"
    )
    assert languages(text) == ["python", "javascript", "", "cpp", "python"]
    assert languages("no code, `inline` only") == []


def test_other_languages_are_dropped_and_unlabelled_blocks_counted(tmp_path: Path) -> None:
    blocks = ("```python\nx\n```", "```java\nx\n```", "```\nx\n```", "none")
    mix = made(tmp_path, [{"q": f"q{i}", "a": b} for i, b in enumerate(blocks)])
    mix = mix.model_copy(update={"cleaning": Cleaning(code_languages=("python",))})
    report = clean(mix, None, tmp_path / "out")
    assert sorted(questions(tmp_path / "out")) == ["q0", "q2", "q3"]
    assert report.sources[0].dropped == {"code_languages": 1} and report.sources[0].unlabelled_code == 1
    assert report.sources[0].samples["code_languages"][0].startswith("java: q1")


# --- duplicates


@given(st.lists(st.sampled_from(["a", "A", "a ", "b", "b\n b", "B B", "ab", "é", "É"]), max_size=12))
def test_exact_duplicates_are_those_of_a_set(texts: list[str]) -> None:
    seen, kept = Duplicates(), set()
    for text in texts:
        normal = " ".join(text.lower().split())
        assert seen.seen_before(text) == (normal in kept)
        kept.add(normal)


def test_near_duplicates_are_found_at_the_threshold_and_only_there() -> None:
    base = [f"w{i}" for i in range(100)]  # 96 runs of five words; a changed word at the end changes one
    for changed, near in ((1, True), (8, True), (12, False), (60, False)):
        index = NearDuplicates(0.8)
        assert not index.seen_before(" ".join(base))
        other = base[:-changed] + [f"x{i}" for i in range(changed)]
        shared, union = 96 - changed, 96 + changed
        assert (shared / union >= 0.8) == near
        assert index.seen_before(" ".join(other)) == near
    assert all(NearDuplicates(least).missed <= 0.01 for least in (0.3, 0.5, 0.8, 0.95))
    short = NearDuplicates(0.8)
    assert [short.seen_before(text) for text in ("one", "two", "One!", "")] == [False, False, True, False]


# --- evaluation sets


def test_a_planted_question_is_found_and_others_are_not() -> None:
    asked = "Tom has three red apples and four green ones in a basket. How many apples are in the basket?"
    sets = ContaminationIndex()
    sets.add("maths", asked, "It is 7")
    sets.add("science", "Which gas do plants take in?", "carbon dioxide")
    sets.add("science", "What is it?", "a thing")
    assert sets.unguarded == {"maths": 0, "science": 1}
    shared = sets.find(f"Here:\n\n{asked.upper().replace(' ', '  ')} Please answer.")
    assert shared == f"maths: {' '.join(words(asked)[:13])}"
    assert sets.find("So: which gas do plants take in? Say it.") == "science: which gas do plants take in"
    assert sets.find(" ".join(words(asked)[:12])) is None  # twelve words of a long question
    assert sets.find("What is it? It is 7. It is carbon dioxide.") is None
    assert sets.find("") is None


@given(st.lists(st.sampled_from(LETTERS[:3]), min_size=1, max_size=20), st.integers(5, 8), st.data())
@settings(deadline=None)
def test_what_is_found_is_what_a_search_for_the_words_finds(asked: list[str], n: int, data: st.DataObject) -> None:
    text = data.draw(st.lists(st.sampled_from(LETTERS[:3]), max_size=25))
    sets = ContaminationIndex(n)
    sets.add("s", " ".join(asked))
    length = min(n, len(asked))
    every = {tuple(asked[i : i + length]) for i in range(len(asked) - length + 1)} if length >= min(n, 6) else set()
    there = {tuple(text[i : i + length]) for i in range(len(text) - length + 1)}
    assert (sets.find(" ".join(text)) is not None) == bool(every & there)


def test_an_example_that_holds_an_evaluation_question_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    asked = "Ann has nine hats and gives two of them to each of her three friends; how many are left?"
    (tmp_path / "gsm8k/test.jsonl").write_text(json.dumps({"question": asked, "answer": "3"}) + "\n", "utf-8")
    mix = made(tmp_path, pairs("Who?", f"Please: {asked}", "Why?"))
    rules = Cleaning.model_validate_json('{"decontaminate": {"against": ["gsm8k_test"]}}')
    report = clean(mix.model_copy(update={"cleaning": rules}), tmp_path, tmp_path / "out")
    assert sorted(questions(tmp_path / "out")) == ["Who?", "Why?"]
    assert report.sources[0].dropped == {"decontaminate": 1}
    assert report.sources[0].samples["decontaminate"][0].startswith("gsm8k_test: ann has nine")


# --- a whole clean


def test_every_example_is_counted_and_the_report_is_written(tmp_path: Path) -> None:
    records = [
        *pairs("one", "two", "three"),
        {"q": "one", "a": "answer 0"},
        {"q": "long " * 30, "a": "x"},
        {"q": "short", "a": "y" * 300},
        {"q": "empty", "a": " "},
        {"q": "broken", "a": "a\\nb\\nc"},
        {"q": "few", "a": "!"},
    ]
    rules = Cleaning(prompt_characters=100, response_characters=200, least_characters=2)
    report = clean(made(tmp_path, records, cleaning=rules, repeat=4, held_out=2), None, tmp_path / "out")
    (mine,) = report.sources
    assert mine.dropped == {
        "exact_duplicates": 1,
        "prompt_characters": 1,
        "response_characters": 1,
        "unusable": 1,
        "least_characters": 1,
    }
    assert mine.mended == {"line_breaks": 1} and (mine.read, mine.kept, mine.held_out) == (9, 4, 2)
    assert mine.samples["unusable"] == ("no response to: empty",)
    written = json.loads((tmp_path / "out" / REPORT).read_text("utf-8"))
    assert written["read"] == 9 and written["sources"][0]["dropped"] == mine.dropped
    examples = list(read_examples(tmp_path / "out"))
    assert {each.repeat for each in examples} == {4} and sum(each.held_out for each in examples) == 2
    assert "a\nb\nc" in {each.response for each in examples}
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [TABLE, REPORT]


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.text("xy\\n`\n ", max_size=8)), min_size=1, max_size=15), st.data()
)
@settings(max_examples=40, deadline=None)
def test_cleaning_what_is_clean_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, given_: list[tuple[str, str]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("clean")
    near = data.draw(st.sampled_from([None, 0.8]))
    rules = Cleaning(code_languages=("python",), near_duplicates=near, response_characters=6)
    records = [{"q": q, "a": a} for q, a in given_]
    try:
        first = clean(made(folder, records, cleaning=rules), None, folder / "one")
    except TextError:
        return  # nothing was left
    _adds_up(first)
    again = [{"q": each.prompt, "a": each.response} for each in sorted(read_examples(folder / "one"), key=_number)]
    second = clean(made(folder, again, "b.jsonl", cleaning=rules), None, folder / "two")
    _adds_up(second)
    assert not second.sources[0].dropped and not second.sources[0].mended
    assert second.kept == first.kept


def _number(example: Any) -> int:
    return int(example.number)


def _adds_up(report: CleaningReport) -> None:
    for each in report.sources:
        assert each.read == each.kept + sum(each.dropped.values())
        assert all(len(texts) <= 3 for texts in each.samples.values())


def test_two_mixes_of_the_same_texts_hold_them_in_one_order(tmp_path: Path) -> None:
    texts = [{"t": f"def f{i}():\n    return {i}"} for i in range(60)]
    orders = {}
    for how in ("real", "literal", None):
        rules = Cleaning(line_breaks=how, response_characters=25)
        mix = made(tmp_path, texts, cleaning=rules, columns=Shape(text="t"), held_out=5)
        report = clean(mix, None, tmp_path / str(how), limit=40)
        _adds_up(report)
        assert report.kept == 40 and report.sources[0].dropped == {"limit": 20}
        found = list(read_examples(tmp_path / str(how)))
        orders[how] = [(each.number, each.held_out) for each in found]
        assert all(("\\n" in each.response) == (how == "literal") for each in found)
    assert orders["real"] == orders["literal"] == orders[None]
    assert [number for number, _ in orders["real"]] != sorted(number for number, _ in orders["real"])
    seeds = made(tmp_path, texts, columns=Shape(text="t"), seed=1)
    clean(seeds, None, tmp_path / "seed")
    assert [each.number for each in read_examples(tmp_path / "seed")][:40] != [number for number, _ in orders["real"]]


def test_a_prefix_is_a_fair_sample_of_all_sources(tmp_path: Path) -> None:
    one = made(tmp_path, pairs(*(f"one {i}" for i in range(900))), "one.jsonl").sources
    two = made(tmp_path, pairs(*(f"two {i}" for i in range(300))), "two.jsonl").sources
    clean(Mix(name="both", sources=one + two, held_out=10), None, tmp_path / "out")
    names = [each.source for each in read_examples(tmp_path / "out")]
    assert len(names) == 1200 and 40 < names[:240].count("two.jsonl") < 80
    clean(Mix(name="both", sources=one + two, held_out=10), None, tmp_path / "few", limit=100)
    whole, few = list(read_examples(tmp_path / "out")), list(read_examples(tmp_path / "few"))
    assert few == whole[:100]


def test_a_limit_stops_the_reading_of_its_source(tmp_path: Path) -> None:
    mix = made(tmp_path, [*pairs("a", "b"), {"no": "columns"}], limit=2)
    assert clean(mix, None, tmp_path / "out").read == 2


def test_an_opening_makes_pairs_of_texts(tmp_path: Path) -> None:
    story = "Once there was a fox. It ran far away. Then it slept for a whole day and a night."
    opening = {"ask": "Go on:", "characters": 40}
    mix = made(tmp_path, [{"t": story}, {"t": "Too short."}], columns=Shape(text="t"), opening=opening)
    report = clean(mix, None, tmp_path / "out")
    (found,) = read_examples(tmp_path / "out")
    assert found.prompt == "Go on:\n\nOnce there was a fox. It ran far away."
    assert found.response == "Then it slept for a whole day and a night."
    assert report.sources[0].dropped == {"opening": 1}


def test_the_tiny_mix_needs_nothing_but_the_project(tmp_path: Path) -> None:
    report = clean(read_mix("tiny"), None, tmp_path / "out", limit=500)
    examples = list(read_examples(tmp_path / "out"))
    assert len(examples) == report.kept == 500 and 5 < report.held_out < 60
    assert all([message.role for message in each.messages] == ["user"] for each in examples)


# --- what goes wrong


def test_nothing_left_is_said_with_the_reasons_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mix = made(tmp_path, [{"q": "", "a": "x"}], cleaning=Cleaning())
    with pytest.raises(TextError, match="nothing is left of the mix m: 1 examples were read, 1 dropped by unusable"):
        clean(mix, None, tmp_path / "out")
    with pytest.raises(TextError, match="no text in column"):
        clean(made(tmp_path, [{"x": "y"}]), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mix, out = made(tmp_path, pairs("a", "b")), tmp_path / "out"

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ExportError, match="No space left on device") as caught:
            clean(mix, None, out)
        assert "\n" not in str(caught.value) and not out.exists()
    clean(mix, None, out)
    before = (out / TABLE).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ExportError, match="No space left on device"):
            clean(made(tmp_path, pairs("c")), None, out)
    assert (out / TABLE).read_bytes() == before
    assert sorted(file.name for file in out.iterdir()) == [TABLE, REPORT]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(ExportError):
            clean(made(tmp_path, pairs("a")), None, out)


def test_typing_noise_mistypes_a_share_of_the_letters_and_nothing_else() -> None:
    text = "The quick brown fox jumps over 12 lazy dogs; 你好 🦆!\n" * 200
    found = mistyped(text, 0.05, "made/1")
    assert found == mistyped(text, 0.05, "made/1") != mistyped(text, 0.05, "made/2")
    lines = zip(text.splitlines(), found.splitlines(), strict=True)
    kept = [SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in lines]
    assert 0.93 < sum(kept) / len(kept) < 0.99 and abs(len(found) - len(text)) < 0.02 * len(text)
    assert mistyped("123 你好 🦆", 0.99, "made/1") == "123 你好 🦆"
    assert sum(found.count(digit) for digit in "12") == 400
