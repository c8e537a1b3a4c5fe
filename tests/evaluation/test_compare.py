"""The comparison of two variants over two seeds, every number by hand."""

import math
from collections.abc import Hashable
from typing import Any

import pandas as pd
import pytest

from aft.errors import DataError, SettingsError
from aft.evaluation import statistics
from aft.evaluation.compare import Results, comparison_table, greedy_correctness, paired_differences

# Right or wrong by question (four kinds of question, ten of each) and seed. Over both seeds, aft is right 1, 1, 0.5
# and 1 times on them, vft 1, 0, 0.5 and 0.5 times; so the differences are 0, 1, 0 and 0.5, their mean 0.375.
VFT = {0: [1, 0, 0, 1], 1: [1, 0, 1, 0]}
AFT = {0: [1, 1, 0, 1], 1: [1, 1, 1, 1]}
LEVEL: dict[str, Any] = {"level": 0.95, "resamples": 4000}


def table(kinds, name="{kind}-{i}"):
    """Greedy predictions, and of each question two samples, the first of which is right if the greedy answer is.

    A right answer scores -1, a wrong one -2.
    """
    rows = [
        (name.format(kind=kind, i=i), sample, "1" if right else "0", right, -1.0 if right else -2.0)
        for kind, is_right in enumerate(kinds)
        for i in range(10)
        for sample, right in ((-1, bool(is_right)), (0, bool(is_right)), (1, False))
    ]
    return pd.DataFrame(rows, columns=["question_id", "sample_index", "extracted_answer", "is_correct", "score"])


def tables(by_seed):
    return {seed: table(kinds) for seed, kinds in by_seed.items()}


def groups(*scores):
    """One held-out group: the positive scores 0, the negatives as given."""
    rows = [("q", True, 0.0), *(("q", False, score) for score in scores)]
    return pd.DataFrame(rows, columns=["question_id", "is_correct", "score"])


PREDICTIONS = {"vft": tables(VFT), "aft": tables(AFT)}
# Assessment accuracy of one pair of two, or of both: .5 and 1 for vft, 1 and 1 for aft.
GROUPS = {
    "vft": {0: groups(1.0, -1.0), 1: groups(-1.0, -1.0)},
    "aft": {0: groups(-1.0, -2.0), 1: groups(-1.0, -2.0)},
}


def compare(predictions=None, groups_of=None, ks=(1, 2), others=None) -> dict[str, dict[Hashable, Any]]:
    """The rows of the comparison with vft, by variant."""
    chosen = predictions or PREDICTIONS
    held_out, other_sets = groups_of or GROUPS, others or {}
    results = {name: Results(own, held_out[name], other_sets.get(name, {})) for name, own in chosen.items()}
    rows = comparison_table(results, list(ks), "vft", **LEVEL)
    return {str(row["variant"]): row for row in rows.to_dict("records")}


def column(rows: dict[str, dict[Hashable, Any]], name: str) -> dict[str, Any]:
    """One figure of each variant."""
    return {variant: row[name] for variant, row in rows.items()}


def test_accuracy_is_the_mean_over_seeds_with_its_deviation():
    """vft: 20 and 20 of 40; aft: 30 and 40 of 40: mean 7/8, and √(2 · (1/8)²) = .1768 with divisor n - 1."""
    rows = compare()
    assert column(rows, "accuracy") == {"vft": 0.5, "aft": 0.875}
    assert column(rows, "std_over_seeds") == pytest.approx({"vft": 0.0, "aft": math.sqrt(2) / 8})
    assert column(rows, "per_seed") == {"vft": "0.5000 0.5000", "aft": "0.7500 1.0000"}
    assert column(rows, "questions") == {"vft": 40, "aft": 40}
    assert column(rows, "seeds") == {"vft": "0 1", "aft": "0 1"}


def test_the_interval_over_seeds_is_of_seeds_and_questions():
    """Of aft, one seed has .75, the other 1. Each alone fills a quarter of the replicates: the lowest tenth of those of
    the first, 2.5 % of all, ends at .75 - 1.28 · √(.1875 / 40) = .662.
    """
    row = compare()["aft"]
    right = [[1.0] * 20 + [0.0] * 10 + [1.0] * 10, [1.0] * 40]
    assert (row["accuracy"], row["low"], row["high"]) == statistics.two_level_bootstrap(right, **LEVEL)
    assert row["low"] == pytest.approx(0.662, abs=0.03)
    assert row["high"] == 1.0


