"""GSM8K: splits, errors, prompt, and the answer check against hand-written traps and published labels."""

import gzip
import json
import sys
import types
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aft.errors import DataError, SettingsError
from aft.tasks import get_task, gsm8k
from aft.tasks.base import SPLITS, Question

RECITED = "2+2=4\n#### 4\n\nQuestion: Tom has 3 pens and buys 6. How many?\nAnswer: 3+6=9\n#### 9"
EXTRACTED = [  # (response, strict answer, flexible answer)
    # the marker as trained on
    ("She makes 9 * 2 = $<<9*2=18>>18.\n#### 18", "18", "18"),
    ("#### 18", "18", "18"),
    ("####18", "18", "18"),
    ("####    18   ", "18", "18"),
    ("#### 18\n", "18", "18"),
    ("#### 18\r\n", "18", "18"),
    ("text #### 18", "18", "18"),
    ("#### 18.", "18", "18"),
    ("#### 18.00", "18", "18"),
    ("#### 18.50", "18.5", "18.5"),
    ("#### $18", "18", "18"),
    ("#### $29.00", "29", "29"),
    ("#### 18$", "18", "18"),
    ("#### €18", "18", "18"),
    ("#### 1,080", "1080", "1080"),
    ("#### 1,234.50", "1234.5", "1234.5"),
    ("#### $109,200,000.", "109200000", "109200000"),
    ("#### 1080", "1080", "1080"),
    ("#### 18 dollars", "18", "18"),
    ("#### 18 eggs per day.", "18", "18"),
    ("#### 18km", "18", "18"),
    ("#### 73%", "73", "73"),
    ("#### 73 percent", "73", "73"),
    ("#### **73**", "73", "73"),
    ("#### **$73**", "73", "73"),
    ("**#### 73**", "73", "73"),
    ("#### `73`", "73", "73"),
    ("#### \\boxed{73}", "73", "73"),
    ("#### $\\boxed{73}$", "73", "73"),
    ("#### \\(73\\)", "73", "73"),
    ("#### -5", "-5", "-5"),
    ("#### \u22125", "-5", "-5"),
    ("#### -$5", "-5", "-5"),
    ("#### 0", "0", "0"),
    ("#### -0", "0", "0"),
    ("#### 007", "7", "7"),
    ("#### .5", "0.5", "0.5"),
    ("#### 1/2", "0.5", "0.5"),
    ("#### 2/6", "1/3", "1/3"),
    ("#### 24 2/3", "74/3", "74/3"),
    ("#### \\frac{3}{4}", "0.75", "0.75"),
    ("#### 1.8e2", "180", "180"),
    ("#### 2:00 pm", "2", "2"),
    ("#### 520 (Thursday's revenue)", "520", "520"),
    ("#### 18 cm^2", "18", "18"),
    # a marker without one clear number is no strict answer
    ("", None, None),
    ("   \n", None, None),
    ("####", None, None),
    ("#### ", None, None),
    ("####\n18", None, "18"),
    ("#### eighteen", None, None),
    ("#### 2:20 pm", None, None),
    ("#### 1/0", None, None),
    ("#### 12,34", None, None),
    ("#### 1.2.3", None, None),
    ("#### 10-5", None, None),
    ("#### 10 - 5", None, None),
    ("#### 10 - 5 = 5", None, "5"),
    ("#### (520 * 450) / 468 = 500", None, "500"),
    ("#### x = 7", None, "7"),
    ("#### 10+John's age", None, None),
    ("#### 18 or 20", None, "18"),
    ("#### 4, 6", None, "4"),
    ("#### 7 packs and 2 extra glue sticks", None, "7"),
    ("#### 225 minutes or 3 hours and 45 minutes", None, "225"),
    ("#### about 18", None, "18"),
    ("#### The answer is 18", None, "18"),
    ("#### Each child got 5 books.", None, "5"),
    ("#### 2024-01-15", None, None),
    ("#### \u0661\u0668", None, None),  # Arabic-Indic digits
    ("#### \u00bd", "0.5", "0.5"),
    ("#### 2\u00bd", "2.5", "2.5"),
    ("#### 16\u2154%", "50/3", "50/3"),
    ("#### 2&frac12;", "2.5", "2.5"),
    ("#### 2'\u00bd", None, None),
    ("#### 1\u00bd 2", None, None),
    ("#### 7\\over2", "3.5", "3.5"),
    ("#### {7\\over 2}", "3.5", "3.5"),
    ("#### ${7 \\over 2}$", "3.5", "3.5"),
    ("#### {7}\\over{2}", "3.5", "3.5"),
    ("#### 7\\over x", None, None),
    ("#### 7 \\overline", "7", "7"),
    ("So \\boxed{7\\over2}.", None, "3.5"),
    ("#### 10\u00b2", None, None),
    ("#### 3\\frac12", "3.5", "3.5"),
    ("#### nan", None, None),
    ("#### 1e1000000000", None, None),
    ("#### " + "9" * 40, "9" * 40, "9" * 40),
    ("#### " + "9" * 41, None, None),
    ("#### " + "9" * 1_000_000, None, None),
    ("#### __import__('os').system('echo 5')", None, "5"),
    ("__import__('os')", None, None),
    ("### 18", None, "18"),
    ("##### 18", None, "18"),
    ("##### Sum\n3+4\n#### 7", "7", "7"),
    ("#### Step 1\nAdd 3 and 4.\n#### Step 2\nThe answer is 7.", None, "7"),
    # the first marker counts, and nothing of a question that the model goes on with
    (RECITED, "4", "4"),
    ("#### 4\n#### 9", "4", "4"),
    ("#### \n#### 9", None, "9"),
    ("The answer is 4.\n\nQ: Tom has 3 pens and buys 6.\nA: The answer is 9.", None, "4"),
    ("A: 4\nQ: Tom has 3 pens and buys 6.\nA: 9", None, "4"),
    ("So 4 pens.\n\n### Instruction:\nTom has 3.\n\n### Response:\n#### 3", None, "4"),
    ("Question: how many?\nAnswer: 4", None, "4"),
    ("\nQuestion: how many?\n#### 4", "4", "4"),
    # other models' ways to answer
    ("The answer is 18.", None, "18"),
    ("The answer is 18", None, "18"),
    ("THE ANSWER IS 18!", None, "18"),
    ("The answer is $18.", None, "18"),
    ("The answer is $1,234.50.", None, "1234.5"),
    ("The answer is 18. This took 3 steps.", None, "18"),
    ("The answer is **18**.", None, "18"),
    ("The answer is: 18", None, "18"),
    ("The answer is:\n\n18 eggs", None, "18"),
    ("The answer is -5.", None, "-5"),
    ("The answer is - 5.", None, "-5"),
    ("Answer:\n- 5 apples", None, "5"),
    ("The answer is 1/2.", None, "0.5"),
    ("The answer is 2 2/3.", None, "8/3"),
    ("The answer is \\frac{1}{3}.", None, "1/3"),
    ("The answer is 13 + 14 = 27.", None, "27"),
    ("The answer is 440 / 70 = 6 hours.", None, "6"),
    ("The answer is (4.67 + 12) / 2 = 7.33 rolls.", None, "7.33"),
    ("The answer is x = 27 - 7 = 20.", None, "20"),
    ("The answer is 66 - 10 = <<66-10=56>>56 students.", None, "56"),
    ("The answer is $290.00 - $300.00 = -$10.00.", None, "-10"),
    ("The answer is 160 - ?.", None, None),
    ("The answer is 49 - x.", None, None),
    ("There are 9. The answer is impossible.", None, None),
    ("The answer is 5 hours and 20 minutes.", None, "5"),
    ("The answer is 3. No, the answer is 4.", None, "4"),
    ("The answer is $35*3 = $105. The answer is 15.", None, "15"),
    ("My final answer is 18 apples and not 20", None, "18"),
    ("A: 18", None, "18"),
    ("3+4=7\nA: 7", None, "7"),
    ("3+4=7\nA: -1,200.0", None, "-1200"),
    ("Answer: 18", None, "18"),
    ("**Answer:** $18", None, "18"),
    ("**Final Answer**: 18", None, "18"),
    ("Final answer:\n18 eggs\n(from 20 hens)", None, "18"),
    ("**Answer**: 18 of the 20", None, "18"),
    ("Final Answer: Tom has 91 trees left after 10 years.", None, "91"),
    ("Final Answer: How many of the 12 are left?\n12 - 4 = 8 are left.", None, "8"),
    ("Final Answer: Calculate the cost.\n5 * $3 = $15\nIt costs $15.", None, "15"),
    ("So $\\boxed{18}$.", None, "18"),
    ("So \\boxed{18} of the 20.", None, "18"),
    ("\\boxed{\\text{Total: }18}", None, "18"),
    ("\\boxed{\\frac{1}{2}}", None, "0.5"),
    ("\\boxed{{18}}", None, "18"),
    ("\\boxed{x=18}, so the answer is 5", None, "18"),
    # the last number
    ("She makes 9 * 2 = $18 every day.", None, "18"),
    ("18", None, "18"),
    ("He has 3 and she has 4.", None, "4"),
    ("Two answers: 3 or 4", None, "4"),
    ("So 10-5", None, None),
    ("So 10 - 5", None, None),
    ("so it is 10 -5", None, None),
    ("It fell to -5 degrees", None, "-5"),
    ("between 10\u201315 eggs", None, None),
    ("In total 3 * (4 + 5", None, None),
    ("Due on 2024-01-15", None, None),
    ("Due on January 15, 2024", None, "2024"),
    ("Tracy got 8 pieces from 6-inch wire.", None, "8"),
    ("Pens:\n- 3 red\n- 4 blue", None, "4"),
    ("130,000 - 50,000 = $<<130000-50000=80000>>80,00", None, None),  # cut off inside the number
    ("Q1. How many?", None, None),
    ("no number at all", None, None),
    ("\u0663 eggs", None, None),
    ("{{{{[[[[((((18))))]]]]}}}}", None, "18"),
    ("((((((((", None, None),
]


