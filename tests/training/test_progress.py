"""The progress bar stands where the run stands, also after a resume."""

from types import SimpleNamespace

from aft.training.progress import ProgressBar


def state(step):
    return SimpleNamespace(global_step=step, max_steps=10)


def test_a_resumed_run_starts_where_it_stopped_and_shows_loss_and_scores():
    progress = ProgressBar("train aft")
    progress.on_log(None, state(3), None, logs={"loss": 1.0})  # before the bar is open: nothing to move
    progress.on_train_begin(None, state(4), None)
    bar = progress.bar
    assert bar is not None and (bar.n, bar.initial, bar.total) == (4, 4, 10)
    logs = {"loss": 1.23456, "score_positive": -0.5, "score_negative": -0.75, "grad_norm": 9.0}
    progress.on_log(None, state(5), None, logs=logs)
    assert bar.n == 5
    assert bar.postfix == "loss=1.235, s_pos=-0.500, s_neg=-0.750"
    progress.on_log(None, state(10), None, logs={"train_runtime": 1.0})  # the trainer's last words are no step
    assert bar.n == 5
    progress.on_train_end(None, state(10), None)
    assert bar.disable  # closed
