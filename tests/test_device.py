"""Where models run: names, errors, the way of the weights to a device and back. What needs a CUDA device runs on the emulator too."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagrt as keras
import numpy as np
import pytest
from dagrt import _core
from test_interrupt import interrupted_after
from test_prepared import WeightNormalised, check

CUDA = "cuda:0" in keras.devices()
needs_cuda = pytest.mark.skipif(not CUDA, reason="no CUDA device in this build or machine")
emulated = pytest.mark.skipif(bool(os.environ.get("DAGRT_REAL_GPU")), reason="the emulator can be broken")
once = pytest.mark.skipif(os.environ.get("DAGRT_EMULATED", "plain") != "plain", reason="one kind of emulator will do")
WITHOUT = "no GPU was found" if "DAGRT_CUDA" in os.environ else "(this build of dagrt has no CUDA|no GPU was found)"


@pytest.fixture(autouse=True)
def on_the_cpu() -> Any:
    keras.clear_session()
    keras.set_device("cpu")
    exact = keras.config.exact()
    yield
    keras.config.set_exact(exact)
    keras.set_device("cpu")


def small_model(width: int = 8) -> Any:
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Dense(3)(keras.layers.Dense(width, activation="tanh")(x)))


def data(rows: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.normal(size=(rows, 4)).astype("float32"), rng.normal(size=(rows, 3)).astype("float32")


def places(model: Any) -> set[str]:
    return {v._core.device for v in model.variables}


def in_new_process(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip() + done.stderr.strip()


# --- everywhere ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [keras.set_device, _core.find_device, lambda d: small_model().compile(device=d)])
@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "", "CPU"])
def test_an_unknown_name(use: Any, name: str) -> None:
    with pytest.raises(keras.DeviceError, match=f"device '{name}' is unknown: expected 'cpu', 'cuda' or 'cuda:' and a"):
        use(name)
    assert keras.device() == "cpu"


def test_dagrt_function_names_an_unknown_device_at_once() -> None:
    with pytest.raises(keras.DeviceError, match="device 'tpu' is unknown"):
        keras.function(lambda x: x, device="tpu")


@pytest.mark.skipif(CUDA, reason="there is a CUDA device")
def test_without_a_gpu() -> None:
    for use in (keras.set_device, lambda d: small_model().compile(device=d)):
        with pytest.raises(keras.DeviceError, match=f"device 'cuda' is not available: {WITHOUT}.*use 'cpu'"):
            use("cuda")
    model = small_model()
    model.compile("sgd", "mse", device="cpu")
    assert np.isfinite(model.train_on_batch(*data()))


def test_the_environment_chooses() -> None:
    code = "import dagrt; print(dagrt.device())"
    assert in_new_process(code, DAGRT_DEVICE="cpu") == "cpu"
    assert in_new_process(code, DAGRT_DEVICE="") == ("cuda:0" if CUDA else "cpu")  # a GPU where there is one
    assert "DeviceError: device 'abacus' is unknown" in in_new_process(code, DAGRT_DEVICE="abacus")
    if CUDA:
        assert in_new_process(code, DAGRT_DEVICE="cuda") == "cuda:0"
    else:
        assert "DeviceError: device 'cuda' is not available" in in_new_process(code, DAGRT_DEVICE="cuda")


def test_errors_of_device_memory_are_both() -> None:
    assert issubclass(keras.DeviceMemoryError, keras.DeviceError)
    assert issubclass(keras.DeviceMemoryError, keras.MemoryLimitError)
    assert issubclass(keras.DeviceMemoryError, MemoryError)


def test_the_extension_shares_no_symbols() -> None:
    """So what other libraries, as PyTorch, bring of the standard library or CUDA runtime before it or after cannot take its place."""

    def shown(*command: str) -> str:
        return subprocess.run([*command, _core.__file__], capture_output=True, text=True, check=True).stdout

    given = [line.split()[-1] for line in shown("nm", "-D", "--defined-only").splitlines()]
    assert given == ["PyInit__core"]
    assert not re.findall(r" U (?:cuda|cu[A-Z])\w*", shown("nm", "-D", "--undefined-only"))
    assert not re.findall(r"NEEDED.*cuda.*", shown("readelf", "-d"))


# --- with a CUDA device ----------------------------------------------------------------------------------------------


@needs_cuda
def test_compile_names_the_device() -> None:
    x, y = data()
    losses = {}
    for device in ("cpu", "cuda", "cuda:0"):
        keras.clear_session()
        keras.utils.set_random_seed(3)
        model = small_model()
        model.compile(keras.optimizers.Adam(1e-2), "mse", metrics=["mae"], device=device)
        losses[device] = model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0).history["loss"]
        assert places(model) == {"cpu" if device == "cpu" else "cuda:0"}
        assert {v._core.device for v in model.optimizer.variables} == places(model)
        model.evaluate(x, y, verbose=0)
        model.predict(x, verbose=0)
        assert places(model) == {"cpu" if device == "cpu" else "cuda:0"}
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=2e-3)
    assert losses["cuda"] == losses["cuda:0"]


@needs_cuda
def test_weights_follow_the_function() -> None:
    """One variable read and written on both devices in turn: there is one value of it."""
    v = keras.Variable(np.zeros(3, "float32"))
    add = {d: keras.function(lambda x: v.assign(v + x), device=d) for d in ("cpu", "cuda:0")}
    for n, device in enumerate(["cpu", "cuda:0", "cuda:0", "cpu", "cuda:0", "cpu", "cpu"], start=1):
        add[device](np.ones(3, "float32"))
        assert v._core.device == device
        assert v.numpy().tolist() == [n] * 3
        v.assign(v.numpy())
    add["cuda:0"](np.ones(3, "float32"))
    v.assign(np.full(3, 40.0, "float32"))  # to where it is
    add["cuda:0"](np.ones(3, "float32"))
    assert v.numpy().tolist() == [41] * 3


@needs_cuda
def test_prepared_values_are_those_of_now() -> None:
    """On the CPU predict keeps packed weights; training on the other device makes them stale."""
    x, y = data()
    model = small_model(64)
    model.compile(keras.optimizers.SGD(0.5), "mse", device="cpu")
    before = model.predict(x, verbose=0)
    model.compile(keras.optimizers.SGD(0.5), "mse", device="cuda")
    model.train_on_batch(x, y)
    there = model.predict(x, verbose=0)
    model.compile(keras.optimizers.SGD(0.5), "mse", device="cpu")
    back = model.predict(x, verbose=0)
    assert np.abs(there - before).max() > 1e-2
    np.testing.assert_allclose(back, there, atol=5e-3)


@needs_cuda
def test_what_follows_from_variables_is_made_once_on_the_device() -> None:
    """Shared by programs of several batch sizes, remade after a write, in no step of theirs, freed with them."""
    keras.config.set_exact(True)
    x, y = np.random.default_rng(0).normal(size=(8, 64)).astype("float32"), np.ones((8, 3), "float32")
    inputs = keras.Input((64,))
    model = keras.Model(inputs, WeightNormalised(3)(keras.layers.BatchNormalization()(WeightNormalised(80)(inputs))))
    model.compile("sgd", "mse", device="cuda")
    gc.collect()
    before = _core.memory_in_use()["prepared_bytes"]
    check(model, x)
    held = _core.memory_in_use()["prepared_bytes"] - before
    assert held >= 4 * (64 * 80 + 80 * 3)
    model.train_on_batch(x, y)  # writes them: computes inside
    check(model, x)
    model.set_weights([w + 0.5 for w in model.get_weights()])
    check(model, x)
    assert places(model) == {"cuda:0"}
    assert _core.memory_in_use()["prepared_bytes"] <= before + held + 1000  # the training step's own small constants
    model.compile("sgd", "mse", device="cpu")  # the weights go, and come back
    model.train_on_batch(x, y)
    check(model, x)
    model.compile("sgd", "mse", device="cuda")
    check(model, x)


@needs_cuda
def test_prepared_values_of_constants_alone() -> None:
    f = keras.function(lambda x: x + keras.ops.sin(keras.ops.arange(3000, dtype="float32")), device="cuda")
    np.testing.assert_allclose(f(np.ones(3000, "float32")), 1 + np.sin(np.arange(3000.0)), atol=1e-4)
    assert _core.memory_in_use()["prepared_bytes"] >= 12000


@needs_cuda
def test_set_device_is_of_what_is_traced_later() -> None:
    x, y = data()
    model = small_model()
    model.compile("sgd", "mse")
    model.train_on_batch(x, y)
    keras.set_device("cuda")
    assert keras.device() == "cuda:0"
    model.train_on_batch(x, y)
    assert places(model) == {"cpu"}
    model.compile("sgd", "mse")
    model.train_on_batch(x, y)
    assert places(model) == {"cuda:0"}
    assert isinstance(keras.ops.add(np.ones(2, "float32"), 1.0), keras.Tensor)  # one op at a time stays on the CPU


MEMORY = """
import dagrt as keras, numpy as np
x = keras.Input((64,))
model = keras.Model(x, keras.layers.Dense(4)(keras.layers.Dense(256)(x)))
model.compile(keras.optimizers.Adam(1e-3), "mse", device="cuda")
small, large = np.ones((4, 64), "float32"), np.ones((20000, 64), "float32")
first = model.train_on_batch(small, small[:, :4])
kept = [v.numpy() for v in model.variables]
for _ in range(2):
    try:
        model.train_on_batch(large, large[:, :4])
        print("no error")
    except keras.DeviceMemoryError as e:
        print(e)
