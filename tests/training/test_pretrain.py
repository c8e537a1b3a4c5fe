"""The pocket base model: what it reads, and when it is made anew."""

import dataclasses

import pytest

from aft.models.pocket import Architecture
from aft.models.shipped import facts_of_shipped
from aft.models.tokens import encode_prompt, encode_response
from aft.tasks import pocket
from aft.training import pretrain
from aft.training.settings import TrainingSettings

CORPUS = pocket.Corpus(texts=12)
SMALL = Architecture(hidden_size=16, layers=1, heads=2)
SETTINGS = TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=6)


@pytest.fixture
def make(tmp_path):
    def pretrained(corpus=CORPUS, model=SMALL):
        return pretrain.pretrain_pocket(corpus, model, SETTINGS, tmp_path)

    return pretrained


@pytest.fixture
def read(monkeypatch):
    """The examples of each training run that is asked for; nothing is trained."""
    asked = []
    monkeypatch.setattr(pretrain, "train_once", lambda description, load, read, *rest: asked.append(read()))
    return asked


def test_every_token_of_every_text_is_learned(make, read, pocket_tokenizer):
    """The model is given the opening token only; prompt and solution are split as they will be in fine-tuning."""
    make()
    (examples,) = read
    texts = list(pocket.corpus(CORPUS))
    for example, (prompt, solution) in zip(examples, texts, strict=True):
        apart = [*encode_prompt(pocket_tokenizer, prompt), *encode_response(pocket_tokenizer, solution)]
        assert [*example.prompt, *example.targets[0]] == apart
        assert list(example.prompt) == [pocket_tokenizer.bos_token_id]
        assert example.targets[0][-1] == pocket_tokenizer.eos_token_id


def test_the_base_model_is_made_once_per_corpus_and_architecture(make, monkeypatch):
    """Also when the settings stay and the texts change: what the model has read decides."""
    base = make()
    assert make() == base
    assert base.directory.tokenizer().vocab_size == base.directory.model().config.vocab_size
    assert [row["step"] for row in base.curve] == [1, 2]
    paths = {
        base.directory.path,
        make(dataclasses.replace(CORPUS, misconception=0.0)).directory.path,
        make(model=dataclasses.replace(SMALL, seed=1)).directory.path,
    }
    original = pocket.corpus
    monkeypatch.setattr(pocket, "corpus", lambda *given: ((p, s.replace("+", "-")) for p, s in original(*given)))
    paths.add(make().directory.path)
    assert len(paths) == 4


def test_the_shipped_model_begins_as_its_settings_say(tmp_path):
    """The losses of its first 100 steps again, to a thousandth, by a run that ends after 103.

    The learning rate rises by the same amount per step: over 101 of 103 steps to 101 / 338 of the peak, which the whole
    run of 11,250 steps had after 338 (3 %).
    """
    told = facts_of_shipped()
    corpus, training = pocket.Corpus(**told["made_from"]["corpus"]), told["made_from"]["training"]
    settings = TrainingSettings(**training | {"max_steps": 103, "warmup": 0.98, "learning_rate": 0.004 * 101 / 338})
    assert training["learning_rate"] == 0.004 and training["warmup"] == 0.03
    made = pretrain.pretrain_pocket(corpus, Architecture(**told["made_from"]["architecture"]), settings, tmp_path)
    assert [row["loss"] for row in made.curve[:100]] == pytest.approx(told["losses"], abs=1e-3)