@pytest.mark.parametrize(("response", "strict", "flexible"), EXTRACTED)
def test_the_final_answer_of_a_response(response: str, strict: str | None, flexible: str | None) -> None:
    assert gsm8k.extract_answer(response) == strict
    assert gsm8k.extract_answer(response, strict=False) == flexible


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("#### 12\nFinal answer:", "12"),
        ("So 12.\nFinal answer: ", "12"),
        ("So 12.\nFinal answer:\n\n", "12"),
        ("So 12 of the 20.\nFinal answer:\n\nI hope this helps!", "20"),
        ("The answer is 12, of the 20.\n\n**Final Answer:**\n", "12"),
        ("The answer is 12, of the 20. The answer is", "12"),
        ("The answer is 12, of the 20. The answer is: **", "12"),
        ("Answer: 12\nThere were 20.\nA:\n", "12"),
        ("So \\boxed{12} of the 20. \\boxed{}", "12"),
        ("So \\boxed{12} of the 20. \\boxed{ ", "12"),
        ("12 of 20 is the most.\n####", "20"),
        ("So 12.\nFinal answer:\nShe has\n9 left.", "9"),  # something follows
        ("There are 9. The answer is impossible.", None),
    ],
)
def test_a_marker_before_nothing_hides_no_answer(response: str, answer: str | None) -> None:
    assert gsm8k.extract_answer(response, strict=False) == answer


