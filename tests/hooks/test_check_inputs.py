"""A model or a file that a run reads only after a training is looked for before anything runs."""

from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from aft.errors import DataError, SettingsError
from aft.hooks.check_inputs import CheckInputsHook
from aft.pipelines.parameters import Labelling


def check(
    made: str | list[str],
    sample_from: str | None = None,
    ratings_file: str | None = None,
    judge: Any = "file",
    candidates_from: str | None = None,
) -> None:
    labelling = Labelling(judge=judge if ratings_file or judge == "given" else "none", ratings_file=ratings_file)
    parameters = {"params:seed": 3, "params:sample_from": sample_from, "params:labelling": labelling}
    parameters["params:candidates_from"] = candidates_from
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in parameters.items()})
    node = Node(lambda *_: None, list(parameters), made, name="node")
    CheckInputsHook().before_pipeline_run(Pipeline([node]), catalog)


@pytest.mark.parametrize("place", ["nosuch", " ", "/dev/null", "/proc", "x" * 5000, "\0"])
def test_what_is_nowhere_is_named_with_the_way_out(place: str) -> None:
    with pytest.raises(SettingsError, match=r"^sample_from is .*, but there is no model; .*null for the VFT model\.$"):
        check("candidates", sample_from=place)
    with pytest.raises(SettingsError, match=r"^labelling\.ratings_file is .*, but there is no such file; "):
        check("feedback", ratings_file=place)


def test_ratings_of_an_unknown_kind_are_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "ratings.xlsx").touch()
    with pytest.raises(DataError, match=r"ratings\.xlsx is of no known kind; it must end in \.csv, \.jsonl, \.parquet"):
        check("feedback", ratings_file=str(tmp_path / "ratings.xlsx"))


def test_own_rollouts_are_looked_for_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^candidates_from is '/nosuch\.jsonl', but must be a file that ends in"):
        check("candidates", candidates_from="/nosuch.jsonl")
    (tmp_path / "rows_3.csv").touch()
    check("candidates", candidates_from=str(tmp_path / "rows_{seed}.csv"))
    with pytest.raises(SettingsError, match=r"^sample_from and candidates_from are set"):
        check("candidates", candidates_from=str(tmp_path), sample_from=str(tmp_path))
    check("feedback", candidates_from="/nosuch")


def test_ratings_that_are_given_need_rollouts_that_bring_them(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^labelling.judge is 'given', .* candidates_from, or another judge\.$"):
        check(["candidates", "feedback"], judge="given")
    check("feedback", judge="given")  # of rollouts that an earlier run read
    (tmp_path / "rows.csv").touch()
    check(["candidates", "feedback"], judge="given", candidates_from=str(tmp_path / "rows.csv"))


def test_what_the_run_does_not_read_is_left_alone() -> None:
    check("candidates", ratings_file="/nosuch")
    check("feedback", sample_from="/nosuch")
    check("feedback", ratings_file="/nosuch", judge="steps")
    check("candidates")


def test_the_seed_stands_in_the_name(tmp_path: Path) -> None:
    for name in ("seed_3/config.json", "ratings_3.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    check("candidates", sample_from=str(tmp_path / "seed_{seed}"))
    check("feedback", ratings_file=str(tmp_path / "ratings_{seed}.csv"))
