"""From questions and feedback to token ids: joined by id, nothing lost unsaid, nothing leaked."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from aft.errors import DataError
from aft.feedback.ratings import with_ratings
from aft.models.chat import Turn
from aft.models.tokens import encode_prompt, encode_response
from aft.tasks import get_task
from aft.tasks.base import spaceless_hash
from aft.training.examples import Example, Overview, build_examples, effective_objective, refuse_held_out
from aft.training.settings import Objective

VFT, RFT, AFT = Objective(), Objective(learn_positives=True), Objective(term="aft")
BEGIN, END = 0, 1
RIGHT, ALSO_RIGHT, WRONG = [4, 5, END], [4, 6, 7, END], [8, END]


@pytest.fixture
def build(pocket_tokenizer, pocket_questions):
    def build_from(feedback, objective, max_tokens=512, questions=None):
        return build_examples(questions or pocket_questions[:3], feedback, pocket_tokenizer, objective, max_tokens)

    return build_from


@pytest.fixture
def ids(pocket_questions):
    return [question.question_id for question in pocket_questions[:3]]


@pytest.fixture
def references(pocket_tokenizer, pocket_questions):
    return [encode_response(pocket_tokenizer, question.reference) for question in pocket_questions[:3]]


def row(question_id, token_ids, is_correct, rank=None):
    rank = (0 if is_correct else 1) if rank is None else rank
    return {"question_id": question_id, "token_ids": token_ids, "is_correct": is_correct, "rank": rank}


def test_vft_imitates_the_reference_of_each_question(build, ids, references):
    examples = build([], VFT)
    assert [example.question_id for example in examples] == ids
    assert [example.targets for example in examples] == [[reference] for reference in references]
    assert all(example.candidates == () == example.ranks for example in examples)
    assert build([row(ids[0], WRONG, False)], VFT) == examples, "feedback is nothing to plain maximum likelihood"


def test_a_sample_that_ends_with_another_end_of_the_models_is_whole(pocket_tokenizer, pocket_questions, ids):
    """Under rejection sampling; a model may end a response with any of several tokens."""
    other = [7, 8, 9]  # the model that drew it ends with 9
    feedback, objective = [row(ids[0], other, True)], Objective(learn_positives=True)
    cut = build_examples(pocket_questions[:1], feedback, pocket_tokenizer, objective, 512)
    whole = build_examples(pocket_questions[:1], feedback, pocket_tokenizer, objective, 512, {END, 9})
    assert (len(cut), [example.targets for example in whole].count([other])) == (1, 1)


def test_prompts_begin_and_responses_end(build, pocket_tokenizer, pocket_questions):
    """One opening token, before the prompt; one end token, after the reference; the texts come back between them."""
    for example, question in zip(build([], VFT), pocket_questions, strict=False):
        (target,) = example.targets
        assert example.prompt[0] == BEGIN and target[-1] == END
        inside = [*example.prompt[1:], *target[:-1]]
        assert BEGIN not in inside and END not in inside
        assert pocket_tokenizer.decode(inside) == get_task("pocket").prompt(question) + question.reference


def test_feedback_is_joined_by_id_whatever_its_order(build, ids):
    """Rows of three questions, mixed: each group keeps the order of its own rows, and its ranks."""
    rows = [
        row(ids[2], WRONG, False),
        row(ids[0], RIGHT, True),
        row(ids[2], RIGHT, True),
        row(ids[0], WRONG, False),
        row(ids[0], ALSO_RIGHT, True, rank=0),
    ]
    first, second, third = build(rows, AFT)
    assert (first.candidates, first.ranks) == ([RIGHT, WRONG, ALSO_RIGHT], [0, 1, 0])
    assert (second.candidates, second.ranks) == ((), ())
    assert (third.candidates, third.ranks) == ([WRONG, RIGHT], [1, 0])
    assert all(len(example.targets) == 1 for example in (first, second, third))


def test_samples_are_taken_as_they_were_generated(build, ids):
    """A sample that was cut has no end token, and is given none."""
    cut = [4, 5, 6]
    assert build([row(ids[0], cut, False), row(ids[0], RIGHT, True)], AFT)[0].candidates == [cut, RIGHT]


@pytest.mark.parametrize("is_correct", [True, False])
def test_a_group_of_one_kind_is_not_scored(build, ids, references, is_correct):
    """All right or all wrong: no pair to compare, the alignment term is 0; the question itself stays."""
    first = build([row(ids[0], RIGHT, is_correct, rank=0), row(ids[0], ALSO_RIGHT, is_correct, rank=0)], AFT)[0]
    assert (first.targets, first.candidates, first.ranks) == ([references[0]], (), ())


def test_reference_scores_go_with_their_samples(build, ids):
    """By row, not by position: two rows of one question among others, in another order than they were scored."""
    rows = [
        {**row(ids[0], WRONG, False), "reference_score": -0.5},
        {**row(ids[1], WRONG, False, rank=0), "reference_score": -9.0},
        {**row(ids[0], RIGHT, True), "reference_score": -0.25},
    ]
    first, second, _ = build(rows, Objective(term="dpo"))
    assert (first.candidates, first.reference_scores) == ([WRONG, RIGHT], [-0.5, -0.25])
    assert (second.candidates, second.reference_scores) == ((), ())


def told(question_id, token_ids, is_correct, sum_logprob):
    return {**row(question_id, token_ids, is_correct), "sum_logprob": sum_logprob}


def test_rewards_and_the_samplers_log_probabilities_go_with_their_samples(build, ids):
    """As means over tokens, 6 / 2 and 6 / 3; nothing is read that the term does not need."""
    rows = [told(ids[0], WRONG, False, -6.0), told(ids[0], RIGHT, True, -6.0)]
    first = build(rows, Objective(term="topr"))[0]
    assert (first.candidates, first.rewards, first.behaviour_scores) == ([WRONG, RIGHT], [0.0, 1.0], [-3.0, -2.0])
    assert first.lengths == [2, 3] and first.reference_scores == []
    first = build(rows, Objective(term="simpo"))[0]
    assert (first.rewards, first.behaviour_scores, first.reference_scores) == ([], [], [])


@pytest.mark.parametrize(
    ("term", "kept"),
    [*((term, 0) for term in ("dpo_pairs", "simpo", "gspo")), *((term, 1) for term in ("redi", "topr"))],
)
@pytest.mark.parametrize("is_correct", [True, False])
def test_a_sample_alone_is_scored_where_the_term_reads_single_ones(term, kept, is_correct, build, ids):
    """Its only rank is 0, right or wrong. GSPO's advantage of it is 0."""
    rows = [{**told(ids[0], RIGHT, is_correct, -6.0), "rank": 0}]
    first = build(rows, Objective(term=term))[0]
    assert len(first.candidates) == kept
    assert list(first.rewards) == [float(is_correct)] * kept