@given(
    st.lists(st.sampled_from([*"0123456789 .,-/$#=%\nAQ:é", "####", "\nProblem:", "\nUser:"]), max_size=80).map(
        "".join
    ),
    st.booleans(),
)
@settings(deadline=None)
def test_what_is_strictly_an_answer_is_flexibly_the_same(text: str, marked: bool) -> None:
    response = f"#### {text}" if marked else text
    strict = gsm8k.extract_answer(response)
    assert strict is None or gsm8k.extract_answer(response, strict=False) == strict


@given(st.decimals(-(10**15), 10**15, places=3), st.text(st.sampled_from("abc 12+=\n."), max_size=40))
@settings(deadline=None)
def test_a_reference_gives_back_its_answer(value: object, reasoning: str) -> None:
    answer = gsm8k.extract_answer(f"#### {value}")
    assert answer is not None
    assert gsm8k.extract_answer(f"{reasoning}\n#### {answer}") == answer
    assert gsm8k.answers_equal(answer, f"${value}")


@pytest.mark.parametrize(
    "unit",
    ["1,", "9", "####", "$-", "1/", "answer: ", "answer is ", "\nQ", "\nA:", "#### 1\n", "\nInput: 1", "answer:\n"],
)
@pytest.mark.usefixtures("linear_time")
def test_extraction_takes_linear_time(unit: str) -> None:
    """200,000 characters, over which a quadratic pattern would take minutes."""
    text = unit * (200_000 // len(unit))
    for response in (text, f"#### {text}", f"The answer is {text}"):
        strict, flexible = gsm8k.extract_answer(response), gsm8k.extract_answer(response, strict=False)
        assert strict is None or strict == flexible


@pytest.mark.usefixtures("linear_time")
def test_a_line_of_a_megabyte_is_judged_like_a_short_one() -> None:
    """1 MB of one digit is no number; 1 MB of words before the marker do not hide it."""
    assert gsm8k.extract_answer("9" * 1_000_000, strict=False) is None
    assert gsm8k.extract_answer("word " * 200_000 + "#### 18") == "18"


def _row(question: str, answer: str = "1+1=<<1+1=2>>2\n#### 2") -> dict[str, object]:
    return {"question": question, "answer": answer}


def _publish(folder: Path, train: Sequence[object], test: Sequence[object]) -> str:
    for name, rows in (("train", train), ("test", test)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder)


def _ids(questions: Sequence[Question]) -> list[str]:
    return [question.question_id for question in questions]


TRAIN = [_row(f"Train question {number}?") for number in range(10)]
TEST = [_row(f"Test question {number}?") for number in range(8)]


def test_it_is_a_task_family() -> None:
    assert get_task("gsm8k") is not None


def test_a_row_becomes_a_question(tmp_path: Path) -> None:
    path = _publish(tmp_path, [_row("How many?", "3*400=<<3*400=1200>>1,200\n#### 1,200")], [])
    (question,) = gsm8k.load_questions(gsm8k.Settings(path=path, validation_size=0))["train"]
    assert question.question_id == "gsm8k/train/00000"
    assert (question.dataset, question.split, question.choices) == ("gsm8k", "train", None)
    assert question.reference == "3*400=<<3*400=1200>>1,200\n#### 1,200"
    assert question.answer == "1200"
    unmarked = gsm8k.Settings(path=path, validation_size=0, keep_calculator_marks=False)
    assert gsm8k.load_questions(unmarked)["train"][0].reference == "3*400=1,200\n#### 1,200"


def test_the_prompt_ends_where_the_response_begins(tmp_path: Path) -> None:
    path = _publish(tmp_path, [_row("How {many}?")], [])
    (question,) = gsm8k.load_questions(gsm8k.Settings(path=path, validation_size=0))["train"]
    assert gsm8k.prompt(question) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nHow {many}?\n\n### Response:\n"
    )


