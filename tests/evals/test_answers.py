"""What is read out of answers, pass@k, and standard errors: by hand, beside the harness, and by enumeration."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from evals.aggregate import averages, mean, ratio
from evals.answers import numbers, result
from evals.answers.letters import MANY_LETTERS, NO_LETTER, letter
from evals.answers.letters import UNFINISHED as UNDECIDED
from evals.answers.numbers import equal_numbers, flexible, harness_equal, ours, strict
from evals.pass_at_k import pass_at_k, passes
from evals.report.tables import with_error
from tests.support.answer_forms import CHOICES, LETTERS, NUMBERS

TEXTS = (
    "So 3 + 4 = 7. The answer is 7.",
    "The answer is 72",
    "The answer is $72.",
    "The answer is 1,234.50.",
    "The answer is -5. Then The answer is 6.",
    "She has 12 apples and 3.50 dollars left",
    "nothing to see",
    "",
    "18 dollars.",
    "#### 18",
    "The answer is 18. It costs $5.00.",
)


@pytest.fixture(scope="module")
def stock():
    """The harness's own GSM8K task, filters and metric included, over one document."""
    from pathlib import Path

    import lm_eval.tasks
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(Path(lm_eval.tasks.__file__).parent / "gsm8k/gsm8k-cot.yaml")
    config.pop("tag")
    documents = Dataset.from_list([{"question": "?", "answer": "so\n#### 18"}, {"question": "?", "answer": "#### 7"}])
    return ConfigurableTask(config={**config, "custom_dataset": lambda **_: {"test": documents}})


@pytest.mark.parametrize("text", TEXTS)
def test_strict_and_flexible_are_the_harnesss(stock, text):
    from lm_eval.api.instance import Instance

    for number, target in enumerate(("18", "7")):
        document = stock.test_docs()[number]
        instance = Instance("generate_until", document, ("", {}), 0, resps=[text])
        stock._instances = [instance]
        stock.apply_filters()
        for name, mine in (("strict-match", strict(text)), ("flexible-extract", flexible(text))):
            found = instance.filtered_resps[name]
            assert (mine.value or "[invalid]") == found
            right = mine.value is not None and harness_equal(mine.value, target)
            assert right == bool(stock.process_results(document, [found])["exact_match"])


def test_the_harness_reads_seven_where_seventy_two_ends_the_text():
    assert strict("The answer is 72").value == "7"
    assert ours("The answer is 72").value == "72"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("That is 5 + 6 = 11 eggs.\n#### 11", "11"),
        ("The answer is $1,234.50 in all.", "$1,234.50"),
        ("Therefore the final answer is: **42**.", "42"),
        ("\\[\\boxed{17}\\] eggs", "17"),
        ("Answer: \\$ 9 each", "$ 9"),
        ("The answer is 5 + 3 = 8.", "8"),
        ("The answer is 4. No, wait: the answer is 6.", "6"),
        ("First 3, then 9 are left.", "9"),
        ("The answer is 3.\n\nQ: Another one? The answer is 99.", "3"),
        ("It falls to \u22125 degrees.", "-5"),
        ("Half of it is 1/2.", "1/2"),
        ("Round 2 has 3rd place, so 12", "12"),
    ],
)
def test_ours_reads_what_a_person_would(text, value):
    assert ours(text).value == value


@pytest.mark.parametrize(
    ("text", "ended", "reason"),
    [
        ("", True, result.EMPTY),
        (" \n", False, result.EMPTY),
        ("I do not know.", True, numbers.NO_NUMBER),
        ("She has 3 and then buys 4 more, so", False, numbers.UNFINISHED),
        ("The answer is unknown to me.", True, numbers.EMPTY_MARK),
        ("<think>16 - 3 = 13. The answer is 13", False, result.ONLY_REASONING),
        ("She has 3.\n\nThe answer is:\n", False, numbers.UNFINISHED),
    ],
)
def test_what_cannot_be_read_says_why(text, ended, reason):
    found = ours(text, ended)
    assert (found.value, found.reason, found.valid) == (None, reason, False)


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_ours_agrees_with_a_person(text, value):
    """An answer below its mark was no answer; a sum later in the line won; thin spaces cut a number in two."""
    found = ours(text)
    assert found.value is not None and equal_numbers(found.value, value), found


@pytest.mark.parametrize(("text", "value"), LETTERS)
def test_letters_agree_with_a_person(text, value):
    """The last choice that was mentioned won over the one that was stated; a LaTeX box was not read."""
    assert letter(text, False, True, CHOICES).value == value


def test_a_choice_that_is_only_mentioned_before_a_text_was_cut_off_is_none():
    text = "Let us see. Option A is about rain"
    assert letter(text, False, ended=False).reason == UNDECIDED
    assert letter("The best answer is B. Option A is ab", False, ended=False).value == "B"
    assert letter("(A) or (B)?", False).reason == MANY_LETTERS and letter("No idea.", False).reason == NO_LETTER


