"""The tables between the stages."""

import pandas as pd

from aft.pipelines.tables import lookup, to_table
from aft.tasks import Question


def test_questions_are_looked_up_wherever_they_stand_and_unknown_ones_are_left_out(
    pocket_questions: list[Question],
) -> None:
    asked = lookup(to_table(pocket_questions))
    one, other = pocket_questions[7], pocket_questions[2]
    ids = pd.Series([one.question_id, "unknown", other.question_id, one.question_id])
    assert asked(ids) == {one.question_id: one, other.question_id: other}
    assert asked(pd.Series(["unknown"])) == asked(pd.Series([], dtype="str")) == {}
