"""Two questions, two seeds, all by hand.

| question | vft seed 0 | vft seed 1 | aft seed 0 | aft seed 1 |
|---|---|---|---|---|
| a | wrong | wrong | right | right |
| b | wrong | right | right | right |

aft - vft is 1 but for question b under seed 1: .75. That question under that seed alone is 1/4 · 1/4 of all resamples
and makes 0: no verdict. rft has all wrong: aft is above it by 1 in every resample.
"""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from aft.errors import SettingsError
from aft.pipelines.parameters import Evaluation
from aft.sampling.settings import SamplingSettings
from aft.studies.definition import Ordering, Study
from aft.studies.results import Key, Trained, study_table, verdicts

EVALUATION = Evaluation(sampling=SamplingSettings(samples=1, greedy=True), ks=[1], resamples=200)


def _results(a: list[int], b: list[int], scores: tuple[float, float] = (-0.5, -1.0)) -> Trained:
    """Whether questions a and b are right under each seed; the scores of a right and a wrong held-out response."""

    def answers(seed: int) -> pd.DataFrame:
        rows = [
            {"question_id": question, "sample_index": index, "response": "", "score": -1.0}
            | {"extracted_answer": str(right[seed]), "is_correct": bool(right[seed])}
            for question, right in (("a", a), ("b", b))
            for index in (-1, 0)
        ]
        return pd.DataFrame(rows)

    def groups() -> pd.DataFrame:
        rows = [
            {"question_id": question, "sample_index": i, "is_correct": i == 0, "score": score}
            for question in "ab"
            for i, score in enumerate(scores)
        ]
        return pd.DataFrame(rows)

    seeds = range(len(a))
    validation = {seed: answers(seed).query("sample_index < 0").assign(set="validation") for seed in seeds}
    return Trained({seed: answers(seed) for seed in seeds}, {seed: groups() for seed in seeds}, validation)


RESULTS = {
    (None, "vft"): _results([0, 0], [0, 1], (-1.0, -0.5)),
    (None, "rft"): _results([0, 0], [0, 0]),
    (0.1, "aft"): _results([1, 1], [1, 1]),
    (0.2, "aft"): _results([0, 0], [0, 1]),
}


def _study(*orderings: Ordering) -> Study:
    return Study(title="T", question="Q", variants=["vft", "aft"], seeds=[0, 1], orderings=list(orderings))


def _verdict(ordering: Ordering, results: dict[Key, Trained] = RESULTS) -> pd.Series:
    return verdicts(_study(ordering), results, EVALUATION).iloc[0]


def test_a_claim_that_holds_in_every_question_and_seed() -> None:
    row = _verdict(Ordering("aft above rft", above="aft@0.1", below="rft"))
    assert row["difference"] == 1
    assert (row["verdict"], row["seeds_agreeing"], row["seeds"], row["level"]) == ("agrees", 2, 2, 0.95)


def test_the_opposite_claim_is_contradicted() -> None:
    row = _verdict(Ordering("rft above aft", above="rft", below="aft@0.1"))
    assert (row["difference"], row["verdict"], row["seeds_agreeing"]) == (-1, "contradicts", 0)


def test_what_some_question_under_some_seed_lacks_is_not_separable() -> None:
    row = _verdict(Ordering("aft above vft", above="aft@0.1", below="vft"))
    assert (row["difference"], row["low"], row["verdict"], row["seeds_agreeing"]) == (0.75, 0, "not separable", 2)


def test_seeds_that_disagree_decide_nothing_however_sure_the_questions_are() -> None:
    """-1, -1 and +1 under three seeds, whatever the question: -1/3, and each seed alone is 1/27 of the resamples."""
    results = {(None, "vft"): _results([1, 1, 0], [1, 1, 0]), (None, "aft"): _results([0, 0, 1], [0, 0, 1])}
    row = _verdict(Ordering("aft above vft", above="aft", below="vft"), results)
    assert row["difference"] == pytest.approx(-1 / 3)
    assert (row["low"], row["high"], row["verdict"]) == (-1, 1, "not separable")
    assert (row["seeds_agreeing"], row["seeds"]) == (1, 3)


@pytest.mark.parametrize(("above", "below"), [("aft", "vft"), ("vft", "aft")])
def test_one_seed_neither_agrees_nor_contradicts(above: str, below: str) -> None:
    results = {(None, "vft"): _results([0], [0]), (None, "aft"): _results([1], [1])}
    row = _verdict(Ordering("one is above", above=above, below=below), results)
    assert abs(row["difference"]) == 1
    assert row["verdict"] == "one seed"


