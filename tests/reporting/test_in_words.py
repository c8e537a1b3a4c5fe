"""The end of a run in words: ties, a single variant, nothing without a constraint, nothing that can be told apart."""

import pandas as pd
import pytest

from aft.reporting.in_words import in_words

VFT = ("vft", 0.40, 0.0, 0.0, 0.0)
BETTER = ("aft_dc", 0.462, 0.062, 0.031, 0.093)
CLOSE = ("rft", 0.41, 0.01, -0.02, 0.04)
WORSE = ("aft", 0.25, -0.15, -0.19, -0.11)
LEVEL = ("rrhf", 0.40, 0.0, -0.03, 0.03)


def told(*rows: tuple[str, float, float, float, float]) -> list[str]:
    columns = ["variant", "accuracy", "difference", "difference_low", "difference_high"]
    return in_words(pd.DataFrame(rows, columns=columns), "vft", {"aft", "rrhf"})


@pytest.mark.parametrize(
    ("rows", "sentences"),
    [
        (
            (VFT, CLOSE, WORSE, BETTER),
            [
                "aft_dc leads with 46.2 % right answers.",
                "aft_dc is 6.2 points above vft [+3.1, +9.3], separable.",
                "Without a constraint, aft is 15.0 points below vft [-19.0, -11.0], separable.",
            ],
        ),
        (
            (VFT, CLOSE),
            [
                "rft leads with 41.0 % right answers.",
                "rft is 1.0 points above vft [-2.0, +4.0], not separable.",
            ],
        ),
        (
            (VFT, WORSE),
            [
                "vft leads with 40.0 % right answers.",
                "No variant stands above vft.",
                "Without a constraint, aft is 15.0 points below vft [-19.0, -11.0], separable.",
            ],
        ),
        (
            (VFT, BETTER, ("aft_bc", *BETTER[1:])),
            [
                "aft_dc and aft_bc lead together with 46.2 % right answers.",
                "aft_dc is 6.2 points above vft [+3.1, +9.3], separable; aft_bc is 6.2 points above vft [+3.1, +9.3], "
                "separable.",
            ],
        ),
        (
            (VFT, LEVEL, WORSE),
            [
                "vft and rrhf lead together with 40.0 % right answers.",
                "No variant stands above vft.",
                "Without a constraint, rrhf is level with vft [-3.0, +3.0], not separable; aft is 15.0 points below "
                "vft [-19.0, -11.0], separable.",
            ],
        ),
        ((VFT,), ["vft leads with 40.0 % right answers.", "No variant stands above vft."]),
    ],
)
def test_who_leads_by_how_much_and_what_no_constraint_did(rows, sentences):
    assert told(*rows) == sentences