assert all(np.array_equal(v.numpy(), k) for v, k in zip(model.variables, kept))
assert model.train_on_batch(small, small[:, :4]) < first
try:
    model = keras.Sequential([keras.layers.Dense(4096, input_shape=(2048,))])
    model.compile("sgd", "mse", device="cuda")
    model.predict(np.ones((1, 2048), "float32"), verbose=0)
except keras.DeviceError as e:
    print(e)
print(model.predict_on_batch(np.ones((1, 2048), "float32")).shape if model.compile("sgd", device="cpu") is None else 0)
"""


@needs_cuda
@emulated
def test_out_of_memory_leaves_the_model_usable() -> None:
    lines = in_new_process(MEMORY, DAGRT_EMULATOR_MEMORY=str(16 << 20)).splitlines()
    assert len(lines) == 4, lines
    for line in lines[:2]:
        assert (
            line.startswith("the working memory of this call needs ")
            and "on cuda:0" in line
            and "smaller batch" in line
        )
    assert lines[2].startswith("variable '") and "needs 33554432 bytes (32.0 MiB) on cuda:0" in lines[2]
    assert lines[3] == "(1, 4096)"


class Steps(keras.callbacks.Callback):
    """Asks for every step's logs: each is then finished before the next is started."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.losses.append(logs["loss"])


