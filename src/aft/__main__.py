"""`python -m aft`: the same as `kedro run`, for an installed package."""

import sys
from pathlib import Path

from kedro.framework.project import configure_project


def main() -> None:
    """Run the pipelines with the options of `kedro run`."""
    configure_project(Path(__file__).parent.name)
    from aft.cli import run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
