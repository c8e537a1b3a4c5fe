"""Which stage makes a dataset again, for the sentence that names one that is damaged or missing."""

from collections.abc import Mapping
from typing import Any

STAGES = {
    "prepared": "ingest",
    "vft": "vft_train",
    "sampled": "sample_cots",
    "labelled": "label_and_rank",
    "aligned": "align_train",
    "evaluated": "evaluate",
    "reported": "evaluate",
}
"""The stage that writes the datasets of a layer; the layer is that in which Kedro-Viz shows them."""


def way_out(metadata: Mapping[str, Any] | None) -> str:
    """What to do about a dataset that cannot be used, by the `metadata` that the catalog gives it."""
    layer = ((metadata or {}).get("kedro-viz") or {}).get("layer")
    return f"run {STAGES[layer]}, which makes it" if layer in STAGES else "run the stage that makes it"
