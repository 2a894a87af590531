"""The training loop: it learns, it resumes exactly, it stops where going on makes no sense."""

import json
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from toys import ToyCriterion, ToyDetector, ToySet, assert_same, interrupt

from richsem.structures import Supervision
from richsem.training import optim
from richsem.training.loading import Source
from richsem.training.loop import LOG, STATE, DivergenceError, RunError, TrainConfig, train
from richsem.training.optim import OptimConfig

OPTIM = OptimConfig(lr=0.02, backbone_lr=0.02, clip_norm=0.0, schedule="linear", warmup=2)
CONFIG = TrainConfig(steps=7, batch_size=4, extra_batch_size=2, log_every=3)


def run(folder, config=CONFIG, *, detector=None, criterion=None, **options):
    detector, criterion = detector or ToyDetector(noise=0.1), criterion or ToyCriterion()
    sets = (ToySet(), ToySet(supervision=Supervision.IMAGE_LABELS))
    sources = [Source(dataset=one) for one in sets]
    return detector, train(detector, criterion, *sources, config, OPTIM, folder, **options)


change = partial(replace, CONFIG)


def without_time(history):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in history]


def logged(folder):
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_the_loss_falls(tmp_path):
    _, history = run(tmp_path, TrainConfig(steps=40, batch_size=4, log_every=10))
    losses = [row["losses"]["detection"]["total"] for row in history]
    assert losses[-1] < 0.8 * losses[0]


def test_history_tells_every_term_of_every_kind(tmp_path):
    rows = []
    _, history = run(tmp_path, on_progress=rows.append)
    assert rows == history == logged(tmp_path)
    assert [row["step"] for row in history] == [3, 6, 7]
    assert {*history[0]} == {"step", "lr", "seconds", "cpu_seconds", "gradient_norm", "losses"}
    assert history[0]["losses"].keys() == {"detection", "image labels"}
    means = history[0]["losses"]["image labels"]
    weighted = 5 * means["box"] + means["class"] + means["extra"]
    assert means["total"] == pytest.approx(weighted)
    assert history[0]["lr"] == OPTIM.lr


def test_late_extra_steps_have_a_part_of_the_rate(tmp_path, monkeypatch):
    plain, less = [], []
    for rates, changes in ((plain, {}), (less, {"extra_until": 0.5, "extra_rest": 0.25})):
        with monkeypatch.context() as watched:
            watched.setattr(optim, "set_rate", lambda _, factor, into=rates: into.append(factor))
            run(tmp_path / str(len(changes)), change(**changes))
    assert less == [rate * (0.25 if step == 5 else 1) for step, rate in enumerate(plain)]


class At(ToyCriterion):
    """Does something with the losses of one call: a signal, a crash, poison."""

    def __init__(self, call, action):
        super().__init__()
        self.left, self.action = call, action

    def forward(self, *args):
        losses = super().forward(*args)
        if not self.left:
            self.action(losses)
        self.left -= 1
        return losses


