"""One peer in a process of its own: reads requests as JSON lines, answers with JSON lines. Used by peers.py.

{"row": i}        make row i ready: {"first_ms", "outputs"} (the first call's time, with compilation)
{"seconds": s}    call it for about s seconds: {"times": [minimum, median, 95th percentile], "calls"}
{"end": true}     drop the row: {"peak_mb"} (the process's peak while the row was there)
"""

# ruff: noqa: E402 (the environment is set before libraries read it, and importing is timed)
from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEER, THREADS, DEVICE = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "DAGRT_NUM_THREADS"):
    os.environ[variable] = str(THREADS)
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="1")
if DEVICE == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
if PEER != "dagrt":
    os.environ["DAGRT_DEVICE"] = "cpu"  # which gives peers their weights, and is not to stand in a GPU's memory
if PEER.startswith("keras-"):
    os.environ["KERAS_BACKEND"] = {"jax": "jax", "tf": "tensorflow"}[PEER.split("-")[1]]
if PEER == "keras-jax":
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={THREADS}"

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print does not mix with the answers

import numpy as np

started = time.perf_counter()
if PEER == "dagrt":
    import dagrt
elif PEER.startswith("torch"):
    import torch
elif PEER == "onnxruntime":
    import onnxruntime
elif PEER == "openvino":
    import openvino
elif PEER == "ncnn":
    import ncnn
elif PEER == "keras-jax":
    import keras
elif PEER == "keras-tf":
    import keras
    import tensorflow
import_seconds = time.perf_counter() - started

import models

Side = tuple[Callable[[], Any], Callable[[Any], list[np.ndarray]]]


class Unsupported(Exception):
    pass


def dagrt_side(row: models.Row) -> Side:
    dagrt.set_device(DEVICE)
    dagrt.clear_session()
    model = models.build(dagrt, row.model)
    xs, ys = models.batch_of(row)
    x = xs if len(xs) > 1 else xs[0]
    if row.mode == "predict":
        return lambda: model.predict_on_batch(x), lambda y: y if isinstance(y, list) else [y]
    losses = models.MODELS[row.model].losses
    model.compile(dagrt.optimizers.Adam(1e-3), losses if len(losses) > 1 else losses[0])
    y = ys if len(ys) > 1 else ys[0]
    return lambda: model.train_on_batch(x, y), lambda loss: [np.atleast_1d(np.asarray(loss, dtype="float64"))[:1]]


def torch_model(row: models.Row) -> tuple[Any, list[Any]]:
    import dagrt
    import to_torch

    dagrt.clear_session()
    model = to_torch.Converted(models.build(dagrt, row.model)).eval()
    xs = to_torch.inputs_of(models.batch_of(row)[0])
    if any(x.ndim == 4 and x.shape[1] > 1 for x in xs):
        import torch

        model = model.to(memory_format=torch.channels_last)
    return model, xs


def torch_side(row: models.Row) -> Side:
    import to_torch

    torch.set_num_threads(THREADS)
    torch.set_flush_denormal(True)
    torch._dynamo.reset()
    if DEVICE != "cpu" and not torch.cuda.is_available():
        raise Unsupported("this PyTorch finds no GPU")
    # On a GPU both sides multiply in TF32, take arrays of the host and give their answer back to it.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    model, xs = torch_model(row)
    model = model.to(DEVICE)
    there = lambda ts: ts if DEVICE == "cpu" else [t.to(DEVICE) for t in ts]  # noqa: E731
    back = lambda ys: [y.to("cpu") for y in (ys if isinstance(ys, (list, tuple)) else [ys])]  # noqa: E731
    # There launches cost most: compiled models are recorded as CUDA graphs, as dagrt's are.
    mode = "default" if DEVICE == "cpu" else "reduce-overhead"
    run = torch.compile(model, mode=mode) if PEER == "torch-compile" else model
    begin = torch.compiler.cudagraph_mark_step_begin if run is not model and DEVICE != "cpu" else lambda: None
    if row.mode == "predict":

        def predict() -> Any:
            begin()
            with torch.inference_mode():
                ys = run(*there(xs))
                return ys if DEVICE == "cpu" else back(ys)

        return predict, to_torch.outputs_of
    ys = [torch.from_numpy(y if y.ndim < 4 else y.transpose(0, 3, 1, 2).copy()) for y in models.batch_of(row)[1]]
    losses = models.MODELS[row.model].losses
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-7, fused=True)

    def train() -> Any:
        begin()
        optimizer.zero_grad()
        loss = to_torch.loss_of(losses, run(*there(xs)), there(ys))
        loss.backward()
        optimizer.step()
        return loss if DEVICE == "cpu" else loss.detach().cpu()

    return train, lambda loss: [np.array([float(loss)])]


def exported(row: models.Row, path: str) -> list[np.ndarray]:
    """Writes the model as ONNX for the row's shapes; gives its inputs."""
    import torch

    model, xs = torch_model(row)
    xs = [x.contiguous() for x in xs]
    with contextlib.redirect_stdout(sys.stderr):
        names = [f"x{i}" for i in range(len(xs))]
        torch.onnx.export(model, tuple(xs), path, input_names=names, dynamo=False, opset_version=17)
    return [x.numpy() for x in xs]


