"""Provenance in the record of a run: the commit of the code, and the tracking URI without credentials."""

import subprocess
from pathlib import Path

from aft.pipelines.recorded import without_credentials


def shown_uri(uri: str, project: Path) -> str:
    """A tracking URI as a person may see it: without credentials, a file in the project relative to it."""
    return without_credentials(uri).replace(f"{project.as_posix()}/", "")


def source_tags(project: Path) -> dict[str, str]:
    """The commit of the code, and whether the code differs from it; nothing where there is no git."""
    commit, changes = _git(project, "rev-parse", "HEAD"), _git(project, "status", "--porcelain")
    return {} if commit is None else {"git_commit": commit, "git_dirty": str(bool(changes)).lower()}


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=project, capture_output=True, encoding="utf-8", timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