def test_a_difference_that_seeds_disagree_on_is_not_certain():
    """dc wins ten questions of 40 under one seed and loses ten under the other: 0, and beyond -.25 and +.25.

    Of the questions' means over seeds half are ±.5: that alone would give ± 1.96 · √(.125 / 40) = .11.
    """
    dc = tables({0: [1, 1, 0, 1], 1: [1, 0, 0, 0]})
    (row,) = paired_differences({"vft": tables(VFT), "dc": dc}, **LEVEL).to_dict("records")
    assert row["difference"] == 0
    assert row["difference_low"] < -0.25 and row["difference_high"] > 0.25


def test_the_interval_of_one_seed_is_wilsons():
    """20 of 40: .5 ± (z √(.25/40 + z²/6400)) / (1 + z²/40) = .5 ± .1480 with z = 1.96."""
    one = {variant: {0: seeds[0]} for variant, seeds in PREDICTIONS.items()}
    row = compare(one)["vft"]
    assert (row["low"], row["high"]) == pytest.approx((0.3520, 0.6480), abs=1e-4)
    assert math.isnan(row["std_over_seeds"])


def test_the_difference_is_paired_by_question_and_seed():
    """Mean .375, of .25 and .5 under the two seeds. Each alone fills a quarter of the replicates, so the ends are those
    of a tenth of their own: .25 - 1.28 · √(.1875 / 40) = .162 and .5 + 1.28 · √(.25 / 40) = .601.

    McNemar: on seed 0 aft alone is right on ten questions, on seed 1 on twenty, vft alone never: p = 2 · 2^-10 and
    2 · 2^-20.
    """
    row = compare()["aft"]
    assert row["difference"] == pytest.approx(0.375)
    assert row["difference_low"] == pytest.approx(0.162, abs=0.03)
    assert row["difference_high"] == pytest.approx(0.601, abs=0.03)
    assert row["mcnemar_p"] == "0.002 1.9e-06"
    assert row["shared_seeds"] == "0 1"


def test_the_baseline_does_not_differ_from_itself():
    row = compare()["vft"]
    assert (row["difference"], row["difference_low"], row["difference_high"]) == (0, 0, 0)
    assert row["mcnemar_p"] == "1 1"


def test_a_constant_difference_has_no_width():
    """Always right against always wrong, question by question: +1, whatever is drawn."""
    ours, theirs = {0: table([1, 1])}, {0: table([0, 0])}
    (row,) = paired_differences({"vft": theirs, "aft": ours}, **LEVEL).to_dict("records")
    assert (row["difference"], row["difference_low"], row["difference_high"]) == (1, 1, 1)


def test_every_other_figure_is_a_mean_over_seeds():
    """Of the sample pairs, the first is right on half of vft's questions: maj@1 .25, pass@2 .5; of aft .4375, .875.

    Assessment accuracy: (.5 + 1) / 2 for vft, by micro and macro alike. Right samples always score highest: best-of-2
    is pass@2, AUROC 1. Calibration: right ones have confidence 1/e, wrong ones 1/e²; of the samples .25 (vft, on both
    seeds) and .375 and .5 (aft) are right: means over seeds of |1 - 1/e| of those and 1/e² of the others.
    """
    rows = compare()
    assert column(rows, "pass_at_2") == pytest.approx({"vft": 0.5, "aft": 0.875})
    assert column(rows, "maj_at_1") == pytest.approx({"vft": 0.25, "aft": 0.4375})
    assert column(rows, "mean_at_2") == column(rows, "maj_at_1")
    assert rows["aft"]["mean_at_2_low"] < rows["aft"]["mean_at_2"] < rows["aft"]["mean_at_2_high"]
    assert column(rows, "best_of_2") == column(rows, "pass_at_2")
    assert column(rows, "best_of_1") == column(rows, "maj_at_1")
    assert column(rows, "auroc") == {"vft": 1, "aft": 1}
    shares = {"vft": 0.25, "aft": 0.4375}
    errors = {variant: right * (1 - math.exp(-1)) + (1 - right) * math.exp(-2) for variant, right in shares.items()}
    assert column(rows, "calibration_error") == pytest.approx(errors)
    assert column(rows, "assessment_accuracy") == pytest.approx({"vft": 0.75, "aft": 1.0})
    assert column(rows, "assessment_accuracy_micro") == pytest.approx({"vft": 0.75, "aft": 1.0})
    assert not [
        name
        for name in rows["aft"]
        if str(name).startswith(("accuracy_", "assessment_accuracy_l", "assessment_accuracy_h"))
    ]


