"""The variants that are trained and compared; their objectives are in `parameters_align_train.yml`."""

BASELINE = "vft"  # has a model of its own and no namespace to train
VARIANTS = ("rft", "aft", "aft_dc", "aft_bc")


def namespace(variant: str) -> str:
    """Where a variant's datasets, parameters and nodes live."""
    return f"align.{variant}"
