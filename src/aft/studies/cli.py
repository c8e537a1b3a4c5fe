"""`kedro studies`: list, run and document the studies of `studies.yml`."""

import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aft.errors import SettingsError
from aft.project import at_workplace

if TYPE_CHECKING:
    from aft.studies.run import Workplace

logger = logging.getLogger(__name__)


@click.group()
def studies() -> None:
    """Many runs of a recipe, and the table and figure that they give together."""


@studies.command("list")
@at_workplace
def list_studies(place: "Workplace") -> None:
    """Name the studies and what they ask."""
    for name, study in _read(place).items():
        click.echo(f"{name:16} {study.title}: {study.question}")


@studies.command("run")
@click.argument("names", nargs=-1, required=True)
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Runs at a time; without it one per GPU, or core.")
@at_workplace
def run_studies(place: "Workplace", names: tuple[str, ...], jobs: int | None) -> None:
    """Run the studies NAMES, or `all`; what is finished is not run again."""
    from aft.locks import locked
    from aft.reporting.study_pages import write_study
    from aft.studies.plan import batches_of, merged, points_of
    from aft.studies.results import load_results, study_table, verdicts
    from aft.studies.run import run_cells
    from aft.studies.tracking import parent_run, record_study
    from aft.studies.tuning import check_selects, choose, final_points, trial_cells, trials_of, tuned_columns

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    known = _read(place)
    chosen = {name: known[name] for name in _chosen(names, list(known))}
    recipe, data = place.globals["recipe"], place.globals["data"]
    tuned = {name: study.tuning for name, study in chosen.items() if study.tuning is not None}
    points = {name: points_of(study, recipe, data) for name, study in chosen.items() if name not in tuned}
    trials = {name: trials_of(chosen[name], tuning, recipe) for name, tuning in tuned.items()}
    for name, study in chosen.items():
        place.check(study, (points | trials)[name])
    for name, some in trials.items():
        check_selects(chosen[name], place, some)
    at_once: int = jobs or place.usual_jobs
    began = time.perf_counter()
    # A second one at the same time would run the same cells.
    with (
        locked(place.studies / ".lock", "these studies", patience=0),
        parent_run(place.mlflow, place.project, f"studies {', '.join(chosen)}") as parent,
    ):
        if tuned:
            cells = [cell for name, tuning in tuned.items() for cell in trial_cells(trials[name], tuning)]
            parent.incomplete += run_cells(place, merged(cells), at_once, parent.run_id)
        best = {name: choose(place, chosen[name], trials[name], tuning) for name, tuning in tuned.items()}
        points |= {name: final_points(chosen[name], its, recipe) for name, its in best.items()}
        for batch in batches_of((study, points[name]) for name, study in chosen.items()):
            parent.incomplete += run_cells(place, batch, at_once, parent.run_id)
        for name, study in chosen.items():
            results, evaluation, cache = load_results(place, study, points[name])
            folder = place.studies / name
            more = tuned_columns(place, study, best[name], points[name]) if name in best else {}
            table = study_table(results, evaluation, cache).assign(**more)
            claims = verdicts(study, results, evaluation)
            write_study(folder, study.page(name, place.variants, place.env), table, claims, evaluation.level)
            record_study(place.mlflow, place.project, parent, name, folder)
            logger.info("%s: %s", study.title, place.shown(folder))
        logger.info("%d studies in %.0f min.", len(chosen), (time.perf_counter() - began) / 60)


@studies.command("document")
@click.argument("names", nargs=-1)
@click.option(
    "--output",
    type=click.Path(path_type=Path, resolve_path=True),
    help="By default, without --env, the project's docs/results.md.",
)
@at_workplace
def document_studies(place: "Workplace", names: tuple[str, ...], output: Path | None) -> None:
    """Write one page from the files of the finished studies of NAMES, by default of all.

    OUTPUT_reading.md, if there, stands before the tables.
    """
    from aft.files import write_atomically
    from aft.reporting.study_pages import document

    if output is None and (place.env or (names and "all" not in names)):
        raise SettingsError("Name the page with --output: docs/results.md is that of all studies of pocket.")
    output = output or place.project / "docs/results.md"
    own = output.with_name(f"{output.stem}_reading.md")
    reading = own.read_text(encoding="utf-8") if own.is_file() else ""
    chosen = _chosen(names or ("all",), list(_read(place)))
    text = document(place.studies, chosen, output.parent / "figures", output.parent, reading)
    write_atomically(output, lambda staged: staged.write_text(text, encoding="utf-8"))
    click.echo(f"Written: {place.shown(output)}")


def _read(place: "Workplace") -> dict[str, Any]:
    from aft.studies.definition import read_studies

    context = place.context()
    try:
        content = dict(context.config_loader["studies"])
    except Exception as error:  # the YAML parser's, OmegaConf's and Kedro's are of no common kind
        reason = " ".join(str(error).split()).rstrip(".")
        raise SettingsError(f"studies.yml cannot be read: {reason}; mend it, as conf/base/studies.yml is.") from error
    return read_studies(content, place.variants)


def _chosen(names: tuple[str, ...], known: list[str]) -> list[str]:
    if "all" in names:
        return known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"There is no study {', '.join(unknown)}; choose of {', '.join(known)}, or all.")
    return list(dict.fromkeys(names))