@pytest.mark.parametrize(("source", "sizes"), [("test", (10, 3, 5)), ("train", (7, 3, 8))])
def test_validation_is_taken_from_one_published_set(tmp_path: Path, source: str, sizes: tuple[int, int, int]) -> None:
    """Of 10 train and 8 test rows, 3 go to validation, under the names they are published with."""
    path = _publish(tmp_path, TRAIN, TEST)
    splits = gsm8k.load_questions(gsm8k.Settings(path=path, validation_from=source, validation_size=3))  # pyright: ignore[reportArgumentType]
    assert tuple(splits) == SPLITS
    assert tuple(len(splits[split]) for split in SPLITS) == sizes
    assert all(question.split == split for split in SPLITS for question in splits[split])
    assert {name.split("/")[1] for name in _ids(splits["validation"])} == {source}
    everything = [name for split in SPLITS for name in _ids(splits[split])]
    assert sorted(everything) == sorted(
        [f"gsm8k/train/{n:05d}" for n in range(10)] + [f"gsm8k/test/{n:05d}" for n in range(8)]
    )
    assert all(_ids(splits[split]) == sorted(_ids(splits[split])) for split in SPLITS)


def test_validation_depends_on_the_seed_and_not_on_the_order_of_rows(tmp_path: Path) -> None:
    def chosen(rows: Sequence[object], seed: int) -> set[str]:
        settings = gsm8k.Settings(path=_publish(tmp_path, TRAIN, rows), validation_size=4, split_seed=seed)
        return {question.question for question in gsm8k.load_questions(settings)["validation"]}

    assert chosen(TEST, 0) == chosen(TEST[::-1], 0)
    assert len({frozenset(chosen(TEST, seed)) for seed in range(5)}) > 1


def test_training_questions_are_drawn_by_seed_and_not_by_order(tmp_path: Path) -> None:
    """Of 10 rows, or of the 7 that validation leaves, 4 train; a larger draw holds the smaller one."""

    def drawn(rows: Sequence[object], **setting: Any) -> set[str]:
        settings = gsm8k.Settings(path=_publish(tmp_path, rows, TEST), validation_size=3, **setting)
        splits = gsm8k.load_questions(settings)
        assert not {q.question for q in splits["train"]} & {q.question for q in splits["validation"]}
        return {question.question for question in splits["train"]}

    assert len(drawn(TRAIN, train_size=4)) == 4
    assert drawn(TRAIN, train_size=4) == drawn(TRAIN[::-1], train_size=4) < drawn(TRAIN, train_size=5)
    assert len({frozenset(drawn(TRAIN, train_size=4, split_seed=seed)) for seed in range(5)}) > 1
    assert len(drawn(TRAIN, train_size=4, validation_from="train")) == 4
    assert len(drawn(TRAIN, train_size=10)) == len(drawn(TRAIN)) == 10
    with pytest.raises(SettingsError, match="'train_size' is 8, but 7 questions are left"):
        drawn(TRAIN, train_size=8, validation_from="train")


def test_the_recipes_follow_the_paper(recipe_parameters: Callable[[str], dict[str, Any]]) -> None:
    """All 7,473 or 1,000 questions, 400 of test validate, three epochs; 6 or 8 samples; β = 0.05 for the ranking."""
    whole, ranked = recipe_parameters("gsm8k"), recipe_parameters("gsm8k_rank")
    for recipe, size, samples in ((whole, None, 6), (ranked, 1000, 8)):
        settings = gsm8k.Settings(**recipe["task"]["settings"])
        assert (settings.train_size, settings.validation_from, settings.validation_size) == (size, "test", 400)
        assert (recipe["training"]["epochs"], recipe["training"]["learning_rate"]) == (3, 2e-5)
        assert (recipe["training"]["warmup"], recipe["training"]["max_tokens"]) == (0.03, 512)
        assert (recipe["sampling"]["samples"], recipe["sampling"]["temperature"]) == (samples, 1.0)
    assert whole["align"]["aft_bc"]["objective"]["beta"] == 0.15
    assert ranked["align"]["aft_rbc"]["objective"]["beta"] == 0.05
    assert ranked["labelling"]["judge"] == "steps"


def test_limits_take_the_first_of_each_split(tmp_path: Path) -> None:
    whole = gsm8k.Settings(path=_publish(tmp_path, TRAIN, TEST), validation_size=4)
    limited = gsm8k.Settings(path=whole.path, validation_size=4, train_limit=2, validation_limit=1, test_limit=0)
    splits, parts = gsm8k.load_questions(whole), gsm8k.load_questions(limited)
    assert parts["train"] == splits["train"][:2]
    assert parts["validation"] == splits["validation"][:1]
    assert parts["test"] == []


