"""The stage that makes a dataset, for errors about one that is damaged or missing."""

import re
from collections.abc import Mapping
from pathlib import Path
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


def way_out(metadata: Mapping[str, Any] | None, path: Path) -> str:
    """What to do about a file of a dataset that cannot be used, by the `metadata` that the catalog gives it.

    The layer names the stage, unless `stage` does: what all variants share is drawn in a layer before theirs.
    A file that is named by a seed, as one of several side by side, is made by a run of that seed.
    """
    metadata = metadata or {}
    stage = metadata.get("stage") or STAGES.get((metadata.get("kedro-viz") or {}).get("layer", ""))
    seed = re.fullmatch(r"seed_([0-9]+)", path.stem)
    if stage is None:
        return "run the stage that makes it"
    return f"run {stage}{f' with --params=seed={seed[1]}' if seed else ''}, which makes it"
