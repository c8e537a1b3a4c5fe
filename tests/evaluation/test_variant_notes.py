"""The notes tell of every variant, and of each whether the paper has it."""

from aft.evaluation.variant_notes import VARIANT_NOTES, marked
from aft.pipelines.variants import BASELINE, VARIANTS


def test_every_variant_has_a_note():
    assert VARIANT_NOTES.keys() == {BASELINE, *VARIANTS}


def test_the_marked_ones_are_what_the_paper_does_not_have():
    """It constrains RRHF and PRO by detaching only, and DPO not at all."""
    assert {name for name in VARIANT_NOTES if marked(name) == f"{name}*"} == {"rrhf_bc", "pro_bc", "dpo_dc", "dpo_bc"}
    assert all(("not in the paper" in note.source) == note.is_extension for note in VARIANT_NOTES.values())


def test_a_variant_of_someones_own_is_not_marked():
    assert marked("of_my_own") == "of_my_own"
