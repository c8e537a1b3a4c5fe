"""The sets that are only evaluated on: rows as published and as on the hub, errors with their place, whole sets."""

import gzip
import json
import sys
import types
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from aft.errors import DataError, SettingsError
from aft.pipelines.ingest.nodes import load_questions as ingest
from aft.pipelines.parameters import TaskChoice
from aft.tasks import Question, ecqa, get_source, get_task, gsm8k
from aft.tasks.base import SPLITS

TEXTS = ["bank", "library", "store", "mall", "new york"]


def _mmlu(question: object, answer: object = "B", choices: object = ("0", "4", "2", "6")) -> dict[str, object]:
    return {"subject": "algebra", "question": question, "choices": choices, "answer": answer}


def _commonsenseqa(stem: object, answer: object = "A", labels: str = "ABCDE") -> dict[str, object]:
    choices = [{"label": label, "text": text} for label, text in zip(labels, TEXTS, strict=False)]
    return {"answerKey": answer, "id": "x", "question": {"stem": stem, "question_concept": "door", "choices": choices}}


def _svamp(body: object, answer: object = 51.0) -> dict[str, object]:
    return {"ID": "chal-1", "Body": body, "Question": "How many? ", "Equation": "( 76.0 - 25.0 )", "Answer": answer}


def _gsm_hard(question: object, answer: object = -9867630.0) -> dict[str, object]:
    return {"question": question, "answer": answer}


def _mawps(question: object, solutions: object = ("43",)) -> dict[str, object]:
    return {"iIndex": 1, "lEquations": ["X = 70 - 27"], "lSolutions": solutions, "sQuestion": question}


FILES = {
    "mmlu": "test.jsonl",
    "commonsenseqa": "dev_rand_split.jsonl",
    "svamp": "SVAMP.json",
    "gsm_hard": "test.jsonl",
    "mawps": "AddSub.json",
}
ROWS: dict[str, Callable[..., dict[str, object]]] = {
    "mmlu": _mmlu,
    "commonsenseqa": _commonsenseqa,
    "svamp": _svamp,
    "gsm_hard": _gsm_hard,
    "mawps": _mawps,
}
every_family = pytest.mark.parametrize("family", FILES)


def _publish(folder: Path, name: str, rows: Sequence[object]) -> None:
    """Write rows, or lines that are text already, as a published file."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    text = "".join(f"{line}\n" for line in lines) if name.endswith(".jsonl") else f"[{', '.join(lines)}]"
    (folder / name).write_text(text, encoding="utf-8")


def _settings(family: str, path: Path | None, **more: Any) -> Any:
    sets = {"sets": ("AddSub",)} if family == "mawps" else {}
    return get_source(family).Settings(**{"path": path and str(path), **sets, **more})


def _asked(family: str, path: Path | None, **more: Any) -> list[Question]:
    return get_source(family).load_questions(_settings(family, path, **more))["test"]


@pytest.mark.parametrize(
    ("family", "row", "question_id", "asked", "choices", "answer"),
    [
        ("mmlu", _mmlu("What?"), "mmlu/test/00000", "What?", ("0", "4", "2", "6"), "B"),
        ("mmlu", _mmlu("What?", 3), "mmlu/test/00000", "What?", ("0", "4", "2", "6"), "D"),  # an index
        ("commonsenseqa", _commonsenseqa("Where?", "E"), "commonsenseqa/dev/00000", "Where?", tuple(TEXTS), "E"),
        ("svamp", _svamp("A pack costs 76."), "svamp/test/00000", "A pack costs 76. How many?", None, "51"),
        ("svamp", _svamp("Dan had 3.", 1.5), "svamp/test/00000", "Dan had 3. How many?", None, "1.5"),
        ("gsm_hard", _gsm_hard("How many?"), "gsm_hard/test/00000", "How many?", None, "-9867630"),
        ("mawps", _mawps(" How many shells ? "), "mawps/AddSub/00000", "How many shells ?", None, "43"),
    ],
)
def test_a_row_becomes_a_test_question(
    tmp_path: Path, family: str, row: object, question_id: str, asked: str, choices: object, answer: str
) -> None:
    """There is no reasoning to train on: the reference is the line of the answer, and other splits are empty."""
    _publish(tmp_path, FILES[family], [row])
    splits = get_source(family).load_questions(_settings(family, tmp_path))
    assert tuple(splits) == SPLITS
    assert [len(splits[split]) for split in SPLITS] == [0, 0, 1]
    (question,) = splits["test"]
    assert (question.question_id, question.dataset, question.split) == (question_id, family, "test")
    assert (question.question, question.choices) == (asked, choices)
    assert (question.reference, question.answer) == (f"#### {answer}", answer)


@every_family
def test_the_first_so_many_are_asked_each_once(tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of three rows the last repeats the first but for a space."""
    row = ROWS[family]
    _publish(tmp_path, FILES[family], [row("A pack costs 76."), row("Dan had 3."), row("A pack costs  76.")])
    first, second = _asked(family, tmp_path)
    assert [one.question_id.rpartition("/")[2] for one in (first, second)] == ["00000", "00001"]
    assert "Dropped 1 of the 3 " in caplog.text and "they are asked twice there" in caplog.text
    assert len(_asked(family, tmp_path, test_limit=1)) == 1
    if family != "mmlu":  # which draws
        assert _asked(family, tmp_path, test_limit=1) == [first]
    with pytest.raises(SettingsError, match="test_limit"):
        _settings(family, tmp_path, test_limit=-1)


