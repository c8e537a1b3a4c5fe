"""`aft` and `python -m aft`: the project's commands without Kedro's own, from an installed package, too."""

from kedro.framework.project import configure_project


def main() -> None:
    """Run the command that the arguments name: run, studies, models, cache or feedback."""
    configure_project("aft")
    from aft.cli import cli  # which imports the project's settings

    cli(prog_name="aft")


if __name__ == "__main__":
    main()