@needs_cuda
@pytest.mark.parametrize("width", [4, 6000])  # 6000: rows are gathered by the epoch's own thread
@pytest.mark.parametrize("shuffle", [False, True])
def test_no_batch_is_overwritten_before_it_was_read(width: int, shuffle: bool) -> None:
    """The next batch's copy overlaps the step before: one by one, step by step and on batches it is the same training."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(45, width)).astype("float32"), rng.normal(size=(45, 2)).astype("float32")
    runs = []
    for way in ("ahead", "one by one", "batches"):
        keras.clear_session()
        keras.utils.set_random_seed(7)
        inputs = keras.Input((width,))
        model = keras.Model(inputs, keras.layers.Dense(2)(inputs[:, :4] + inputs[:, width - 4 :]))
        model.compile(keras.optimizers.Adam(1e-2), "mse", device="cuda")
        if way == "batches" and not shuffle:
            for _ in range(2):
                for i in range(0, 45, 8):
                    model.train_on_batch(x[i : i + 8], y[i : i + 8])
        else:
            steps = [Steps()] if way == "one by one" else []
            model.fit(x, y, epochs=2, batch_size=8, shuffle=shuffle, verbose=0, callbacks=steps)
            assert not steps or len(steps[0].losses) == 12
        predicted = model.predict(x, batch_size=8, verbose=0)
        np.testing.assert_array_equal(predicted[16:24], model.predict_on_batch(x[16:24]))
        runs.append([*(v.numpy() for v in [*model.variables, *model.optimizer.variables]), predicted])
    for other in runs[1:]:
        for a, b in zip(runs[0], other):
            assert a.tobytes() == b.tobytes()


STREAMS = """
import dagrt as keras, numpy as np
x, y = np.random.default_rng(1).normal(size=(40, 12)).astype("float32"), np.ones((40, 2), "float32")
inputs = keras.Input((12,))
model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(8, activation="tanh")(inputs)))
model.compile(keras.optimizers.Adam(1e-3), "mse", metrics=["mae"], device="cuda")
model.fit(x, y, batch_size=8, epochs=2, verbose=0)
"""


def ordered(calls: list[dict[str, Any]]) -> list[int]:
    """Of each call of the emulator's record, as bits, which calls' work is sure to be done when its own begins."""
    before, streams, events, host = [], dict[int, int](), dict[int, int](), 0
    for i, c in enumerate(calls):
        stream, event = c["stream"], c["event"]
        before.append(streams.get(stream, 0) | host)
        if c["call"] == "record":
            events[event] = streams.get(stream, 0)
        elif c["call"] == "wait":
            streams[stream] = streams.get(stream, 0) | events.get(event, 0)
        elif c["call"] == "host waits":
            host |= streams.get(stream, 0) | events.get(event, 0)
        elif c["call"] != "instantiate":
            streams[stream] = before[i] | 1 << i
    return before


@needs_cuda
@emulated
def test_a_step_is_one_graph_and_the_copies_of_the_next_overlap_it(tmp_path: Path) -> None:
    record = tmp_path / "streams"
    assert in_new_process(STREAMS, DAGRT_EMULATOR_STREAMS=str(record)) == ""
    calls = [json.loads(line) for line in record.read_text().splitlines()]
    before = ordered(calls)
    number = calls[max(i for i, c in enumerate(calls) if c["call"] == "graph")]["graph"]
    steps = [i for i, c in enumerate(calls) if c["call"] == "graph" and c["graph"] == number]
    assert len(steps) == 10  # each step is a launch of it
    assert [c["call"] for c in calls if c["graph"] == number].count("instantiate") == 1
    assert not any(c["call"] == "kernel" for c in calls)
    inside = calls[steps[0] : steps[-1] + 1]
    assert sum(c["call"] == "graph" for c in inside) == 10
    inputs = [i for i, c in enumerate(calls) if c["call"] == "copy in" and c["size"] == 4 * 8 * (12 + 2)]
    outputs = [i for i, c in enumerate(calls) if c["call"] == "copy out" and i > steps[0]]

    def at_once(i: int, k: int) -> bool:
        return not (before[i] >> k | before[k] >> i) & 1

    assert len(inputs) == len(outputs) == 10
    for n, step in enumerate(steps):
        assert before[step] >> inputs[n] & 1 and before[outputs[n]] >> step & 1
        assert len({calls[i]["stream"] for i in (step, inputs[n], outputs[n])}) == 3
        if n % 5:  # of the same epoch
            assert at_once(inputs[n], steps[n - 1]) and at_once(outputs[n - 1], step)
            assert not at_once(step, steps[n - 1])


@needs_cuda
@pytest.mark.parametrize("bad", [0, 3, 4, 7])
def test_a_fault_stops_the_steps_behind_it(bad: int) -> None:
    """The step behind a bad label is on its way when the host learns of it: it must change nothing."""
    x, y = np.random.default_rng(3).normal(size=(32, 3)).astype("float32"), np.arange(32) % 4
    y[4 * bad + 1] = 9
    weights = []
    for steps in (8, bad):
        keras.clear_session()
        keras.utils.set_random_seed(5)
        inputs = keras.Input((3,))
        model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-2), loss, device="cuda")
        model.train_on_batch(x[:4], np.zeros(4, "int64"))
        if steps == 8:
            with pytest.raises(keras.DataError, match=r"expected ids in 0\.\.3, got 9 at position 1"):
                model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
        elif steps:
            model.fit(x[: 4 * bad], y[: 4 * bad], batch_size=4, shuffle=False, verbose=0)
        weights.append([v.numpy() for v in [*model.trainable_variables, *model.optimizer.variables]])
    for a, b in zip(*weights):
        assert a.tobytes() == b.tobytes()


@needs_cuda
def test_two_models_in_threads_on_one_device() -> None:
    """Each trains and predicts as it does alone."""
    x, y = data(24)

    def history(model: Any) -> list[float]:
        losses = model.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0).history["loss"]
        return [*losses, float(model.predict(x, verbose=0).sum())]

    def models() -> list[Any]:
        keras.utils.set_random_seed(3)
        made = [small_model(w) for w in (8, 16)]
        for m in made:
            m.compile(keras.optimizers.Adam(1e-2), "mse", device="cuda")
            m.train_on_batch(x[:8], y[:8])
        return made

    alone = [history(m) for m in models()]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(history, models())) == alone
    model = models()[0]
    want = model.predict(x, verbose=0)
    with ThreadPoolExecutor(3) as pool:  # one program, several runs in flight
        for got in pool.map(lambda _: model.predict(x, verbose=0), range(6)):
            assert got.tobytes() == want.tobytes()


@needs_cuda
def test_cooperative_runs_of_two_threads_come_one_after_another() -> None:
    """Blocks of two such kernels at the same time could wait for blocks that find no room; the emulator refuses them."""
    code = """