def test_the_reference_as_a_positive_is_right(build, ids, references):
    first = build([row(ids[0], WRONG, False, rank=0)], Objective(term="redi", reference_as_positive=True))[0]
    assert (first.candidates, first.ranks, first.rewards) == ([WRONG, references[0]], [1, 0], [0.0, 1.0])


MISSING = [None, float("nan"), np.nan, pd.NA, pd.NaT]
BY_RATING = {
    "aft": Objective(term="aft", feedback="ranking"),
    "rft": Objective(learn_positives=True, feedback="ranking"),
    "pro": Objective(term="pro", feedback="ranking"),
    "dpo": Objective(term="dpo", feedback="ranking"),
}


def rated(question_id, token_ids, rating, rating_rank):
    more = {"rating": rating, "rating_rank": rating_rank, "reference_score": -1.0, "distinct_equations": True}
    return {**row(question_id, token_ids, True), **more}


@pytest.mark.parametrize("missing", MISSING, ids=repr)
@pytest.mark.parametrize("kind", BY_RATING)
def test_unrated_samples_are_left_out_and_counted(kind, missing, build, ids, references, caplog):
    """Of two questions one has a gap: it keeps its reference, the other its ranking."""
    rows = [
        rated(ids[0], RIGHT, 9.0, missing),
        rated(ids[0], WRONG, missing, missing),
        rated(ids[1], RIGHT, 9.0, 0),
        rated(ids[1], WRONG, 3.0, 1),
    ]
    examples = build(rows, BY_RATING[kind])
    of_first = [example for example in examples if example.question_id == ids[0]]
    assert [(example.targets, example.candidates) for example in of_first] == [([references[0]], ())]
    assert build(rows[2:], BY_RATING[kind]) == examples
    assert caplog.messages == ["2 samples of questions with an unrated sample are left out of the ranking."]