def test_the_limit_of_mmlu_draws_by_seed(tmp_path: Path) -> None:
    _publish(tmp_path, "test.jsonl", [_mmlu(f"Question {number}?") for number in range(6)])
    drawn = {
        tuple(one.question_id for one in _asked("mmlu", tmp_path, test_limit=2, split_seed=seed)) for seed in range(9)
    }
    assert {len(ids) for ids in drawn} == {2}
    assert len(drawn) > 1


@every_family
def test_prompt_and_answer_are_those_of_gsm8k_or_of_options(tmp_path: Path, family: str) -> None:
    _publish(tmp_path, FILES[family], [ROWS[family]("What?")])
    task, (question,) = get_task(family), _asked(family, tmp_path)
    if question.choices is None:
        assert task.prompt(question) == gsm8k.prompt(question)
        assert task.extract_answer("76 - 25 = <<76-25=51>>51\n#### $51") == "51"
        assert task.extract_answer("The answer is 5/6.") is None
        assert task.extract_answer("The answer is 5/6.", strict=False) == "5/6"
    else:
        options = "".join(f"\n({letter}) {text}" for letter, text in zip("ABCDE", question.choices, strict=False))
        assert task.prompt(question).endswith(f"What?{options}\n\n### Response:\n")
        assert task.extract_answer("So it is 4.\n#### (B) 4") == "B"
        assert task.extract_answer("The answer is (B).") is None
        assert task.extract_answer("The answer is (B).", strict=False) == "B"


@pytest.mark.parametrize("family", ["gsm_hard", "mawps"])
def test_answers_that_are_floats_agree_to_thousandths(tmp_path: Path, family: str) -> None:
    answer = 14053029.666666666
    _publish(tmp_path, FILES[family], [ROWS[family]("What part ?", [answer] if family == "mawps" else answer)])
    task, (question,) = get_task(family), _asked(family, tmp_path)
    assert task.answers_equal("42159089/3", question.answer)  # 3 * 14053029 + 2 = 42159089
    assert task.answers_equal("14053029.667", question.answer)
    assert not task.answers_equal("14053029.67", question.answer)


def test_answers_of_svamp_are_exact() -> None:
    assert get_task("svamp").answers_equal("1.5", "3/2")
    assert not get_task("svamp").answers_equal("0.8333333333333334", "5/6")