def test_a_question_asked_twice_is_kept_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two train rows repeat a test question (up to case and space) and one repeats a train question: 3 of 13 go."""
    repeats = [_row("test  QUESTION 1"), _row("Test question 2?"), _row("Train question 3?")]
    path = _publish(tmp_path, [*TRAIN, *repeats], TEST)
    splits = gsm8k.load_questions(gsm8k.Settings(path=path, validation_size=4))
    assert _ids(splits["train"]) == [f"gsm8k/train/{number:05d}" for number in range(10)]
    assert len(splits["validation"]) + len(splits["test"]) == 8
    (record,) = caplog.records
    assert "Dropped 3 of the 13 train questions" in record.getMessage()


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{"question": "How many?"', "is not JSON"),
        ("", "is blank"),
        ("[" * 100_000, "is not JSON"),
        ('["How many?", "#### 2"]', "is no object with fields"),
        ({"question": "How many?"}, "lacks the field 'answer'"),
        ({"question": "How many?", "answer": 2}, "has no text in the field 'answer'"),
        (_row("  "), "has no text in the field 'question'"),
        (_row("How many?", " "), "has no text in the field 'answer'"),
        (_row("How many?", "1+1=2"), "has no last line '#### <number>'"),
        (_row("How many?", "1+1=2\n#### two"), "has no last line '#### <number>'"),
        (_row("How many?", "1+1=2\n#### 2\n#### 3"), "has another '####' than that of its answer, 2"),
        (_row("How many?", "1+1=2\n#### 2\n#### two"), "has another '####' than that of its answer, 2"),
        (_row("How many?", "#### 2\n\nQuestion: 1+2?\n#### 3"), "has another '####' than that of its answer, 2"),
        ('{"question": "How \\ud800 many?", "answer": "#### 2"}', "is not Unicode text"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path: Path, row: object, complaint: str) -> None:
    path = _publish(tmp_path, [TRAIN[0], row, TRAIN[1]], TEST)
    with pytest.raises(DataError, match=r"train\.jsonl, line 2 ") as caught:
        gsm8k.load_questions(gsm8k.Settings(path=path, validation_size=0))
    assert complaint in str(caught.value)


def test_the_same_answer_may_stand_in_a_reference_twice(tmp_path: Path) -> None:
    path = _publish(tmp_path, [_row("How many?", "#### 2\n#### 2.0")], TEST)
    (question,) = gsm8k.load_questions(gsm8k.Settings(path=path, validation_size=0))["train"]
    assert question.answer == "2"


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    path = _publish(tmp_path, TRAIN, TEST)
    (tmp_path / "test.jsonl").write_bytes(b'{"question": "\xff\xfe", "answer": "#### 2"}\n')
    with pytest.raises(DataError, match=r"test\.jsonl, line 1 is not JSON"):
        gsm8k.load_questions(gsm8k.Settings(path=path, validation_size=0))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.train\.jsonl .*; the setting 'path' must name a folder"):
        gsm8k.load_questions(gsm8k.Settings(path=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    "setting", [{"validation_from": "dev"}, {"validation_size": -1}, {"train_limit": -1}, {"test_limit": -5}]
)
def test_settings_without_a_meaning_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(setting))):
        gsm8k.Settings(**setting)  # pyright: ignore[reportArgumentType]


def test_a_validation_set_larger_than_its_source_is_refused(tmp_path: Path) -> None:
    path = _publish(tmp_path, TRAIN, TEST)
    with pytest.raises(SettingsError, match=r"'validation_size' is 9, .* has 8 questions"):
        gsm8k.load_questions(gsm8k.Settings(path=path, validation_size=9))


def test_without_a_path_the_pinned_data_set_of_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str, *, split: str, revision: str) -> list[dict[str, object]]:
        asked.append((name, config, split, revision))
        return {"train": TRAIN, "test": TEST}[split]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    splits = gsm8k.load_questions(gsm8k.Settings(validation_size=2))
    assert [len(splits[split]) for split in SPLITS] == [10, 2, 6]
    pinned = "e53f048856ff4f594e959d75785d2c2d37b678ee"
    assert asked == [("openai/gsm8k", "main", split, pinned) for split in ("train", "test")]


def test_an_unreachable_hub_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=r"openai/gsm8k at revision \w+ cannot be fetched \(no route\)"):
        gsm8k.load_questions(gsm8k.Settings())


CLIPS = Question(
    "gsm8k/train/00000",
    "gsm8k",
    "train",
    "Natalia sold 48 clips in April and half as many in May. How many in all?",
    None,
    "In May she sold 48/2 = <<48/2=24>>24 clips.\nIn all she sold 48+24 = <<48+24=72>>72 clips.\n#### 72",
    "72",
    "",
)


@pytest.mark.parametrize(
    ("response", "wrong"),
    [
        (CLIPS.reference, []),
        ("<<24+48=72>> and <<48*1/2=24>>\n#### $72.00", []),  # in other words and another order
        ("It is 72.\n#### 72", []),  # without a mark only the answer can be wrong
        ("<<48*.5=24>> <<48 + 24.0004 = 72>>\n#### 72", []),
        ("<<48*1.5=72>>\n#### 72", []),
        (CLIPS.reference + "\n<<1+1=3>>", []),  # what follows the answer is another text
        ("<<48/2=24>> <<48+24=72>>\nQuestion: <<1+1=3>>", ["There is no final answer."]),
        # a mark that does not hold counts, whatever its result, and whatever the answer
        ("<<48/2=23>> <<48+24=72>>\n#### 72", ["48/2=23 does not hold"]),
        ("<<48/2=24.001>>\n#### 72", ["48/2=24.001 does not hold"]),
        ("<<48/0=24>> <<48>> <<=24>> <<>> <<half=24>>\n#### 72", ["does not hold"] * 5),
        # another path to the right answer: all that the reference does not have is one wrong step
        ("<<48*3=144>> <<144/2=72>>\n#### 72", ["reference does not have: 48*3=144."]),
        ("<<48*6=288>> <<288/2=144>> <<144/2=72>>\n#### 72", ["does not have: 48*6=288, 288/2=144."]),
        ("<<48*6=288>> <<288/2=143>> <<144/2=72>>\n#### 72", ["288/2=143 does not hold", "does not have: 48*6=288."]),
        ("<<24+.0009=24.0009>> <<24+.001=24.001>>\n#### 72", ["does not have: 24+.001=24.001."]),
        # to a wrong one: each counts, and the answer, too
        ("<<48*2=96>> <<48+96=144>>\n#### 144", ["of 48*2=96.", "of 48+96=144.", "is 144, not 72"]),
        ("<<48/2=24>> <<48-24=25>>\n#### 25", ["48-24=25 does not hold", "is 25, not 72"]),
        ("<<48/2=24>> <<48+24=72>>\n#### 27", ["is 27, not 72"]),
        ("", ["There is no final answer."]),
    ],
)
def test_wrong_steps_by_hand(response: str, wrong: list[str]) -> None:
    """The reference has 48/2=24 and 48+24=72: results 24 and 72."""
    found = gsm8k.wrong_steps(CLIPS, response)
    assert len(found) == len(wrong), found
    for sentence, part in zip(found, wrong, strict=True):
        assert part in sentence and sentence.endswith(".")


def test_without_marks_in_the_reference_every_equation_that_holds_is_right() -> None:
    bare = replace(CLIPS, reference="24 and 48 are 72.\n#### 72")
    assert gsm8k.wrong_steps(bare, "<<48*2=96>>\n#### 72") == []
    assert gsm8k.wrong_steps(bare, "<<48*2=95>>\n#### 72") == ["The equation 48*2=95 does not hold."]


def test_the_answer_is_a_result_of_the_reference_also_where_no_mark_says_so() -> None:
    question = replace(CLIPS, reference="<<48/2=24>> and 48 are 72.\n#### 72")
    assert gsm8k.wrong_steps(question, "<<48/2=24>> <<48+24=72>>\n#### 72") == []


def test_the_equations_of_a_response() -> None:
    assert gsm8k.equations(CLIPS.reference) == ["48/2=24", "48+24=72"]
    assert gsm8k.equations("<< 1 + 1\t= 2 >> <<1\n2>> <<<<3=3>>>>\n#### 2\n<<4=4>>") == ["1+1=2", "3=3"]
    assert gsm8k.equations("1+1=2") == []


@given(st.text(st.sampled_from("<>0123456789=+-*/()%x. #\nQ:"), max_size=80))
@settings(deadline=None)
def test_any_text_can_be_checked(text: str) -> None:
    """And none is flawless that does not reach the answer."""
    assert gsm8k.wrong_steps(CLIPS, text) or gsm8k.extract_answer(text) == "72"


@pytest.mark.parametrize("unit", ["<<", "<<1+1=2>>", "<<1=", "(", "<<1+1=2>>\n", "1+", "\n", "<<9*9=1>>"])
@pytest.mark.usefixtures("linear_time")
def test_the_check_takes_linear_time(unit: str) -> None:
    """100,000 characters, of up to 11,000 marks."""
    text = unit * (100_000 // len(unit))
    assert gsm8k.wrong_steps(CLIPS, text)[-1] == "There is no final answer."
    assert "There is no final answer." not in gsm8k.wrong_steps(CLIPS, f"<<{text}>>\n#### 72")


def _published_rows(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "gsm8k" / f"{name}.jsonl").read_text("utf-8").split("\n") if line]


def test_the_published_sets_have_the_sizes_of_the_paper(published_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """7,473 train questions; the paper's 400 / 919 from the test set, or all 1,319 with validation from train."""
    splits = gsm8k.load_questions(gsm8k.Settings(path=str(published_data / "gsm8k")))
    assert [len(splits[split]) for split in SPLITS] == [7473, 400, 919]
    held_out = [question.content_hash for split in ("validation", "test") for question in splits[split]]
    assert len(set(held_out)) == 1319
    assert not set(held_out) & {question.content_hash for question in splits["train"]}
    assert caplog.records == []
    ranked = gsm8k.load_questions(gsm8k.Settings(path=str(published_data / "gsm8k"), train_size=1000))
    assert [len(ranked[split]) for split in SPLITS] == [1000, 400, 919]
    whole_test = gsm8k.load_questions(gsm8k.Settings(path=str(published_data / "gsm8k"), validation_from="train"))
    assert [len(whole_test[split]) for split in SPLITS] == [7073, 400, 1319]