def channels_last(ys: list[np.ndarray]) -> list[np.ndarray]:
    return [y.transpose(0, 2, 3, 1) if y.ndim == 4 else y for y in map(np.asarray, ys)]


def onnxruntime_side(row: models.Row) -> Side:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m.onnx")
        xs = exported(row, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {i.name: x for i, x in zip(session.get_inputs(), xs)}
    return lambda: session.run(None, feed), channels_last


def openvino_side(row: models.Row) -> Side:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m.onnx")
        xs = exported(row, path)
        core = openvino.Core()
        config = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(path), "CPU", config)
    request = compiled.create_infer_request()
    return lambda: request.infer(xs, share_inputs=True, share_outputs=True), lambda y: channels_last(list(y.values()))


def ncnn_side(row: models.Row) -> Side:
    import pnnx

    if row.batch != 1:
        raise Unsupported("ncnn computes one sample at a time")
    model, xs = torch_model(row)
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "m.pt")
    pnnx.export(model, path, tuple(x.contiguous() for x in xs), fp16=False)
    net = ncnn.Net()
    net.opt.num_threads = THREADS
    net.load_param(os.path.join(folder, "m.ncnn.param"))
    net.load_model(os.path.join(folder, "m.ncnn.bin"))
    held = [np.ascontiguousarray(x.numpy()[0]) for x in xs]  # a Mat does not keep its array alive
    held = [a.astype("int32") if a.dtype == np.int64 else a for a in held]
    mats = [ncnn.Mat(a) for a in held]
    outs = net.output_names()

    def predict(_held: Any = held) -> Any:
        extractor = net.create_extractor()
        for name, m in zip(net.input_names(), mats):
            extractor.input(name, m)
        return [extractor.extract(name)[1] for name in outs]

    return predict, lambda y: channels_last([np.array(m)[None] for m in y])


def keras_side(row: models.Row) -> Side:
    keras.utils.clear_session()
    model = models.build(keras, row.model)
    xs, ys = models.batch_of(row)
    x = xs if len(xs) > 1 else xs[0]
    flat = lambda y: [np.asarray(t) for t in (y if isinstance(y, (list, tuple)) else [y])]  # noqa: E731
    if row.mode == "train":
        losses = models.MODELS[row.model].losses
        model.compile(keras.optimizers.Adam(1e-3), losses if len(losses) > 1 else losses[0])
        y = ys if len(ys) > 1 else ys[0]
        return lambda: model.train_on_batch(x, y), lambda loss: [np.atleast_1d(np.asarray(loss, dtype="float64"))[:1]]
    if PEER == "keras-tf":
        call = tensorflow.function(lambda v: model(v, training=False))
        held = [tensorflow.constant(v) for v in xs]
        held = held if len(held) > 1 else held[0]
        return lambda: flat(call(held)), flat
    import jax

    call = jax.jit(lambda t, n, v: model.stateless_call(t, n, v, training=False)[0])
    trainable = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    return lambda: flat(call(trainable, rest, x)), flat


SIDES: dict[str, Callable[[models.Row], Side]] = {
    "dagrt": dagrt_side,
    "torch": torch_side,
    "torch-compile": torch_side,
    "onnxruntime": onnxruntime_side,
    "openvino": openvino_side,
    "ncnn": ncnn_side,
    "keras-jax": keras_side,
    "keras-tf": keras_side,
}


def peak_mb(reset: bool = False) -> float:
    """The process's peak since the last reset."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        return 0.0
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def summary(outputs: list[np.ndarray]) -> list[list[float]]:
    """Enough of the outputs to see that two peers computed the same."""
    found = []
    for y in outputs:
        flat = np.asarray(y, dtype="float64").ravel()
        found.append([float(np.abs(flat).max()), *flat[:: max(1, flat.size // 16)][:16].tolist()])
    return found


def main() -> None:
    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    if PEER == "keras-tf":
        tensorflow.config.threading.set_intra_op_parallelism_threads(THREADS)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    answer({"import_s": import_seconds})
    call: Callable[[], Any] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "row" in request:
                row = models.ROWS[request["row"]]
                if row.mode == "train" and PEER in ("onnxruntime", "openvino", "ncnn"):
                    raise Unsupported("does not train")
                gc.collect()
                peak_mb(reset=True)
                begin = time.perf_counter()
                call, unpack = SIDES[PEER](row)
                built = time.perf_counter()
                first = call()
                now = time.perf_counter()
                answer(
                    {
                        "build_ms": (built - begin) * 1e3,
                        "first_ms": (now - built) * 1e3,
                        "outputs": summary(unpack(first)),
                    }
                )
                call()
            elif "seconds" in request:
                times: list[float] = []
                end = time.perf_counter() + request["seconds"]
                while len(times) < 2 or (time.perf_counter() < end and len(times) < 5000):
                    begin = time.perf_counter()
                    call()
                    times.append(time.perf_counter() - begin)
                shown = [1e3 * float(np.percentile(times, p)) for p in (0, 50, 95)]
                answer({"times": shown, "calls": len(times)})
            else:
                call = None
                answer({"peak_mb": peak_mb()})
        except Exception as e:
            call = None
            answer({"error": f"{type(e).__name__}: {e}"[:300]})


if __name__ == "__main__":
    main()