MALFORMED = [
    ("mmlu", "{", "is not JSON"),
    ("mmlu", {"question": "What?"}, "lacks the field"),
    ("mmlu", _mmlu(""), "has no text in the field 'question'"),
    ("mmlu", _mmlu("What?", "E"), "has the answer 'E'"),
    ("mmlu", _mmlu("What?", 4), "has the answer 'E'"),
    ("mmlu", _mmlu("What?", -1), "has the answer -1"),
    ("mmlu", _mmlu("What?", True), "has the answer True"),
    ("mmlu", _mmlu("What?", choices="0426"), "has no list of 2 to 5 options"),
    ("commonsenseqa", "{", "is not JSON"),
    ("commonsenseqa", "[]", "is no object with fields"),
    ("commonsenseqa", {"question": {"stem": "Where?"}, "answerKey": "A"}, "lacks the field 'choices'"),
    ("commonsenseqa", {"question": {"stem": "Where?", "choices": "ABCDE"}, "answerKey": "A"}, "has no list of options"),
    (
        "commonsenseqa",
        {"question": {"stem": "Where?", "choices": list("ABCDE")}, "answerKey": "A"},
        "lacks the field 'label'",
    ),
    ("commonsenseqa", _commonsenseqa("Where?", labels="ABCD"), "has no options A, B, C, D, E, in this order"),
    ("commonsenseqa", _commonsenseqa("Where?", labels="ABCED"), "has no options A, B, C, D, E, in this order"),
    ("commonsenseqa", _commonsenseqa("Where?", answer="F"), "has the answer 'F'"),
    ("commonsenseqa", _commonsenseqa("Where?", answer=""), "has the answer ''"),  # as the published test set has it
    ("commonsenseqa", _commonsenseqa(3), "has no text in the field 'stem'"),
    ("commonsenseqa", {"question": "Where?", "choices": [], "answerKey": "A"}, "lacks the field 'label'"),
    (
        "commonsenseqa",
        {"question": "Where?", "choices": {"label": list("ABCDE"), "text": [*TEXTS, "sea"]}, "answerKey": "A"},
        "has no options A, B, C, D, E, in this order",
    ),
    ("commonsenseqa", {"question": 3, "choices": [], "answerKey": "A"}, "has no text in the field 'question'"),
    ("svamp", 3, "is no object with fields"),
    ("svamp", {"Body": "x", "Question": "y"}, "lacks the field 'Answer'"),
    ("svamp", _svamp(" "), "has no text in the field 'Body'"),
    ("svamp", _svamp("Dan had 3.", "two"), "has the answer 'two', which is no number"),
    ("svamp", _svamp("Dan had 3.", None), "has the answer 'None', which is no number"),
    ("gsm_hard", "{", "is not JSON"),
    ("gsm_hard", {"input": "How many?", "target": 3.0}, "lacks the field 'question'"),
    ("gsm_hard", {"question": "How many?"}, "lacks the field 'answer'"),
    ("gsm_hard", '{"question": "How many?", "answer": NaN}', "has the answer 'nan', which is no number"),
    ("mawps", [], "is no object with fields"),
    ("mawps", {"sQuestion": "How many?"}, "lacks the field 'lSolutions'"),
    ("mawps", _mawps(""), "has no text in the field 'sQuestion'"),
    ("mawps", _mawps("How many?", []), "has no list of one number"),
    ("mawps", _mawps("How many?", ["1", "2"]), "has no list of one number"),
    ("mawps", _mawps("How many?", 43), "has no list of one number"),
    ("mawps", _mawps("How many?", ["some"]), "has the answer 'some', which is no number"),
]


@pytest.mark.parametrize(("family", "row", "complaint"), MALFORMED)
def test_a_malformed_row_is_refused_with_its_place(tmp_path: Path, family: str, row: object, complaint: str) -> None:
    name = FILES[family]
    _publish(tmp_path, name, [ROWS[family]("What?"), row])
    place = f"{tmp_path / name}, {'line' if name.endswith('.jsonl') else 'row'} 2 "
    with pytest.raises(DataError) as caught:
        _asked(family, tmp_path)
    assert str(caught.value).startswith(place) and complaint in str(caught.value)


HUB = [  # (family, row of the hub, its question and answer, what is asked of the hub)
    (
        "mmlu",
        _mmlu("What?", 2, ["0", "4", "2", "6"]),
        ("What?", "C"),
        ("cais/mmlu", "all", ["test"], "c30699e8356da336a370243923dbaf21066bb9fe"),
    ),
    (
        "commonsenseqa",
        {"id": "x", "question": "Where?", "choices": {"label": list("ABCDE"), "text": TEXTS}, "answerKey": "E"},
        ("Where?", "E"),
        ("tau/commonsense_qa", None, ["validation"], "94630fe30dad47192a8546eb75f094926d47e155"),
    ),
    (
        "svamp",
        _svamp("Dan had 3.", "145.0"),
        ("Dan had 3. How many?", "145"),
        ("ChilleD/SVAMP", None, ["train", "test"], "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef"),
    ),
    (
        "gsm_hard",
        {"input": "How many?", "code": "def solution(): return 3", "target": 3.0},
        ("How many?", "3"),
        ("reasoning-machines/gsm-hard", None, ["train"], "960448f73503112d4226baeb8eb41d3fb5ae2506"),
    ),
]