def test_every_published_answer_is_read_as_it_is_written(published_data: Path) -> None:
    """GSM8K's answers are integers with or without commas, so taking the commas out must give the canonical form."""
    settings = gsm8k.Settings(path=str(published_data / "gsm8k"), keep_calculator_marks=False)
    questions = {q.question_id: q for split in gsm8k.load_questions(settings).values() for q in split}
    assert len(questions) == 7473 + 1319
    for name in ("train", "test"):
        for number, row in enumerate(_published_rows(published_data, name)):
            question = questions[f"gsm8k/{name}/{number:05d}"]
            assert question.question == row["question"]
            assert question.answer == row["answer"].rpartition("#### ")[2].replace(",", "")
            assert gsm8k.extract_answer(row["answer"]) == question.answer
            assert gsm8k.extract_answer(question.reference, strict=False) == question.answer
            assert "<<" not in question.reference


# The rule behind the published labels is: the first number after the last "answer is", else after "####" or "A:", else
# the last number of the text, where a number is digits with at most a decimal point. Every row that we judge otherwise:
DISAGREEMENTS = {  # reason: (row, model, style)
    "the answer is an equation, 13 + 14 = 27, and is right; the label reads its first number": [
        (20, "code-davinci-001", "least-to-most"),
        (22, "text-davinci-002", "few-shot-cot"),
        (72, "code-davinci-001", "few-shot-cot"),
        (109, "code-davinci-001", "few-shot-cot"),
        (110, "text-davinci-002", "few-shot-cot"),
        (118, "code-davinci-002", "least-to-most"),
        (118, "text-davinci-002", "least-to-most"),
        (121, "code-davinci-001", "least-to-most"),
        (180, "code-davinci-001", "few-shot-cot"),
        (184, "text-davinci-002", "few-shot-cot"),
        (189, "text-davinci-002", "least-to-most"),
        (244, "code-davinci-002", "few-shot-cot"),
        (295, "text-davinci-002", "few-shot-cot"),
        (295, "text-davinci-003", "few-shot-cot"),
        (309, "code-davinci-002", "few-shot-cot"),
        (316, "code-davinci-002", "least-to-most"),
        (363, "code-davinci-001", "few-shot-cot"),
        (405, "code-davinci-001", "few-shot-cot"),
        (474, "code-davinci-001", "few-shot-cot"),
        (543, "code-davinci-001", "few-shot-cot"),
        (562, "text-davinci-002", "least-to-most"),
        (568, "text-davinci-002", "few-shot-cot"),
        (718, "text-davinci-002", "least-to-most"),
        (719, "text-davinci-002", "least-to-most"),
        (723, "code-davinci-001", "few-shot-cot"),
        (723, "text-davinci-002", "few-shot-cot"),
        (760, "code-davinci-002", "least-to-most"),
        (772, "code-davinci-002", "few-shot-cot"),
        (786, "text-davinci-002", "few-shot-cot"),
        (810, "code-davinci-001", "few-shot-cot"),
        (810, "code-davinci-002", "few-shot-cot"),
        (820, "code-davinci-001", "few-shot-cot"),
        (820, "text-davinci-002", "least-to-most"),
        (848, "text-davinci-002", "few-shot-cot"),
        (920, "code-davinci-002", "few-shot-cot"),
        (929, "text-davinci-003", "least-to-most"),
        (946, "text-davinci-002", "least-to-most"),
        (960, "text-davinci-003", "few-shot-cot"),
        (994, "code-davinci-001", "least-to-most"),
        (1087, "text-davinci-002", "few-shot-cot"),
        (1147, "text-davinci-002", "least-to-most"),
        (1177, "code-davinci-002", "least-to-most"),
        (1177, "text-davinci-002", "least-to-most"),
        (1222, "code-davinci-001", "few-shot-cot"),
        (1249, "code-davinci-002", "few-shot-cot"),
        (1301, "text-davinci-002", "few-shot-cot"),
    ],
    "the final sentence gives the right answer first and then a number of the question; the label reads that": [
        (192, "gpt-4", "least-to-most"),
        (288, "gpt-4", "least-to-most"),
        (430, "gpt-4", "least-to-most"),
        (487, "gpt-3.5-turbo", "least-to-most"),
        (595, "gpt-4", "least-to-most"),
        (802, "gpt-4", "least-to-most"),
        (1297, "gpt-4", "least-to-most"),
    ],
    "the right answer comes before an adjective such as 6-inch; the label reads the adjective": [
        (48, "Mixtral-8x7B-Instruct-v0.1", "few-shot"),
        (48, "gpt-4-1106-preview", "few-shot"),
        (301, "gpt-4-1106-preview", "few-shot"),
        (750, "gpt-4-1106-preview", "few-shot"),
        (1133, "gpt-4-1106-preview", "few-shot"),
    ],
    "the answer, 2:00 pm, is right; the label reads the zeros": [
        (1001, "gpt-4-1106-preview", "few-shot"),
        (1001, "gpt-3.5-turbo", "few-shot-cot"),
        (1001, "gpt-4", "few-shot-cot"),
        (1001, "gpt-4", "least-to-most"),
    ],
    "the answer is 10/24, 2 2/3 or 2:20 and is wrong; the label reads its first digits, which happen to be gold": [
        (80, "text-davinci-002", "few-shot-cot"),
        (1001, "code-davinci-002", "least-to-most"),
        (1001, "text-davinci-003", "least-to-most"),
        (1199, "code-davinci-002", "least-to-most"),
        (1199, "text-davinci-002", "least-to-most"),
    ],
    "the answer is an equation, 24 - 6 = 18, and is wrong; the label reads its first number, by chance gold": [
        (193, "code-davinci-001", "few-shot-cot"),
        (1214, "code-davinci-001", "few-shot-cot"),
    ],
    "the text breaks off, or ends on an unknown, at an operand that happens to be gold; the label reads it": [
        (181, "code-davinci-002", "least-to-most"),
        (659, "code-davinci-001", "few-shot-cot"),
        (726, "code-davinci-001", "few-shot-cot"),
        (916, "gpt-3.5-turbo", "few-shot-cot"),
        (1022, "code-davinci-002", "few-shot-cot"),
        (1170, "code-davinci-001", "few-shot-cot"),
    ],
    "the answer, $3, is right but comes before other numbers; we read the last, 1/3, and the label reads its 3": [
        (659, "gpt-4-1106-preview", "few-shot"),
    ],
}