import threading
import dagrt as keras, numpy as np

def lstm(units):
    x = keras.Input((3, 4))
    model = keras.Model(x, keras.layers.LSTM(units)(x))
    model.compile("sgd", "mse", device="cuda:0")
    return model

models, x, failed = [lstm(5), lstm(6)], np.ones((32, 3, 4), "float32"), []

def use(model):
    try:
        for _ in range(4):
            model.fit(x, np.ones((32, model.output_shape[-1]), "float32"), batch_size=8, verbose=0)
            model.predict(x, batch_size=4, verbose=0)
    except Exception as e:
        failed.append(e)

threads = [threading.Thread(target=use, args=(m,)) for m in models]
for t in threads: t.start()
for t in threads: t.join()
print(failed)
"""
    assert in_new_process(code) == "[]"


@needs_cuda
def test_ctrl_c_ends_a_fit() -> None:
    """As test_interrupt.py has it for the CPU: what counts is whole steps."""
    x = keras.Input((64,))
    model = keras.Model(x, keras.layers.Dense(1)(keras.layers.Dense(64)(x)))
    model.compile(keras.optimizers.SGD(1e-3), "mse", device="cuda")
    ones = np.ones((256, 64), "float32")
    run = lambda epochs: model.fit(ones, ones[:, :1], epochs=epochs, batch_size=256, verbose=0)  # noqa: E731
    model.train_on_batch(ones[:2], ones[:2, :1])
    start = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    assert interrupted_after(0.5, lambda: run(10**6)) < 5
    everything = [*model.variables, *model.optimizer.variables]
    stopped, steps = [v.numpy() for v in everything], int(np.asarray(model.optimizer.iterations)) - 1
    for v, a in zip(everything, start):
        v.assign(a)
    if steps:
        run(steps)
    for v, a in zip(everything, stopped):
        assert np.array_equal(v.numpy(), a)


@needs_cuda
def test_a_cancelled_run_stores_nothing() -> None:
    """One long run, which the signal finds before its commit."""
    v = keras.Variable(np.zeros((), "float32"))

    @keras.function(device="cuda")
    def long(x: Any) -> Any:
        for _ in range(6):
            x = keras.ops.tanh(keras.ops.matmul(x, x))
        return v.assign(v + keras.ops.sum(x) * 0 + 1)

    x = np.ones((320, 320), "float32") / 320
    long(np.ones((2, 2), "float32"))
    assert float(v) == 1
    runs = lambda: [long(x) for _ in range(100)]  # noqa: E731
    interrupted_after(0.3, runs)
    assert float(v).is_integer()
    before = float(v)
    long(np.ones((2, 2), "float32"))
    assert float(v) == before + 1


LOST = """
import dagrt as keras, numpy as np
x = keras.Input((6,))
h = keras.layers.Dense(4, activation="relu", name="first")(x)
model = keras.Model(x, keras.layers.Softmax(name="last")(keras.layers.Dense(5, name="second")(h)))
model.compile("sgd", "mse", device="cuda")
for _ in range(3):
    try:
        print(model.predict_on_batch(np.ones((2, 6), "float32")).shape)
    except keras.DeviceError as e:
        print(e)
