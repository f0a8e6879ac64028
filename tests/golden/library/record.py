"""Records what Keras (JAX backend) computes for tests/library_cases.py: outputs, gradients, states, configs.

    KERAS_BACKEND=jax python tests/golden/library/record.py

writes tests/golden/library/values.npz and configs.json. Needs keras and jax; the tests that read the files do not.
"""

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import keras
import library_cases as cases
import numpy as np

jax.config.update("jax_default_matmul_precision", "highest")
values: dict[str, np.ndarray] = {}
configs: dict[str, object] = {}


def keep(key: str, value: object) -> None:
    a = np.asarray(value)
    values[key] = a.astype("float32") if a.dtype == np.float64 else a


def config_of(obj: object) -> object:
    return json.loads(json.dumps(keras.saving.serialize_keras_object(obj)))


def record_layer(name: str, case: cases.LayerCase) -> None:
    keras.backend.clear_session()
    layer = case.make(keras)
    arrays = cases.layer_inputs(case)
    kwargs = {} if case.training is None else {"training": case.training}
    mask = cases.layer_mask(case) if case.mask else None
    if mask is not None:
        kwargs["mask"] = mask

    def inputs(xs):
        return xs if len(xs) > 1 else xs[0]

    symbols = [keras.Input(batch_shape=(None, *a.shape[1:]), dtype=str(a.dtype)) for a in arrays]
    outputs = layer(inputs(symbols))
    configs[f"layer/{name}"] = config_of(layer)
    configs[f"layer/{name}/shapes"] = [list(o.shape) for o in cases.flat(outputs)]
    configs[f"layer/{name}/weights"] = [[w.path, list(w.shape)] for w in layer.weights]
    layer.set_weights(cases.layer_weights(layer))
    trainable = [v.value for v in layer.trainable_variables]
    rest = [v.value for v in layer.non_trainable_variables]

    def scalar(trainable, xs):
        out, state = layer.stateless_call(trainable, rest, inputs(xs), **kwargs)
        out = cases.flat(out)
        total = sum(jax.numpy.sum(o * cases.direction(i, o.shape)) for i, o in enumerate(out))
        return total, (out, state)

    xs = [jax.numpy.asarray(a) for a in arrays]
    if case.ids:
        (_, (out, state)), grads = jax.value_and_grad(scalar, has_aux=True)(trainable, xs)
        dx = []
    else:
        (_, (out, state)), (grads, dx) = jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True)(trainable, xs)
    for i, o in enumerate(out):
        keep(f"layer/{name}/output/{i}", o)
    for i, g in enumerate(grads):
        keep(f"layer/{name}/gradient/{i}", g)
    for i, g in enumerate(dx):
        keep(f"layer/{name}/input_gradient/{i}", g)
    for v, s in zip(layer.non_trainable_variables, state):
        if any(v is w for w in layer.weights):
            keep(f"layer/{name}/state/{v.name}", s)
    plain = inputs([keras.ops.convert_to_tensor(a) for a in arrays])
    made = layer.compute_mask(plain, mask if len(arrays) == 1 else [mask] * len(arrays))
    for i, m in enumerate(cases.flat(made)):
        if m is not None:
            keep(f"layer/{name}/mask/{i}", m)


def record_losses() -> None:
    for name, (cls, kwargs, _) in cases.LOSSES.items():
        t, p = cases.loss_data(name)
        for reduction in cases.REDUCTIONS:
            fn = getattr(keras.losses, cls)(**kwargs, reduction=reduction)
            if reduction == "sum_over_batch_size":
                configs[f"loss/{name}"] = config_of(fn)
            for weighted in (False, True):
                if cls in ("Dice", "Tversky") and weighted:
                    continue
                w = cases.WEIGHTS if weighted else None
                key = f"loss/{name}/{reduction}/{int(weighted)}"
                try:
                    keep(key, fn(t, p, w))
                except (TypeError, ValueError) as error:  # Keras refuses some weights of samples
                    print("not recorded:", key, str(error).splitlines()[0])
                    continue
                if reduction == "sum_over_batch_size":
                    keep(key + "/gradient", jax.grad(fn, argnums=1)(t, jax.numpy.asarray(p), w))


def record_metrics() -> None:
    for name, (cls, kwargs, _) in cases.METRICS.items():
        t, p = cases.metric_data(name)
        for weighted in (False, True):
            keras.backend.clear_session()
            m = getattr(keras.metrics, cls)(**kwargs)
            w = cases.WEIGHTS if weighted else None
            try:
                m.update_state(t, p, w)
            except (TypeError, ValueError) as error:  # Keras refuses some weights of samples
                print("not recorded:", name, weighted, str(error).splitlines()[0])
                continue
            keep(f"metric/{name}/{int(weighted)}/0", m.result())
            m.update_state(t[::-1].copy(), p, w)
            keep(f"metric/{name}/{int(weighted)}/1", m.result())
            configs[f"metric/{name}"] = config_of(m)
            configs[f"metric/{name}/variables"] = [[v.name, list(v.shape)] for v in m.variables]


def record_optimizers() -> None:
    for name, make in cases.OPTIMIZERS.items():
        keras.backend.clear_session()
        opt = make(keras)
        variables = [keras.Variable(a, name=f"v{i}") for i, a in enumerate(cases.optimizer_start())]
        opt.build(variables)
        configs[f"optimizer/{name}"] = config_of(opt)
        configs[f"optimizer/{name}/variables"] = [[v.path, list(v.shape), str(v.dtype)] for v in opt.variables]
        for step in range(cases.OPTIMIZER_STEPS):
            opt.apply([keras.ops.convert_to_tensor(g) for g in cases.optimizer_gradients(step)], variables)
            for i, v in enumerate(variables):
                keep(f"optimizer/{name}/{step}/{i}", v)
        for i, v in enumerate(opt.variables):
            keep(f"optimizer/{name}/slot/{i}", v)


for layer_name, layer_case in cases.LAYERS.items():
    record_layer(layer_name, layer_case)
record_losses()
record_metrics()
record_optimizers()
for schedule_name, make_schedule in cases.SCHEDULES.items():
    schedule = make_schedule(keras.optimizers.schedules)
    keep(f"schedule/{schedule_name}", [float(schedule(s)) for s in cases.SCHEDULE_STEPS])
    configs[f"schedule/{schedule_name}"] = config_of(schedule)
for activation in cases.ACTIVATIONS:
    keep(
        f"activation/{activation}",
        keras.activations.get(activation)(keras.ops.convert_to_tensor(cases.activation_input())),
    )
for key, make_one in cases.REGULARIZERS.items():
    keep(f"regularizer/{key}", make_one(keras)(keras.ops.convert_to_tensor(cases.matrix())))
    configs[f"regularizer/{key}"] = config_of(make_one(keras))
for key, make_one in cases.CONSTRAINTS.items():
    keep(f"constraint/{key}", make_one(keras)(keras.ops.convert_to_tensor(cases.matrix())))
    configs[f"constraint/{key}"] = config_of(make_one(keras))
configs["keras_version"] = keras.__version__
here = Path(__file__).parent
np.savez_compressed(here / "values.npz", **values)
(here / "configs.json").write_text(json.dumps(configs, indent=0, sort_keys=False) + "\n")
print(len(values), "arrays", len(configs), "configs")