def test_a_seed_that_has_no_value_does_not_count() -> None:
    """The second seed's groups have right responses only: assessment accuracy is of one seed."""
    both = [_results([1, 1], [1, 1], scores) for scores in ((-0.5, -1.0), (-1.0, -0.5))]
    for one in both:
        one.groups[1] = one.groups[1].query("is_correct")
    claim = Ordering("assesses", above="aft", below="vft", metric="assessment_accuracy")
    row = _verdict(claim, {(None, "aft"): both[0], (None, "vft"): both[1]})
    assert (row["difference"], row["seeds"], row["verdict"]) == (1, 1, "one seed")


def test_a_claim_about_what_no_question_has_is_no_failure() -> None:
    """No question has a wrong response: nothing can be assessed, and the study's other claims are still told."""
    right = [_results([1, 1], [1, 1]) for _ in range(2)]
    for one in right:
        one.groups.update({seed: rows.query("is_correct") for seed, rows in one.groups.items()})
    claims = [Ordering("c", above="aft", below="vft", metric=name) for name in ("assessment_accuracy", "accuracy")]
    told = verdicts(_study(*claims), {(None, "aft"): right[0], (None, "vft"): right[1]}, EVALUATION)
    assert told["verdict"].tolist() == ["nothing to compare", "not separable"]
    assert told["difference"].isna().tolist() == [True, False] and told["seeds"].tolist() == [0, 2]


def test_equal_results_are_not_separable() -> None:
    row = _verdict(Ordering("same", above="aft@0.2", below="vft", metric="validation"))
    assert (row["difference"], row["verdict"]) == (0, "not separable")


def test_assessment_accuracy_and_perplexity_are_compared_by_question() -> None:
    """aft scores right -.5 above wrong -1 (1), vft the other way round (0); e^.5 against e^1 for the positives."""
    assessed = _verdict(Ordering("assesses", above="aft@0.1", below="vft", metric="assessment_accuracy"))
    perplexity = _verdict(Ordering("unsure", above="vft", below="aft@0.1", metric="perplexity_of_positives"))
    assert assessed["difference"] == 1
    assert perplexity["difference"] == pytest.approx(math.e - math.exp(0.5))


def test_samples_are_compared_by_question() -> None:
    """Each has one sample, right where the greedy answer is: as under accuracy, .75; rft has none right."""
    assert _verdict(Ordering("samples", above="aft@0.1", below="vft", metric="mean_at_1"))["difference"] == 0.75
    assert _verdict(Ordering("samples", above="aft@0.1", below="rft", metric="mean_at_1"))["verdict"] == "agrees"


def test_an_ordering_must_name_one_result() -> None:
    with pytest.raises(SettingsError, match=r"vft, rft, aft@0\.1, aft@0\.2"):
        _verdict(Ordering("which aft?", above="aft", below="vft"))


def test_the_table_has_a_row_per_point_with_its_difference_to_vft(tmp_path: Path) -> None:
    """When it is made again, too, of rows that were kept."""
    table = study_table(RESULTS, EVALUATION, tmp_path)
    pd.testing.assert_frame_equal(study_table(RESULTS, EVALUATION, tmp_path), table)
    table = table.set_index(["value", "variant"])
    assert table["accuracy"].tolist() == [0.25, 0.0, 1.0, 0.25]
    assert table["difference"].tolist() == [0, -0.25, 0.75, 0]
    assert table["accuracy_validation"].tolist() == [0.25, 0.0, 1.0, 0.25]


def test_other_results_have_other_rows_in_the_same_cache(tmp_path: Path) -> None:
    study_table(RESULTS, EVALUATION, tmp_path)
    other = {(None, "vft"): RESULTS[None, "vft"], (0.1, "aft"): RESULTS[0.2, "aft"]}
    assert study_table(other, EVALUATION, tmp_path)["accuracy"].tolist() == [0.25, 0.25]


def test_the_table_tells_what_training_took(tmp_path: Path) -> None:
    """As means over seeds: 10 tokens in 2 s and 20 in 1 s, and under the other seed twice that."""
    curve = pd.DataFrame({"step": [1, 2], "tokens": [10.0, 20.0], "tokens_per_s": [5.0, 20.0]})
    own = replace(RESULTS[None, "vft"], curves={0: curve, 1: pd.concat([curve, curve])})
    row = study_table({(None, "vft"): own}, EVALUATION, tmp_path).iloc[0]
    assert [row[f"training_{name}"] for name in ("steps", "tokens", "seconds")] == [3, 45, 4.5]