@pytest.mark.parametrize("missing", MISSING, ids=repr)
@pytest.mark.parametrize("kind", BY_RATING)
def test_without_any_rating_the_way_out_is_told(kind, missing, build, ids):
    with pytest.raises(DataError, match=r"No sample has a rating: set labelling\.judge and run label_and_rank"):
        build([rated(ids[0], RIGHT, missing, missing)], BY_RATING[kind])


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in Parquet"])
def test_unrated_samples_of_a_table_are_those_of_its_rows(stored, build, ids, tmp_path):
    """As `label_and_rank` writes ratings, and as the catalog reads them again: of the first question one lacks."""
    rows = [rated(ids[q], tokens, 0.0, 0) for q in (0, 1) for tokens in (RIGHT, WRONG)]
    table = with_ratings(pd.DataFrame(rows), pd.Series([9.0, np.nan, 9.0, 3.0]))
    if stored:
        table.to_parquet(tmp_path / "feedback.parquet", index=False)
        table = pd.read_parquet(tmp_path / "feedback.parquet")
    examples = build(table.to_dict("records"), BY_RATING["pro"])
    assert [(list(example.ranks), example.ratings) for example in examples] == [
        ([], ()),
        ([0, 1], [9.0, 3.0]),
        ([], ()),
    ]


def test_a_rank_without_its_rating_is_unrated_where_the_rating_is_read(build, ids):
    """PRO reads both; a missing rating would pass for the temperature of a question that has none."""
    rows = [rated(ids[0], RIGHT, None, 0), rated(ids[0], WRONG, 3.0, 1), rated(ids[0], ALSO_RIGHT, 9.0, 0)]
    assert build(rows, BY_RATING["pro"])[0].candidates == [WRONG, ALSO_RIGHT]
    assert build(rows, BY_RATING["aft"])[0].candidates == [RIGHT, WRONG, ALSO_RIGHT]


@pytest.mark.parametrize("missing", MISSING, ids=repr)
def test_a_missing_reference_score_is_no_number_to_train_with(missing, build, ids):
    rows = [
        {**row(ids[0], RIGHT, True), "reference_score": -1.0},
        {**row(ids[0], WRONG, False), "reference_score": missing},
    ]
    with pytest.raises(DataError, match=f"A sample of {ids[0]} has no score under the reference model"):
        build(rows, Objective(term="dpo"))


@pytest.mark.parametrize("missing", MISSING, ids=repr)
@pytest.mark.parametrize("term", ["topr", "gspo"])
def test_samples_of_unknown_origin_are_refused_where_their_log_probability_is_needed(term, missing, build, ids):
    rows = [told(ids[0], RIGHT, True, -1.0), told(ids[0], WRONG, False, missing)]
    with pytest.raises(
        DataError, match=f"A sample of {ids[0]} has no log-probability .* the term {term} needs: sample"
    ):
        build(rows, Objective(term=term))
    with pytest.raises(DataError, match="has no log-probability"):
        build([row(ids[0], RIGHT, True), row(ids[0], WRONG, False)], Objective(term=term))  # of an older table
    assert build(rows, Objective(term="redi"))[0].candidates == [RIGHT, WRONG]


def test_feedback_on_an_unknown_question_is_refused(build):
    with pytest.raises(DataError, match="pocket/train/99999, which is no training question"):
        build([row("pocket/train/99999", RIGHT, True)], VFT)


@pytest.mark.parametrize("objective", [AFT, RFT])
def test_empty_feedback_is_refused_where_it_is_needed(objective, build):
    with pytest.raises(DataError, match="The feedback is empty"):
        build([], objective)


def test_what_is_too_long_is_left_out_and_counted(build, ids, references, pocket_tokenizer, pocket_questions, caplog):
    """Exactly `max_tokens` is not too long; one more is. A question goes with its reference, a sample alone."""
    prompts = [encode_prompt(pocket_tokenizer, f"{question.question}\n") for question in pocket_questions[:3]]
    lengths = [len(prompt) + len(reference) for prompt, reference in zip(prompts, references, strict=True)]
    longest = max(lengths)
    room = longest - len(prompts[0])
    rows = [row(ids[0], [5] * room, True), row(ids[0], [5] * (room + 1), False), row(ids[0], WRONG, False)]
    examples = build(rows, AFT, max_tokens=longest)
    assert [example.question_id for example in examples] == ids
    assert examples[0].candidates == [[5] * room, WRONG]
    assert caplog.messages == [f"1 references and samples are longer than max_tokens={longest} and left out."]

    caplog.clear()
    kept = build([], VFT, max_tokens=longest - 1)
    too_long = lengths.count(longest)
    assert [e.question_id for e in kept] == [i for i, length in zip(ids, lengths, strict=True) if length < longest]
    assert caplog.messages[0].startswith(f"{too_long} references and samples")

    with pytest.raises(DataError, match="No training example is left"):
        build([], VFT, max_tokens=5)