def test_the_interval_of_assessment_accuracy_is_over_seeds_and_questions():
    """Under vft q has .5 and 1 by seed, p has 1 under both: of q alone and the first seed .5, of p alone 1."""
    other = pd.DataFrame([("p", True, 0.0), ("p", False, -1.0)], columns=["question_id", "is_correct", "score"])
    of_vft = {seed: pd.concat([rows, other], ignore_index=True) for seed, rows in GROUPS["vft"].items()}
    rows = compare(groups_of={**GROUPS, "vft": of_vft})
    assert (rows["vft"]["assessment_low"], rows["vft"]["assessment_high"]) == (0.5, 1.0)
    assert (rows["aft"]["assessment_low"], rows["aft"]["assessment_high"]) == (1.0, 1.0)


def test_assessment_accuracy_and_its_interval_are_over_the_same_questions():
    """Nine questions have a pair under seed 0 only (all lost), one under seed 1 only (won): by seed 0 and 1, so 1/2.

    Over questions it would be 1/10, with an interval that leaves out 1/2.
    """
    lost = pd.concat([groups(1.0).assign(question_id=f"lost {i}") for i in range(9)], ignore_index=True)
    row = compare(groups_of={**GROUPS, "aft": {0: lost, 1: groups(-1.0)}})["aft"]
    assert (row["assessment_accuracy"], row["assessment_low"], row["assessment_high"]) == (0.5, 0.0, 1.0)


def test_a_seed_without_a_pair_has_no_part_in_assessment_accuracy():
    row = compare(groups_of={**GROUPS, "aft": {0: groups(), 1: groups(-1.0)}})["aft"]
    assert (row["assessment_accuracy"], row["assessment_low"], row["assessment_high"]) == (1.0, 1.0, 1.0)


def test_groups_without_a_pair_have_no_assessment_interval():
    one_kind = {0: groups(), 1: groups()}
    row = compare(groups_of={**GROUPS, "aft": one_kind})["aft"]
    assert all(math.isnan(row[f"assessment_{name}"]) for name in ("accuracy", "low", "high"))
    assert row["accuracy"] == 0.875


def test_all_pairs_of_variants_are_compared():
    """Later minus earlier: aft - vft, dc - vft, dc - aft; the last is vft's difference with its sign turned."""
    predictions = {**PREDICTIONS, "dc": tables(VFT)}
    rows = paired_differences(predictions, **LEVEL)
    pairs = {(row["variant"], row["other"]): row["difference"] for row in rows.to_dict("records")}
    assert pairs == pytest.approx({("aft", "vft"): 0.375, ("dc", "vft"): 0.0, ("dc", "aft"): -0.375})


def test_a_variant_that_lacks_a_seed_is_compared_on_the_shared_ones():
    """On seed 1 aft alone is right on kinds 2 and 4: 20 of 40, with √(.25 / 40) · 1.96 = .155 on either side.

    The accuracy of each is that of its own seeds.
    """
    only = {1: table(AFT[1])}
    rows = compare({"vft": tables(VFT), "aft": only}, {**GROUPS, "aft": {1: GROUPS["aft"][1]}})
    row = rows["aft"]
    assert (row["difference"], row["shared_seeds"], row["mcnemar_p"]) == (0.5, "1", "1.9e-06")
    assert (row["seeds"], row["accuracy"]) == ("1", 1.0)
    assert row["difference_high"] - row["difference_low"] == pytest.approx(2 * 0.155, abs=0.03)
    assert rows["vft"]["accuracy"] == 0.5


def test_variants_without_a_shared_seed_are_refused():
    with pytest.raises(DataError, match="no seed in common"):
        paired_differences({"vft": {0: table([1])}, "aft": {1: table([1])}}, **LEVEL)


def test_seeds_with_other_questions_are_refused():
    renamed = table(VFT[1], name="other {kind}-{i}")
    for other in (table([1, 0, 1]), renamed):
        with pytest.raises(DataError, match="The seeds were evaluated on different test questions"):
            greedy_correctness({0: table(VFT[0]), 1: other})