"""


@needs_cuda
@emulated
def test_a_fault_that_ends_the_driver_names_kernel_and_node() -> None:
    """The same in a replayed graph, in one recorded just now, and where nothing is recorded."""
    seen = []
    for number in (0, 2):
        lines = {}
        for sync in ("0", "1"):
            lines[sync] = in_new_process(LOST, DAGRT_EMULATOR_FAULT=f"lost {number}", DAGRT_CUDA_SYNC=sync).splitlines()
        graph, one = lines["0"], lines["1"]
        assert len(graph) == len(one) == 3
        k = next(i for i, line in enumerate(graph) if line != "(2, 5)")
        name = r"; (in|the last to begin:) ([^;]+ of [^;]+); this process cannot use cuda:0 any more: start it again, with DAGRT_CUDA_SYNC=1"
        found = [
            re.search("a run failed: an illegal memory access was encountered" + name, text[k]) for text in (graph, one)
        ]
        assert found[0] and found[1], (graph, one)
        assert found[0][2] == found[1][2]
        assert all("cuda:0: " in line and "this process cannot use cuda:0" in line for line in graph[k + 1 :])
        seen.append(found[0][2])
    assert "functional/first" in seen[0] and "functional/last" in seen[1], seen


GENERATION = """
import dagrt as keras, numpy as np
from dagrt import _core
losses, x, y = {}, np.random.default_rng(0).normal(size=(4, 8, 8, 8)).astype("float32"), np.ones((4, 8), "float32")
for policy in ("float32", "mixed_bfloat16"):
    for device in ("cpu", "cuda"):
        keras.clear_session()
        keras.utils.set_random_seed(2)
        keras.mixed_precision.set_global_policy(policy)
        h = inputs = keras.Input((8, 8, 8))
        h = keras.layers.Conv2D(16, 3, activation="relu")(h)
        h = keras.layers.LSTM(8)(keras.layers.Reshape((6, 96))(h))
        model = keras.Model(inputs, keras.layers.Dense(8, dtype="float32")(keras.layers.Dense(16)(h)))
        model.compile(keras.optimizers.SGD(0.1), "mse", device=device)
        step = model._step("train").prepare((x, y, None))
        assert "_bf16(" not in step._traced._core.text([a.shape for a in step._arrays]) or device == "cpu"
        losses[device] = [model.train_on_batch(x, y) for _ in range(2)]
    error = np.abs(np.subtract(losses["cpu"], losses["cuda"])).max()
    assert error < (1e-5 if policy == "float32" else 1e-2), losses
