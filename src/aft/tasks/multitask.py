"""The paper's three training sets together: GSM8K, AQUA-RAT and ECQA (AFT, arXiv 2309.02144, Table 5).

Every question keeps its own dataset, and so its id, prompt and answer check; this family only brings them together.
"""

from collections.abc import Mapping

from aft.checked import checked
from aft.tasks import aqua_rat, ecqa, gsm8k
from aft.tasks.base import SPLITS, Question
from aft.tasks.rows import without_repeats

__all__ = ["Settings", "load_questions"]


@checked
class Settings:
    """The settings of each family, as it knows them."""

    gsm8k: gsm8k.Settings
    aqua_rat: aqua_rat.Settings
    ecqa: ecqa.Settings


def load_questions(settings: Settings) -> Mapping[str, list[Question]]:
    """The questions of each split of the three families, family by family in their own order.

    A question that several families ask (by `content_hash`) is kept once, in test rather than in validation rather than
    in train; a warning counts what that drops. Errors are those of the families.
    """
    families = (
        gsm8k.load_questions(settings.gsm8k),
        aqua_rat.load_questions(settings.aqua_rat),
        ecqa.load_questions(settings.ecqa),
    )
    kept: dict[str, list[Question]] = {}
    asked: set[str] = set()
    for split in reversed(SPLITS):
        together = [question for splits in families for question in splits[split]]
        kept[split], asked = without_repeats(together, asked, f"{split} questions of the families together")
    return {split: kept[split] for split in SPLITS}
