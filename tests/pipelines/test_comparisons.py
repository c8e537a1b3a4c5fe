"""What the configuration of variants and comparisons may say, and what becomes of it."""

from typing import Any

import pytest

from aft.errors import SettingsError
from aft.pipelines.comparisons import dataset, measured, plan_of


def configured(**changed: Any) -> dict[str, Any]:
    entries = {name: {"objective": {}, "note": "one", "source": "Eq. 1"} for name in ("vft", "aft", "aft_dc")}
    return {
        "align": entries,
        "comparisons": {"binary": ["aft"], "all_3": ["aft_dc", "vft", "aft"]},
        "compare": "binary",
    } | changed


def test_the_baseline_is_in_every_comparison_and_the_first() -> None:
    plan = plan_of(configured(), taken=())
    assert plan.comparisons == (("binary", ("vft", "aft")), ("all_3", ("vft", "aft_dc", "aft")))
    assert plan.compared == ("vft", "aft")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"compare": "binari"}, "compare is 'binari', which is no comparison: did you mean 'binary'?"),
        ({"compare": "xyz"}, "compare is 'xyz', which is no comparison: there are binary, all_3."),
        ({"comparisons": {"binary": ["aft_cd"]}}, "'binary' names 'aft_cd': did you mean 'aft_dc'?"),
        ({"comparisons": {"binary": []}}, "'binary' names no variant beside vft."),
        ({"comparisons": {"binary": ["aft"], "ingest": ["aft"]}}, "cannot be called 'ingest', which is taken"),
        ({"comparisons": {"binary": ["aft"], "seed_0": ["aft"]}}, "cannot be called 'seed_0', which is taken"),
        ({"comparisons": {"binary": ["aft"], "studies": ["aft"]}}, "cannot be called 'studies', which is taken"),
        ({"comparisons": {"binary": ["aft"], "a-b": ["aft"]}}, "A comparison cannot be called 'a-b'"),
        ({"comparisons": {"binary": "aft"}}, "comparisons.binary is 'aft': it should be a valid list."),
        ({"align": configured()["align"] | {"a.b": configured()["align"]["aft"]}}, "A variant cannot be called 'a.b'"),
        ({"align": configured()["align"] | {"compare": configured()["align"]["aft"]}}, "cannot be called 'compare'"),
        ({"align": configured()["align"] | {"mine": {"objectiv": {}, "note": "one"}}}, "did you mean 'objective'?"),
        (
            {"align": configured()["align"] | {"mine": {"objective": {}, "note": "one"}}},
            "align.mine: Give either source",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence_with_the_nearest_name(
    changed: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        plan_of(configured(**changed), taken=("ingest",))
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_the_figures_of_a_variant_are_known_by_their_dataset() -> None:
    assert [measured(dataset(name, "metrics")) for name in ("vft", "aft_dc")] == ["vft", "aft_dc"]
    assert measured("align.aft.model") is None and measured("feedback_summary") is None