def test_rft_learns_every_distinct_right_sample_beside_the_reference(build, ids, references):
    """Twice the same, the reference itself, a wrong one, one that was cut: left are the reference and two samples."""
    rows = [
        row(ids[0], RIGHT, True),
        row(ids[0], RIGHT, True),
        row(ids[0], ALSO_RIGHT, True),
        row(ids[0], WRONG, False),
        row(ids[0], references[0], True),
        row(ids[0], [9, 9], True),  # it would teach not to end
    ]
    examples = build(rows, RFT)
    of_first = [example for example in examples if example.question_id == ids[0]]
    assert sorted(example.targets[0] for example in of_first) == sorted([references[0], RIGHT, ALSO_RIGHT])
    assert all(len(example.targets) == 1 and not example.candidates for example in examples)
    assert [example.targets for example in examples if example.question_id == ids[1]] == [[references[1]]]
    assert build(list(reversed(rows)), RFT) == examples, "the order of the rows does not matter"


def test_positives_are_imitated_beside_the_samples_of_their_question(build, ids, references):
    """The responses that RFT learns, as targets of one example; a question that is all right has nothing to rank."""
    rows = [
        row(ids[0], RIGHT, True),
        row(ids[0], RIGHT, True),
        row(ids[0], WRONG, False),
        row(ids[0], [9, 9], True),  # it would teach not to end
        row(ids[1], ALSO_RIGHT, True),
    ]
    objective = dataclasses.replace(AFT, imitate="positives")
    first, second, third = build(rows, objective)
    assert first.targets == sorted([references[0], RIGHT])
    assert (first.candidates, first.ranks) == ([RIGHT, RIGHT, WRONG, [9, 9]], [0, 0, 1, 0])
    assert (second.targets, second.candidates) == (sorted([references[1], ALSO_RIGHT]), ())
    assert third.targets == [references[2]]
    learnt = [(example.question_id, example.targets[0]) for example in build(rows, RFT)]
    assert learnt == [(e.question_id, target) for e in (first, second, third) for target in e.targets]


def test_the_reference_may_count_as_a_positive(build, ids, references):
    """Beside the right samples; above the wrong ones also where all are wrong (their rank 0 makes room); once."""
    objective = dataclasses.replace(AFT, reference_as_positive=True)
    rows = [
        row(ids[0], WRONG, False),
        row(ids[0], RIGHT, True),
        row(ids[1], WRONG, False, rank=0),
        row(ids[2], references[2], True),
    ]
    first, second, third = build(rows, objective)
    assert (first.candidates, first.ranks) == ([WRONG, RIGHT, references[0]], [1, 0, 0])
    assert (second.candidates, second.ranks) == ([WRONG, references[1]], [1, 0])
    assert (third.candidates, third.ranks) == ((), ()), "the reference alone has nothing to be compared with"


def test_a_question_without_samples_has_nothing_to_rank(build, ids, references):
    objective = dataclasses.replace(AFT, reference_as_positive=True)
    _, second, _ = build([row(ids[0], WRONG, False, rank=0)], objective)
    assert (second.targets, second.candidates, second.ranks) == ([references[1]], (), ())


def test_held_out_questions_are_refused_by_content(pocket_questions):
    """The same question under another id, in other case and spacing, is still the same question."""
    train, test = pocket_questions[:3], pocket_questions[3:6]
    refuse_held_out(train, {question.content_hash for question in test})
    spaceless = {spaceless_hash(question.question) for question in train[:1]}  # as MAWPS, which is tokenised, has it
    with pytest.raises(DataError, match="1 training questions are also"):
        refuse_held_out(train, spaceless)
    shown = [Turn(train[0].question, "#### 7")]
    with pytest.raises(DataError, match=r"1 of base_model\.chat\.examples ask validation or test questions"):
        refuse_held_out([], spaceless, shown)
    leaked = dataclasses.replace(train[1], question_id="pocket/train/copied")
    with pytest.raises(DataError, match=r"1 training questions are also .*pocket/train/copied"):
        refuse_held_out([train[0], leaked], [train[1].content_hash])


