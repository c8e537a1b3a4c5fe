"""The variants that are trained and compared; their objectives are in `parameters_align_train.yml`."""

BASELINE = "vft"  # has a model of its own and no namespace to train
COMPARED = ("rft", "aft", "aft_dc", "aft_bc")  # by a plain run
VARIANTS = (
    *COMPARED,
    *("rft_rank", "aft_rank", "aft_rdc1", "aft_rdc2", "aft_rbc"),
    *("rrhf", "rrhf_dc", "rrhf_bc", "rrhf_published"),
    *("pro", "pro_dc", "pro_bc", "pro_no_temperature", "pro_no_temperature_dc", "pro_published"),
    *("dpo", "dpo_dc", "dpo_bc", "dpo_published"),
    *("aft_plus", "aft_dc_plus", "aft_bc_plus"),
    *("dpo_pairs", "irpo", "ipo", "simpo", "dpop", "apo_zero", "redi", "topr", "gspo"),
    *("dpo_pairs_published", "irpo_published", "ipo_published", "simpo_published", "dpop_published"),
    *("apo_zero_published", "redi_published", "topr_published", "gspo_published"),
)


def namespace(variant: str) -> str:
    """Where a variant's datasets, parameters and nodes live."""
    return f"align.{variant}"