def test_the_check_agrees_with_published_labels_but_for_known_rows(published_data: Path) -> None:
    """23,742 solutions by 18 models: at least 99.5 % agreement asked, 99.68 % found, every other row explained."""
    gold = [gsm8k.extract_answer(row["answer"]) for row in _published_rows(published_data, "test")]
    with gzip.open(published_data / "model_solutions" / "gsm8k_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        solutions = [json.loads(line) for line in lines]
    disagreements = {
        (solution["row"], solution["model"], solution["style"])
        for solution in solutions
        if (gsm8k.extract_answer(solution["completion"], strict=False) == gold[solution["row"]])
        != solution["is_correct"]
    }
    assert len(solutions) == 23_742
    assert disagreements == {row for rows in DISAGREEMENTS.values() for row in rows}
    assert len(disagreements) == 76


def test_published_references_have_no_wrong_step_but_for_two(published_data: Path) -> None:
    """Of 8,792 references with 27,998 marks, two marks divide by "//", which no other does and we do not compute."""
    settings = gsm8k.Settings(path=str(published_data / "gsm8k"), validation_size=0)
    questions = [question for split in gsm8k.load_questions(settings).values() for question in split]
    wrong = [sentence for question in questions for sentence in gsm8k.wrong_steps(question, question.reference)]
    assert sum(len(gsm8k.equations(question.reference)) for question in questions) == 27_998
    assert wrong == ["The equation 560//10=56 does not hold.", "The equation 180//3=60 does not hold."]


def test_published_solutions_have_wrong_steps_where_they_are_wrong(published_data: Path) -> None:
    """Of 1,319 solutions of a model, 458 are right: three in four of them have no wrong step, the others one.

    All wrong ones have one, and 3.36 on average.
    """
    rows = {row["question"]: row for row in _published_rows(published_data, "test")}
    counts: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    with gzip.open(published_data / "gsm8k" / "example_model_solutions.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            reference = rows[line["question"]]["answer"]
            answer = gsm8k.extract_answer(reference)
            assert answer is not None
            question = replace(CLIPS, reference=reference, answer=answer)
            solution = line["175b_finetuning"]
            # Their answers come after "A:", a line's own marker.
            response = solution["solution"].replace("\nA:", "\n####")
            counts[solution["is_correct"]][len(gsm8k.wrong_steps(question, response))] += 1
    assert counts[True] == {0: 353, 1: 105}
    assert counts[False].total() == 861 and counts[False][0] == 0
    assert sum(n * count for n, count in counts[False].items()) / 861 == pytest.approx(3.36, abs=0.01)