@pytest.mark.parametrize("text", ["1" * 8000, "\n" * 8000, "the answer is " * 800, "<think>" * 2000, "answer(" * 2000])
def test_a_hostile_answer_is_read_in_no_time(text):
    """A regular expression that tries every way to split a text would take hours."""
    begun = time.process_time()
    ours(text), letter(text, False)
    assert time.process_time() - begun < 5


def test_a_text_that_was_cut_off_counts_where_its_answer_is_marked():
    assert ours("#### 12\nand now more", ended=False).value == "12"
    assert flexible("She has 3 and then buys 4 more, so").value == "4"  # the harness takes it


def test_numbers_are_equal_as_numbers():
    assert equal_numbers("$1,000.00", "1000")
    assert equal_numbers("1/2", "0.5")
    assert equal_numbers("18.", "18")
    assert not equal_numbers("-18", "18")
    assert not equal_numbers("1/0", "18")
    assert not equal_numbers("1.2.3", "18")


@pytest.mark.parametrize(
    ("text", "forced", "value"),
    [
        (" C", True, "C"),
        (" (B) because", True, "B"),
        (" **A**", True, "A"),
        (" Because the sun is hot", True, None),
        ("The best answer is D.", False, "D"),
        ("B. The buildings are safer. The best answer is [C]", False, "C"),
        ("B. buildings will be made safer", False, "B"),
        ("I think (A) it is", False, "A"),
        ("(A) or (B)?", False, None),
        ("A planet rotates faster.", False, None),
        ("", False, None),
        ("The answer is a) more", False, "A"),
        ("The answer is a planet.", False, None),
        ("The best answer is E", False, "E"),
        ("The best answer is b", False, "B"),
    ],
)
def test_letters(text, forced, value):
    found = letter(text, forced)
    assert found.value == value
    assert (found.reason is None) == (value is not None)


def test_pass_at_k_is_the_share_of_k_subsets_that_hold_a_pass():
    for n in range(1, 7):
        for c in range(n + 1):
            passed = [i < c for i in range(n)]
            for k in range(1, n + 1):
                subsets = list(itertools.combinations(passed, k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


def test_pass_at_k_of_what_there_is():
    assert passes([True, False]) == {"pass@1": 0.5}
    assert passes([True] + [False] * 9) == {"pass@1": 0.1, "pass@10": 1.0}
    with pytest.raises(ValueError, match="n = 2"):
        pass_at_k(2, 1, 3)


def test_the_mean_has_the_harnesss_error():
    from lm_eval.api.metrics import mean_stderr

    values = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert mean(values).value == pytest.approx(3 / 7)
    assert mean(values).stderr == pytest.approx(mean_stderr(values))
    assert np.isnan(mean([1.0]).stderr)


@pytest.mark.parametrize("n", [2, 100, 200])
def test_none_or_all_right_have_the_exact_binomial_bound(n):
    none, every = mean([0.0] * n).bound, mean([1.0] * n).bound
    assert none is not None and (1 - none) ** n == pytest.approx(0.05)  # so many wrong, by chance
    assert every is not None and every**n == pytest.approx(0.05)
    assert mean([0.0] * (n - 1) + [1.0]).bound is None and mean([0.5] * n).bound is None
    assert with_error(mean([0.0] * 100), share=True) == "0% (< 3.0%)"
    assert with_error(mean([1.0] * 100), share=True) == "100% (> 97.0%)"
    assert with_error(mean([0.0] * 100), share=False) == "0.000 ± 0.000"


def test_one_sample_has_no_bound():
    assert mean([0.0]).bound is None


def test_an_error_bar_ends_at_the_bound_or_one_error_away():
    none, some = mean([0.0] * 50), mean([0.0, 1.0, 1.0, 0.0])
    assert none.whiskers == (0, none.bound) and mean([1.0] * 50).whiskers == (mean([1.0] * 50).bound, 1)
    assert some.whiskers == (some.value - some.stderr, some.value + some.stderr)


def test_the_error_of_a_ratio_is_what_resampling_gives():
    draw = np.random.default_rng(0)
    y = draw.integers(5, 60, 400).astype(float)
    x = np.array([draw.binomial(int(n), p) for n, p in zip(y, draw.beta(4, 6, 400), strict=True)], dtype=float)
    found = ratio(list(zip(x.tolist(), y.tolist(), strict=True)))
    again = [x[i].sum() / y[i].sum() for i in draw.integers(0, 400, (4000, 400))]
    assert found.value == pytest.approx(x.sum() / y.sum())
    assert found.stderr == pytest.approx(np.std(again), rel=0.05)
    naive = np.sqrt(found.value * (1 - found.value) / y.sum())
    assert found.stderr > 2 * naive  # tokens of one sample are not independent


def test_scores_that_some_samples_lack_are_over_those_that_have_them():
    found = averages([{"a": 1.0, "perplexity": (2.0, 2.0)}, {"perplexity": (4.0, 2.0)}])
    assert (found["a"].value, found["a"].samples) == (1.0, 1)
    assert found["perplexity"].value == pytest.approx(np.exp(1.5))
    assert found["perplexity"].stderr == pytest.approx(np.exp(1.5) * ratio([(2.0, 2.0), (4.0, 2.0)]).stderr)