print("as on the CPU")
"""


@needs_cuda
@emulated
def test_an_older_generation_is_given_nothing_that_it_does_not_have() -> None:
    """No products of tensor cores, no bfloat16, 64 KB of shared memory."""
    assert in_new_process(GENERATION, DAGRT_EMULATOR_CAPABILITY="75") == "as on the CPU"


@needs_cuda
@emulated
def test_a_generation_without_code_in_this_build_is_not_taken_for_a_device() -> None:
    code = """
import dagrt as keras
print(keras.device(), keras.devices())
try:
    keras.set_device("cuda")
except keras.DeviceError as e:
    print(e)
"""
    first, error = in_new_process(code, DAGRT_EMULATOR_CAPABILITY="61").splitlines()
    assert first == "cpu ['cpu']"
    assert re.search(
        r"no GPU was found \(cuda:0 is of generation 61, for which this build has no code: DAGRT_CUDA_ARCHS was 75",
        error,
    )


@needs_cuda
@emulated
@once
@pytest.mark.parametrize("capability", ["103", "110", "121"])
def test_a_generation_between_or_behind_those_listed_is_a_device(capability: str) -> None:
    """103 and 121 run the code of 100 and 120; 110 compiles the PTX of 100 for itself, for which that of 120 is too new."""
    code = "import dagrt as k, numpy as np; print(k.function(lambda a: a @ a, device='cuda')(np.ones((8, 8), 'float32'))[0, 0])"
    assert "8.0" in in_new_process(code, DAGRT_EMULATOR_CAPABILITY=capability)


TWO_DEVICES = """
import dagrt as keras, numpy as np
x, y = np.random.default_rng(0).normal(size=(8, 4)).astype("float32"), np.ones((8, 3), "float32")
losses = []
for device in ("cuda:0", "cuda:1"):
    keras.clear_session()
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.BatchNormalization()(inputs)))
    model.compile("sgd", "mse", device=device)
    losses.append([model.train_on_batch(x, y) for _ in range(3)] + [float(model.predict_on_batch(x).sum())])
    assert {v._core.device for v in model.variables} == {device}
