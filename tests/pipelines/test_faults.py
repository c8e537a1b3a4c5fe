"""Every parameter that is not what it must be is named, with what it must be."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from aft.config_loader import RecipeConfigLoader
from aft.pipeline_registry import register_pipelines
from aft.pipelines.faults import faults
from aft.pipelines.parameters import KINDS
from aft.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[2] / "conf"
RECIPES = sorted(path.parent.name for path in CONF.glob("*/globals.yml"))


def parameters_of(recipe: str) -> dict[str, Any]:
    return RecipeConfigLoader(str(CONF), env=recipe, **CONFIG_LOADER_ARGS)["parameters"]


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return parameters_of("smoke")


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_ships_has_no_fault(recipe):
    assert faults(parameters_of(recipe)) == []


def test_a_truth_value_is_a_setting_where_it_belongs(shipped):
    choice = {"family": "gsm8k", "settings": {"keep_calculator_marks": True}}
    assert faults(shipped | {"test_sets": {"x": choice}}) == []


def test_every_parameter_that_a_node_or_the_catalog_reads_is_known():
    read = {name for pipeline in register_pipelines().values() for name in pipeline.inputs()}
    keys = {name.removeprefix("params:").split(".")[0] for name in read if name.startswith("params:")}
    # The catalog reads those of the questions, the registry those of the comparisons, a hook those of the machine.
    read_by_others = {"task", "test_sets", "comparisons", "compare", "parallel", "threads"}
    assert keys | read_by_others == {*KINDS, "seed"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "training.batchsize=2",
            "There is no parameter 'training.batchsize': did you mean 'batch_size'? There are epo",
        ),
        ("training.lora.rankk=2", "'training.lora.rankk': did you mean 'rank'? There are rank, alpha, dropout, target"),
        ("sampler.server.urll=x", "There is no parameter 'sampler.server.urll': did you mean 'base_url'? There are"),
        ("task.settings.trian=5", "There is no parameter 'task.settings.trian': did you mean 'train'?"),
        ("test_sets.x={family: pocket, settings: {trian: 5}}", "'test_sets.x.settings.trian': did you mean 'train'?"),
        ("align.aft.objective.bta=1", "There is no parameter 'align.aft.objective.bta': did you mean 'beta'?"),
        ("align.aft.objectiv.beta=1", "There is no parameter 'align.aft.objectiv': did you mean 'objective'?"),
        ("evaluation.sampling.x=1", "There is no parameter 'evaluation.sampling.x': there are samples, temperature"),
        ("base_model.pocket.corpus.bogus=1", "'base_model.pocket.corpus.bogus': there are texts, misconception, slip"),
        ("base_model.pocket.training.lora.x=1", "'base_model.pocket.training.lora.x': there are rank, alpha"),
        ("training=5", "training is 5, but holds epochs, learning_rate"),
        ("training.lora=8", "give each by its dotted key, as in --params=training.lora.rank=…"),
        ("sampler.server=http://host", "give each by its dotted key, as in --params=sampler.server.base_url=…"),
        ("align=5", "align is 5: it should be a valid dictionary."),
        ("align.aft.objective.term=rrhv", "term is 'rrhv': did you mean 'rrhf'? It should be 'none', 'aft', 'rrhf'"),
        ("align.aft.extension=true", "align.aft: Give either source"),
        ("align.mine.objective.term=aft", "align.mine.note is missing."),
        ("align.aft_cd.objective.beta=1", "no parameter 'align.aft_cd.objective.beta': did you mean 'align.aft_dc.obj"),
        ("comparisons.mine=aft", "comparisons.mine is 'aft': it should be a valid list."),
        ("align.aft=5", "align.aft is 5, but holds objective"),
        ("task.family=nosuch", "task.family: There is no task family 'nosuch'"),
        ("test_sets.x.family=nosuch", "test_sets.x.family: There is no task family 'nosuch'"),
        ("test_sets.x.settings.train=5", "test_sets.x.family is missing."),
        ("task.settings.train=true", "task.settings.train is True: it must be a whole number from 1"),
        ("test_sets.x={family: pocket, settings: {test: true}}", "test_sets.x.settings.test is True: it must be"),
        ("test_sets.x={family: gsm8k, settings: {train_limit: true}}", "x.settings.train_limit is True: it must be"),
        ("test_sets.x={family: gsm8k, settings: {split_seed: false}}", "x.settings.split_seed is False: it must be"),
        (
            "test_sets.x={family: multitask, settings: {gsm8k: {train_limit: true}, aqua_rat: {}, ecqa: {}}}",
            "test_sets.x.settings.gsm8k.train_limit is True: it must be a whole number",
        ),
        ("test_sets=5", "test_sets is 5: it should be a valid dictionary."),
        ("sample_from=5", "sample_from is 5: it should be a valid string."),
        ("sample_from={a: b}", "sample_from is {'a': 'b'}: it should be a valid string."),
        ("model_cache=", "model_cache is None: it should be a valid string."),
        ('score_cache=""', "score_cache is ''"),
        ("training.epochs=abc", "training.epochs is 'abc': it must be a number from 0.001 up to 1000000."),
        ("training.epochs.x=1", "training.epochs is {'x': 1}: it must be a number"),
        ("training.epochs=.nan", "training.epochs is nan: it must be a number from 0.001 up to 1000000."),
        ("evaluation.ks=4", "evaluation.ks is 4: it should be a valid list."),
        ("evaluation.ks=[a]", "evaluation.ks.0 is 'a': it must be a whole number from 1"),
        ("evaluation.resamples=1e30", "evaluation.resamples is 1e+30"),
        (
            "labelling.judge=chatgpt",
            "labelling.judge is 'chatgpt': it should be 'none', 'steps', 'openai', 'file' or 'given'.",
        ),
        ("labelling.judge=file", "labelling.judge is 'file': set labelling.ratings_file"),
        ("labelling.judge=openai", "labelling.judge is 'openai': set labelling.openai.base_url and model."),
        ("align.vft.objective.term=aft", "align.vft.objective.term: vft is the baseline"),
        ("sampling.greedy=true", "sampling.greedy: there is no feedback on greedy responses"),
        ("test_sets.A (5-shot).family=pocket", "A test set cannot be called 'A (5-shot)'"),
    ],
)
def test_what_it_must_be_is_told(given, told, shipped):
    changed: Any = OmegaConf.to_container(OmegaConf.unsafe_merge(shipped, OmegaConf.from_dotlist([given])))
    sentences = faults(changed)
    assert [one for one in sentences if told in one], sentences
    assert all("\n" not in one for one in sentences)
