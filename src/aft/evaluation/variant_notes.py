"""What each variant is, in a line, and whose it is: for readers who do not know the paper (arXiv 2309.02144)."""

from typing import NamedTuple


class Note(NamedTuple):
    """What a variant is, where the paper has it, and whether it is an extension of this project."""

    text: str
    source: str
    is_extension: bool = False


VARIANT_NOTES = {
    "vft": Note("fine-tuned on the reference solutions only", "Eq. 1"),
    "rft": Note("learns its right samples as further references", "a baseline of the paper"),
    "rft_rank": Note("learns its top-rated samples as further references", "a baseline of the paper (Table 3)"),
    "aft": Note("raises right samples above wrong ones, without a constraint", "Eq. 6"),
    "aft_dc": Note("as aft, but never pushes a wrong sample down (detached constraint)", "Eq. 7"),
    "aft_bc": Note("as aft, but holds wrong samples at a boundary (boundary constraint)", "Eq. 8"),
    "aft_rank": Note("raises better-rated samples above worse ones, without a constraint", "Eq. 14"),
    "aft_rdc1": Note("as aft_rank; no sample is pushed down as the worse of a pair", "Eq. 12"),
    "aft_rdc2": Note("as aft_rank; only the lowest-rated samples are not pushed down", "Eq. 13"),
    "aft_rbc": Note("as aft_rank, with a boundary below everything better", "Eq. 11"),
    "rrhf": Note("RRHF's ranking loss beside the references", "Eq. 18"),
    "rrhf_dc": Note("rrhf with the detached constraint", "Eq. 18 in the manner of Eq. 12"),
    "rrhf_bc": Note("rrhf with a boundary constraint", "not in the paper", True),
    "rrhf_published": Note("RRHF closer to its own code: it imitates the best sample", "a baseline's public code"),
    "pro": Note("PRO's ranking loss beside the references", "Eq. 20"),
    "pro_dc": Note("pro with the detached constraint", "Eq. 20 in the manner of Eq. 12"),
    "pro_bc": Note("pro with a boundary constraint", "not in the paper", True),
    "pro_no_temperature": Note("pro without its dynamic temperature", "Table 10"),
    "pro_no_temperature_dc": Note("pro without its dynamic temperature, with the detached constraint", "Table 10"),
    "pro_published": Note("PRO closer to its own code: imitation and its weight", "a baseline's public code"),
    "dpo": Note("DPO for rankings beside the references", "Eq. 16: derived there, not run"),
    "dpo_dc": Note("dpo with the detached constraint", "not in the paper", True),
    "dpo_bc": Note("dpo with a boundary constraint", "not in the paper", True),
    "dpo_published": Note("DPO closer to its own code: summed scores, from the VFT model", "a baseline's public code"),
}
ADDED = Note("added to this recipe", "not in the paper")


def marked(variant: str) -> str:
    """The variant's name, with the asterisk of an extension that the paper does not have."""
    return f"{variant}*" if VARIANT_NOTES.get(variant, ADDED).is_extension else variant