@pytest.mark.parametrize(("family", "row", "read", "wanted"), HUB, ids=[case[0] for case in HUB])
def test_without_a_path_the_pinned_data_set_of_the_hub_is_read(
    monkeypatch: pytest.MonkeyPatch, family: str, row: object, read: tuple[str, str], wanted: tuple[Any, ...]
) -> None:
    """Each of its splits, one after the other: a second one goes on with the numbers."""
    asked = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str) -> list[object]:
        asked.append((name, config, split, revision))
        return [row]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    (question,) = _asked(family, None)
    assert (question.question, question.answer) == read
    dataset, config, splits, revision = wanted
    assert asked == [(dataset, config, split, revision) for split in splits]


def test_the_parts_of_svamp_on_the_hub_are_one_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, split: str, **__: object) -> list[object]:
        return [_svamp(f"From {split}.")]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    ids = {question.question_id: question.question for question in _asked("svamp", None)}
    assert ids == {"svamp/test/00000": "From train. How many?", "svamp/test/00001": "From test. How many?"}


def test_sets_of_mawps_that_overlap_ask_each_question_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """MultiArith repeats a question of AddSub with other spaces, and the selection one of MultiArith."""
    _publish(tmp_path, "AddSub.json", [_mawps("Joan found 70 shells . How many ?")])
    _publish(tmp_path, "MultiArith.json", [_mawps("Joan found 70 shells. How many?"), _mawps("Debby had 32.")])
    selected = [{"question": "Debby had 32 .", "answer": 5.0}, {"question": "Bryan has 56 .", "answer": 504.0}]
    _publish(tmp_path, "mawps_1920.jsonl", selected)
    questions = _asked("mawps", tmp_path, sets=("AddSub", "MultiArith", "mawps_1920"))
    assert [(question.question_id, question.answer) for question in questions] == [
        ("mawps/AddSub/00000", "43"),
        ("mawps/MultiArith/00001", "43"),
        ("mawps/mawps_1920/00001", "504"),
    ]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "Dropped 1 of the 2 questions of MAWPS' MultiArith",
        "Dropped 1 of the 2 questions of MAWPS' mawps_1920",
    ]


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ((), "sets is empty; choose of AddSub, MultiArith, SingleEq, mawps_1920, at least one"),
        (("addsub",), r"sets\.0 is 'addsub': did you mean 'AddSub'\? It should be 'AddSub', 'MultiArith', "),
        (("AddSub", "all"), r"sets\.1 is 'all': it should be 'AddSub', 'MultiArith', 'SingleEq' or 'mawps_1920'"),
    ],
)
def test_sets_that_mawps_does_not_have_are_refused(tmp_path: Path, sets: tuple[str, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        _settings("mawps", tmp_path, sets=sets)


OWN = TaskChoice("pocket", {"train": 2, "validation": 3, "test": 2})


def test_a_set_can_be_one_of_a_recipe_s_test_sets_but_not_its_task(tmp_path: Path) -> None:
    _publish(tmp_path, "SVAMP.json", [_svamp("A pack costs 76."), _svamp("Dan had 3.")])
    choice = TaskChoice("svamp", {"path": str(tmp_path)})
    others = ingest(OWN, {"elsewhere": choice})[3]
    assert others["split"].tolist() == ["validation"] * 3 + ["elsewhere"] * 2
    assert others["answer"].tolist()[3:] == ["51", "51"]
    with pytest.raises(SettingsError, match="leave no question for train"):
        ingest(choice, {})


def test_mawps_is_on_no_hub_and_needs_a_path(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"mawps\.settings\.path is missing"):
        ingest(OWN, {"elsewhere": TaskChoice("mawps", {})})
    _publish(tmp_path, "AddSub.json", [_mawps("How many?")])
    choice = TaskChoice("mawps", {"path": str(tmp_path), "sets": ["AddSub"]})
    assert ingest(OWN, {"elsewhere": choice})[3]["split"].tolist() == ["validation"] * 3 + ["elsewhere"]


@pytest.mark.parametrize(
    ("family", "more", "count"),
    [
        ("mmlu", {}, 14_042 - 109),  # 109 rows ask a question again
        ("commonsenseqa", {}, 1221),
        ("svamp", {}, 1000),
        ("gsm_hard", {}, 1319),
        ("mawps", {"sets": ("AddSub", "MultiArith", "SingleEq")}, 1503 - 130),  # 20 and 110 were asked before
        ("mawps", {"sets": ("mawps_1920",)}, 1920 - 177),
    ],
)
def test_every_published_reference_gives_back_its_answer(
    published_data: Path, family: str, more: dict[str, Any], count: int
) -> None:
    task, questions = get_task(family), _asked(family, published_data / family, **more)
    assert len(questions) == count
    for question in questions:
        assert task.extract_answer(question.reference) == question.answer
        assert task.extract_answer(question.reference, strict=False) == question.answer


def test_the_published_questions_of_mmlu(published_data: Path) -> None:
    """The letters are about equally frequent, and a draw takes from all subjects, in their order."""
    questions = _asked("mmlu", published_data / "mmlu")
    letters = Counter(question.answer for question in questions)
    assert sorted(letters) == list("ABCD")
    assert all(0.22 < count / len(questions) < 0.28 for count in letters.values())
    limited = _asked("mmlu", published_data / "mmlu", test_limit=100)
    numbers = [int(question.question_id.rpartition("/")[2]) for question in limited]
    assert len(numbers) == 100 and numbers == sorted(numbers)
    assert numbers[0] < 1_400 and numbers[-1] > 12_600  # from the first tenth to the last


def test_beside_ecqa_all_but_eight_published_questions_of_commonsenseqa_are_known(published_data: Path) -> None:
    explained = ecqa.load_questions(ecqa.Settings(str(published_data / "ecqa")))
    known = {question.content_hash for split in SPLITS for question in explained[split]}
    questions = _asked("commonsenseqa", published_data / "commonsenseqa")
    assert sum(question.content_hash not in known for question in questions) == 8


def test_the_published_questions_of_svamp(published_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No question twice, and every answer is an integer."""
    rows = json.loads((published_data / "svamp" / "SVAMP.json").read_text("utf-8"))
    questions = _asked("svamp", published_data / "svamp")
    assert [int(question.answer) for question in questions] == [row["Answer"] for row in rows]
    assert caplog.records == []


def test_every_published_answer_of_gsm_hard_is_read_exactly(published_data: Path) -> None:
    """No question twice; a float's shortest decimal is what its answer states."""
    with gzip.open(published_data / "gsm_hard" / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        answers = [json.loads(line)["answer"] for line in lines]
    questions = _asked("gsm_hard", published_data / "gsm_hard")
    assert [Fraction(question.answer) for question in questions] == [Fraction(repr(answer)) for answer in answers]


def test_the_published_sets_of_mawps(published_data: Path) -> None:
    """395 + 600 + 508 rows; MultiArith repeats 20 of its own, and 110 of SingleEq are in AddSub."""
    questions = get_source("mawps").load_questions(get_source("mawps").Settings(str(published_data / "mawps")))["test"]
    counts = Counter(question.question_id.split("/")[1] for question in questions)
    assert counts == {"AddSub": 395, "MultiArith": 600 - 20, "SingleEq": 508 - 110}


def test_published_fractions_are_recognised(published_data: Path) -> None:
    """Every third, sixth, eighth or twelfth that a set has as a float agrees with the fraction that it stands for."""
    questions = _asked("mawps", published_data / "mawps", sets=("AddSub",))
    fractions = {question.answer for question in questions if len(question.answer) > 10}
    assert {"0.8333333333333334", "0.6666666666666666", "10.333333333333334"} <= fractions
    known = [f"{n}/{d}" for d in (3, 6, 9, 12) for n in range(1, 35)]
    equal = get_task("mawps").answers_equal
    assert all(any(equal(answer, fraction) for fraction in known) for answer in fractions)
