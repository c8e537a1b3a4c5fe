"""What follows from a variant's entry."""

import pytest

from aft.alignment.variants import Variant, marked
from aft.errors import SettingsError
from aft.training.settings import Objective


@pytest.mark.parametrize(
    ("objective", "family"),
    [
        (Objective(), "baseline"),
        (Objective(learn_positives=True), "baseline"),
        (Objective(term="dpo"), "unconstrained"),
        (Objective(term="pro", constraint="detached"), "constrained"),
    ],
)
def test_the_family_follows_from_term_and_constraint(objective: Objective, family: str) -> None:
    assert Variant(objective, "one", "Eq. 1").family == family


def test_an_extension_is_marked() -> None:
    variants = {"aft": Variant(Objective(), "one", "Eq. 6"), "mine": Variant(Objective(), "two", extension=True)}
    assert [marked(name, variants) for name in variants] == ["aft", "mine*"]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"note": "one"}, "either source"),
        ({"note": "one", "source": "Eq. 1", "extension": True}, "either source"),
        ({"note": " ", "extension": True}, "in one line"),
        ({"note": "one\ntwo", "extension": True}, "in one line"),
    ],
)
def test_an_entry_says_in_a_line_what_it_is_and_whose(entry: dict, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Variant(Objective(), **entry)
