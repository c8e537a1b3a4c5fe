"""One cell of a study in a process of its own: `python -m aft.studies.cell`, its order as JSON on standard input."""

import json
import sys
from pathlib import Path
from typing import Any, cast

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from aft.errors import AftError


def main() -> None:
    """Run what the order says; a mistake of the user ends in one sentence."""
    order: dict[str, Any] = json.load(sys.stdin)
    bootstrap_project(Path(order["project"]))
    try:
        with KedroSession.create(
            order["project"],
            env=order["env"],
            conf_source=order["conf_source"],
            runtime_params=order["runtime_params"],
        ) as session:
            cast(KedroSession, session).run(pipeline_names=["variants"], to_outputs=order["to_outputs"])
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, AftError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        sys.exit(f"Error: {cause}")


if __name__ == "__main__":
    main()