def test_variants_with_other_questions_are_refused():
    renamed = {0: table(AFT[0], name="other {kind}-{i}")}
    with pytest.raises(DataError, match="Two variants were evaluated on different test questions"):
        paired_differences({"vft": {0: table(VFT[0])}, "aft": renamed}, **LEVEL)


def test_pairing_is_by_id_not_by_place():
    """The rows of one variant upside down: nothing changes."""
    upside_down = {seed: rows.iloc[::-1].reset_index(drop=True) for seed, rows in PREDICTIONS["aft"].items()}
    turned, straight = compare({**PREDICTIONS, "aft": upside_down}, ks=()), compare(ks=())
    assert turned.keys() == straight.keys()
    for variant, row in straight.items():
        assert turned[variant] == pytest.approx(row, nan_ok=True)


def in_sets(**kinds):
    """Greedy predictions for several other question sets."""
    tables = [table(right, name=f"{name} {{kind}}-{{i}}").assign(set=name) for name, right in kinds.items()]
    return pd.concat(tables, ignore_index=True)


OTHERS = {
    "vft": {0: in_sets(validation=[1, 0], ood=[0]), 1: in_sets(validation=[1, 0], ood=[0])},
    "aft": {0: in_sets(validation=[1, 1], ood=[0]), 1: in_sets(validation=[1, 0], ood=[1])},
}


def test_other_sets_have_accuracies_intervals_and_paired_differences():
    """Validation: vft 1/2 and 1/2, aft 1 and 1/2, so +.5 under one seed and 0 under the other. The other set: aft is
    right on all ten on one seed of two: anything from 0 to 1.
    """
    rows = compare(others=OTHERS)
    assert column(rows, "accuracy_validation") == {"vft": 0.5, "aft": 0.75}
    assert column(rows, "accuracy_ood") == {"vft": 0.0, "aft": 0.5}
    aft = rows["aft"]
    validation = statistics.two_level_bootstrap([[1.0] * 20, [1.0] * 10 + [0.0] * 10], **LEVEL)
    assert (aft["accuracy_validation"], aft["validation_low"], aft["validation_high"]) == validation
    assert (aft["validation_difference"], aft["validation_difference_low"]) == (0.25, 0)
    assert aft["validation_difference_high"] == pytest.approx(0.5 + 1.28 * math.sqrt(0.25 / 20), abs=0.06)
    assert [aft[f"ood_{end}"] for end in ("low", "high", "difference_low", "difference_high")] == [0, 1, 0, 1]
    assert rows["vft"]["validation_difference"] == rows["vft"]["ood_difference"] == 0


def test_other_sets_change_nothing_else():
    plain, with_sets = compare(), compare(others=OTHERS)
    for variant, row in plain.items():
        assert {name: with_sets[variant][name] for name in row} == pytest.approx(row, nan_ok=True)


def test_tables_without_other_sets_are_as_none():
    empty = {variant: {seed: in_sets(ood=[1])[:0] for seed in (0, 1)} for variant in PREDICTIONS}
    assert compare(others=empty).keys() == compare().keys()
    assert compare(others=empty)["aft"].keys() == compare()["aft"].keys()


def test_other_sets_must_be_the_same_for_all():
    """A variant without any, one that lacks a seed, one that lacks a set, one with other questions in a set."""
    lacks_a_set = {seed: rows[rows["set"] == "ood"] for seed, rows in OTHERS["aft"].items()}
    for aft in ({}, {0: OTHERS["aft"][0]}, lacks_a_set):
        with pytest.raises(DataError, match="aft was not evaluated on the same other question sets"):
            compare(others={"vft": OTHERS["vft"], "aft": aft})
    with pytest.raises(DataError, match="aft was not evaluated"):
        compare(others={"vft": OTHERS["vft"]})
    renamed = {seed: rows.assign(question_id="other " + rows["question_id"]) for seed, rows in OTHERS["aft"].items()}
    with pytest.raises(DataError, match="different test questions"):
        compare(others={"vft": OTHERS["vft"], "aft": renamed})


@pytest.mark.parametrize("name", ["assessment", "low"])
def test_a_set_whose_columns_are_taken_is_refused(name):
    """There is an assessment_low, and an accuracy_low of each seed."""
    others = {variant: {seed: in_sets(**{name: [1]}) for seed in (0, 1)} for variant in PREDICTIONS}
    with pytest.raises(SettingsError, match=f"cannot be called '{name}'"):
        compare(others=others)