kernel = model.layers[-1].kernel
keras.function(lambda a: kernel.assign(a + kernel), device="cuda:0")(np.zeros((4, 3), "float32"))
assert kernel._core.device == "cuda:0"
print(losses[0] == losses[1])
"""


@needs_cuda
@emulated
@once
def test_a_thread_has_its_own_device_behind_every_call(tmp_path: Path) -> None:
    """Another library's kernels go to the thread's current one: ours is chosen for as long as a call takes."""
    record = tmp_path / "streams"
    assert in_new_process(TWO_DEVICES, DAGRT_EMULATOR_DEVICES="2", DAGRT_EMULATOR_STREAMS=str(record)) == "True"
    chosen = [c["size"] for c in map(json.loads, record.read_text().splitlines()) if c["call"] == "choose"]
    assert len(chosen) > 20 and chosen == [1, 0] * (len(chosen) // 2)


SECOND_COPY = """
import os
import dagrt as keras, numpy as np
add, double = keras.function(lambda a, b: a + b, device="cuda"), keras.function(lambda a: a * 2, device="cuda")
ones = np.ones(1000, "float32")
os.environ["DAGRT_EMULATOR_FAULT"] = "call copy 1"
try:
    add(ones, ones)
except keras.DeviceError as e:
    print(e)
print(float(double(np.ones(100_000, "float32"))[-1]))  # in a larger arena: the one to which the first copy went is no more
print(float(add(ones, ones)[-1]))
"""


@needs_cuda
@emulated
@once
def test_a_copy_that_fails_leaves_none_under_way() -> None:
    """Of a run's two inputs the second does not reach the device: what the first is copied to goes back to its pool."""
    error, large, again = in_new_process(SECOND_COPY).splitlines()
    assert error == "cuda:0: a copy to the device failed: out of memory"
    assert (large, again) == ("2.0", "2.0")