def test_the_group_holds_targets_then_candidates():
    """Prompt of 3; responses of 2, 4 and 5 tokens: 3 + 11 = 14. For one response, 3 + 2 = 5."""
    group = Example("q", [1, 2, 3], [[1, 2]], [[1] * 4, [1] * 5], [0, 1]).group
    assert (group.prompt, group.responses) == ([1, 2, 3], [[1, 2], [1] * 4, [1] * 5])
    assert group.cost == 14
    assert Example("q", [1, 2, 3], [[1, 2]]).group.cost == 5


EXAMPLE = Example("q", [1, 2], [[3, 4]], [[5], [6]], [0, 1])


def fingerprint(examples):
    return Overview(examples).fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"question_id": "r"},
        {"prompt": [1, 3]},
        {"prompt": [1], "targets": [[2, 3, 4]]},  # the boundary moves, the tokens stay
        {"targets": [[3], [4]]},
        {"targets": [[3, 4], [3, 4]]},
        {"candidates": [[5, 6]], "ranks": [0]},
        {"candidates": [[6], [5]]},
        {"ranks": [1, 0]},
        {"candidates": (), "ranks": ()},
        *({name: [0.0, 1.0]} for name in ("ratings", "reference_scores", "rewards", "behaviour_scores")),
    ],
)
def test_the_fingerprint_tells_everything_that_is_read(changes):
    assert fingerprint([dataclasses.replace(EXAMPLE, **changes)]) != fingerprint([EXAMPLE])


def test_the_fingerprint_tells_the_order_and_not_the_container():
    other = dataclasses.replace(EXAMPLE, question_id="r")
    assert fingerprint([EXAMPLE, other]) != fingerprint([other, EXAMPLE])
    assert fingerprint([Example("q", (1, 2), ((3, 4),), ((5,), (6,)), (0, 1))]) == fingerprint([EXAMPLE])


@pytest.mark.parametrize("objective", [AFT, RFT])
def test_arrays_and_lists_make_the_same_examples(objective, build, ids):
    """Token ids come as lists from sampling and as arrays from Parquet: the same run is found finished."""
    rows = [row(ids[0], RIGHT, True), row(ids[0], WRONG, False)]
    arrays = [{**one, "token_ids": np.array(one["token_ids"]), "rank": np.int64(one["rank"])} for one in rows]
    assert fingerprint(build(arrays, objective)) == fingerprint(build(rows, objective))


# --- questions without a reference ------------------------------------------------------------------------------------


@pytest.fixture
def untold(pocket_questions):
    """The first of three questions has a reference, the others have none."""
    first, *others = pocket_questions[:3]
    return [first, *(dataclasses.replace(question, reference="") for question in others)]


@pytest.mark.parametrize(
    "objective", [AFT, Objective(term="aft", imitate="positives"), Objective(term="aft", imitate="best")]
)
def test_right_samples_stand_in_for_a_missing_reference(build, ids, references, untold, objective, caplog):
    """Each distinct one that ended; without any the question is left out, and counted."""
    cut = [4, 5, 6]
    rows = [row(ids[1], tokens, tokens != WRONG) for tokens in (RIGHT, WRONG, ALSO_RIGHT, RIGHT, cut)]
    first, second = build([*rows, row(ids[2], WRONG, False)], objective, questions=untold)
    assert (first.question_id, first.targets) == (ids[0], [references[0]])
    assert second.question_id == ids[1]
    assert second.targets == ([RIGHT] if objective.imitate == "best" else [RIGHT, ALSO_RIGHT])
    assert "1 questions have neither a reference nor a right sample, and are left out." in caplog.text


def test_rejection_sampling_alone_is_something_to_learn(build, ids, untold):
    """One right sample of one question: as many examples as questions, and none of them is a reference."""
    rows = [row(ids[1], RIGHT, True)]
    examples = build(rows, RFT, questions=untold[1:])
    assert [example.targets for example in examples] == [[RIGHT]]
    assert effective_objective(RFT, Overview(examples), Overview) == RFT


def test_with_neither_references_nor_right_samples_the_way_out_is_told(build, ids, untold):
    with pytest.raises(DataError, match=r"no question has a reference or a right sample; draw more samples"):
        build([row(ids[1], WRONG, False)], AFT, questions=untold[1:])


def test_a_missing_reference_is_no_positive(build, ids, untold):
    objective = Objective(term="aft", reference_as_positive=True)
    second = build([row(ids[1], RIGHT, True), row(ids[1], WRONG, False)], objective, questions=untold)[1]
    assert (second.candidates, second.ranks) == ([RIGHT, WRONG], [0, 1])