def crash(losses):
    raise OSError("power cut")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Detector and history of a run that nothing interrupted."""
    detector, history = run(tmp_path_factory.mktemp("whole"))
    return detector, without_time(history)


@pytest.mark.parametrize("stops", [[0], [1], [2], [3], [4], [5], [6], [2, 2]])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, whole, stops):
    for at in stops:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, criterion=At(at, interrupt))
    detector, resumed = run(tmp_path)
    assert_same(detector, whole[0])
    assert without_time(resumed) == whole[1]
    assert without_time(logged(tmp_path)) == whole[1]
    again, kept = run(tmp_path, criterion=At(0, crash))  # no step is left
    assert_same(again, whole[0])
    assert kept == resumed


def test_a_run_may_end_with_an_average_of_its_weights_also_after_a_stop(tmp_path, whole):
    averaged, _ = run(tmp_path / "whole", change(average=0.5))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", change(average=0.5), criterion=At(4, interrupt))
    assert_same(run(tmp_path / "cut", change(average=0.5))[0], averaged)
    assert_same(run(tmp_path / "cut", change(average=0.5))[0], averaged)  # no step is left
    assert_same(run(tmp_path / "short", change(average=1e-9))[0], whole[0])
    pairs = zip(averaged.parameters(), whole[0].parameters(), strict=True)
    assert any(not torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("at", [2, 5])
def test_after_a_crash_the_last_checkpoint_counts(tmp_path, whole, at):
    config = change(checkpoint_every=2)
    with pytest.raises(OSError, match="power cut"):
        run(tmp_path, config, criterion=At(at, crash))
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == at // 2 * 2
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 6, "los')  # the crash came while a line was written
    detector, resumed = run(tmp_path, config)
    assert_same(detector, whole[0])
    assert without_time(resumed) == whole[1]
    assert logged(tmp_path) == resumed


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, criterion=At(3, lambda losses: [interrupt(), time.sleep(1.1), interrupt()]))
    assert not (tmp_path / STATE).exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_works_outside_the_main_thread(tmp_path):
    thread = threading.Thread(target=run, args=(tmp_path,))
    thread.start()
    thread.join()
    assert (tmp_path / STATE).exists()


def test_seeds_decide(tmp_path):
    one, _ = run(tmp_path / "1", change(seed=1))
    torch.rand(5)  # what the caller drew does not matter
    same, _ = run(tmp_path / "2", change(seed=1))
    other, _ = run(tmp_path / "3", change(seed=2))
    assert_same(one, same)
    assert not torch.equal(one.boxes.weight, other.boxes.weight)


def test_accumulation_gives_the_same_gradients(tmp_path):
    whole, _ = run(tmp_path / "1", detector=ToyDetector())
    parts, _ = run(tmp_path / "2", change(accumulation=2), detector=ToyDetector())
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())


def not_a_number(losses):
    losses.terms["box"] = losses.terms["box"] * torch.nan


def infinite_slope(losses):
    box = losses.terms["box"]
    losses.terms["box"] = box + (box - box.detach()).sqrt()  # that of the root of zero


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        (not_a_number, r"loss of step 5 .* box = nan, image ids \[10"),
        (infinite_slope, "gradient of step 5 "),
    ],
)
def test_what_is_no_number_stops_with_names_before_the_step(tmp_path, poison, message):
    detector, criterion = ToyDetector(), At(5, poison)
    with pytest.raises(DivergenceError, match=message) as error:
        run(tmp_path, change(checkpoint_every=2), detector=detector, criterion=criterion)
    assert str(tmp_path) in str(error.value)
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert state["step"] == 4
    for tensor in (*detector.parameters(), *state["detector"].values()):
        assert torch.isfinite(tensor).all()


def test_another_run_is_not_continued(tmp_path):
    run(tmp_path, identity="data 1")
    for config, identity in ((change(seed=9), "data 1"), (CONFIG, "data 2")):
        with pytest.raises(RunError, match="another configuration or data"):
            run(tmp_path, config, identity=identity)
    run(tmp_path, change(log_every=1, checkpoint_every=1), identity="data 1")


def test_a_damaged_state_is_named(tmp_path):
    run(tmp_path)
    whole = (tmp_path / STATE).read_bytes()
    (tmp_path / "whole.pt").write_bytes(whole)
    turned = bytearray(whole)
    turned[len(whole) // 2] ^= 1  # a bit of a number
    for content in (whole[:100], whole[:-100], b"", b"PK", b"{}", turned):
        (tmp_path / STATE).write_bytes(content)
        with pytest.raises(RunError, match=r"state\.pt is damaged .* delete it to start anew"):
            run(tmp_path)
    state = torch.load(tmp_path / "whole.pt", weights_only=True)
    for change in ({"detector": {}}, {"optimiser": {}}, {"clock": {"x": 1}}):
        torch.save(state | change, tmp_path / STATE)
        with pytest.raises(RunError, match=r"state\.pt is damaged .* delete it to start anew"):
            run(tmp_path)
    (tmp_path / STATE).write_bytes(whole)
    good = '{"step": 1, "cpu_seconds": 0.1}'
    for row in ("{", "[]", "3", "{}", '{"step": null, "cpu_seconds": 1}'):
        (tmp_path / LOG).write_text(f"{good}\n{row}\n")
        with pytest.raises(RunError, match=r"log\.jsonl is damaged \(line 2: .* mend the line"):
            run(tmp_path)
    assert (tmp_path / STATE).read_bytes() == whole


def test_the_teacher_sees_every_batch(tmp_path):
    teacher = Mock(label=Mock(side_effect=lambda batch, output: (batch, output)))
    run(tmp_path, teacher=teacher)
    kinds = [call.args[0].supervision.value for call in teacher.label.call_args_list]
    assert kinds == (["detection", "image labels"] * 4)[:7]


def test_half_precision_computes_losses_in_full(tmp_path):
    class Checking(ToyCriterion):
        def forward(self, output, *args):
            assert output.logits.dtype == output.boxes.dtype == torch.float32
            return super().forward(output, *args)

    config = change(precision="bf16")
    detector, _ = run(tmp_path, config, criterion=Checking())
    full, _ = run(tmp_path / "full")  # another precision in the same program
    assert detector.boxes.weight.dtype == torch.float32
    assert not torch.equal(detector.boxes.weight, full.boxes.weight)
    torch.testing.assert_close(detector.boxes.weight, full.boxes.weight, atol=0.05, rtol=0.1)
