"""Two questions, two seeds, all by hand.

| question | vft seed 0 | vft seed 1 | aft seed 0 | aft seed 1 |
|---|---|---|---|---|
| a | wrong | wrong | right | right |
| b | wrong | right | right | right |

The mean over seeds of aft - vft is 1 for a and 1/2 for b: .75 in all, above 0 in every resample of questions.
"""

import math

import pandas as pd
import pytest

from aft.errors import SettingsError
from aft.pipelines.parameters import Evaluation, Sampling
from aft.studies.definition import Ordering, Study
from aft.studies.results import Results, study_table, verdicts

EVALUATION = Evaluation(sampling=Sampling(samples=1, greedy=True), ks=[1], resamples=200)


def _results(a: list[int], b: list[int], scores: tuple[float, float] = (-0.5, -1.0)) -> Results:
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
    return Results({seed: answers(seed) for seed in seeds}, {seed: groups() for seed in seeds}, validation)


RESULTS = {
    (None, "vft"): _results([0, 0], [0, 1], (-1.0, -0.5)),
    (0.1, "aft"): _results([1, 1], [1, 1]),
    (0.2, "aft"): _results([0, 0], [0, 1]),
}


def _study(*orderings: Ordering) -> Study:
    return Study(title="T", question="Q", variants=["vft", "aft"], seeds=[0, 1], orderings=list(orderings))


def _verdict(ordering: Ordering) -> pd.Series:
    return verdicts(_study(ordering), RESULTS, EVALUATION).iloc[0]


def test_a_claim_that_holds_in_every_question() -> None:
    row = _verdict(Ordering("aft above vft", above="aft@0.1", below="vft"))
    assert row["difference"] == 0.75
    assert (row["verdict"], row["seeds_agreeing"], row["seeds"]) == ("agrees", 2, 2)


def test_the_opposite_claim_is_contradicted() -> None:
    row = _verdict(Ordering("vft above aft", above="vft", below="aft@0.1"))
    assert (row["difference"], row["verdict"], row["seeds_agreeing"]) == (-0.75, "contradicts", 0)


def test_equal_results_are_not_separable() -> None:
    row = _verdict(Ordering("same", above="aft@0.2", below="vft", metric="validation"))
    assert (row["difference"], row["verdict"]) == (0, "not separable")


def test_assessment_accuracy_and_perplexity_are_compared_by_question() -> None:
    """aft scores right -.5 above wrong -1 (1), vft the other way round (0); e^.5 against e^1 for the positives."""
    assessed = _verdict(Ordering("assesses", above="aft@0.1", below="vft", metric="assessment_accuracy"))
    perplexity = _verdict(Ordering("unsure", above="vft", below="aft@0.1", metric="perplexity_of_positives"))
    assert assessed["difference"] == 1
    assert perplexity["difference"] == pytest.approx(math.e - math.exp(0.5))


def test_an_ordering_must_name_one_result() -> None:
    with pytest.raises(SettingsError, match=r"vft, aft@0\.1, aft@0\.2"):
        _verdict(Ordering("which aft?", above="aft", below="vft"))


def test_the_table_has_a_row_per_point_with_its_difference_to_vft() -> None:
    table = study_table(RESULTS, EVALUATION).set_index(["value", "variant"])
    assert table["accuracy"].tolist() == [0.25, 1.0, 0.25]
    assert table["difference"].tolist() == [0, 0.75, 0]
    assert table["accuracy_validation"].tolist() == [0.25, 1.0, 0.25]