NO_EVENT = """
import dagrt as keras, numpy as np
x = keras.Input((3, 4))
model = keras.Model(x, keras.layers.LSTM(5)(x))  # behind a cooperative launch stands an event
model.compile("sgd", "mse", device="cuda")
for _ in range(2):
    try:
        print(model.predict_on_batch(np.ones((2, 3, 4), "float32")).shape)
    except keras.DeviceError as e:
        print(e)
"""


@needs_cuda
@emulated
@pytest.mark.parametrize("call", ["event", "graph", "launch"])
def test_an_error_while_a_run_is_recorded_or_started_is_no_lost_device(call: str) -> None:
    """Of a call that would be refused while a run is recorded, nothing is asked; the next run is as if nothing had been."""
    first, second = in_new_process(NO_EVENT, DAGRT_EMULATOR_FAULT=f"call {call}").splitlines()
    assert re.fullmatch(
        "cuda:0: (making an event|making a graph of a run|starting a run) failed: out of memory.*", first
    )
    assert second == "(2, 5)"


@needs_cuda
def test_a_profile_has_the_devices_times() -> None:
    x, y = data(12)
    weights = []
    for profiled in (False, True):
        keras.clear_session()
        keras.utils.set_random_seed(1)
        model = small_model()
        model.compile(keras.optimizers.Adam(1e-2), "mse", device="cuda")
        fit = lambda model=model: model.fit(x, y, epochs=2, batch_size=4, verbose=0, shuffle=False)  # noqa: E731
        if profiled:
            with keras.profile() as p:
                fit()
            p.steps = [s for s in p.steps if s["device"] == "cuda:0"]  # single ops on arrays run on the CPU
            assert sum(s["op"].startswith("adam_update") for s in p.steps) == 6
            assert all(s["end_ns"] >= s["begin_ns"] for s in p.steps)
            for layer in model.layers[1:]:
                assert any(layer.name in s["path"] for s in p.steps)
            assert " runs on cuda:0, step by step" in str(p)
        else:
            fit()
        weights.append([v.numpy() for v in model.variables])
    for a, b in zip(*weights):
        assert a.tobytes() == b.tobytes()
    text = str(model.profile(x, runs=2))
    assert "a run over 2 runs on cuda:0" in text and "dense" in text


@needs_cuda
def test_waiting_behind_every_kernel_changes_nothing() -> None:
    code = """
import dagrt as keras, numpy as np
keras.utils.set_random_seed(1)
a, b = keras.Input((5, 3)), keras.Input((5, 3))
h = keras.layers.concatenate([keras.layers.LSTM(4)(a), keras.layers.LSTM(4)(b)])
model = keras.Model([a, b], keras.layers.Dense(2)(h))
model.compile("adam", "mse", device="cuda")
x = [np.random.default_rng(i).normal(size=(6, 5, 3)).astype("float32") for i in (1, 2)]
print(model.fit(x, np.ones((6, 2), "float32"), batch_size=2, epochs=2, verbose=0, shuffle=False).history["loss"])
"""
    assert "[" in in_new_process(code)
    assert in_new_process(code, DAGRT_CUDA_SYNC="1") == in_new_process(code)


def test_peers_are_measured_on_a_device_or_told_that_there_is_none() -> None:
    script = Path(__file__).parents[1] / "bench" / "peers.py"
    rows = ["--rows", "mlp, batch 1;mlp, train 32", "--rounds", "1", "--seconds", "0.01", "--peers", "torch"]
    done = subprocess.run(
        [sys.executable, str(script), "--device", "cuda", *rows], capture_output=True, text=True, timeout=300
    )
    if CUDA:
        assert done.returncode == 0, done.stderr
        assert len(re.findall(r"^mlp, .*?\d / \d", done.stdout, re.MULTILINE)) == 2, done.stdout
        assert "dagrt: " not in done.stdout  # an error of its row
    else:
        assert done.returncode == 2
        assert "device 'cuda' is not available" in done.stderr
