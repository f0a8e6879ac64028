"""The optimisers. SGD, RMSprop and Adam(W) are one op for each variable; the others are composed."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagrt import ops
from dagrt.ops.raw import emit
from dagrt.optimizers.optimizer import Optimizer
from dagrt.variable import Variable

_BASE = (
    "weight_decay=None, clipnorm=None, clipvalue=None, global_clipnorm=None, use_ema=False, ema_momentum=0.99, "
    "ema_overwrite_frequency=None, loss_scale_factor=None, gradient_accumulation_steps=None, name=None, **kwargs"
)


def _signature(own: str, base: str = _BASE) -> Any:
    """Class decorator: an `__init__` with Keras's arguments, which keeps its own ones as attributes."""
    names = [p.split("=")[0].strip() for p in own.split(",")]
    passed = [p.split("=")[0].strip() for p in base.split(",") if "**" not in p]

    def decorate(cls: Any) -> Any:
        body = "".join(f"    self.{n} = {n}\n" for n in names if n not in ("learning_rate", "weight_decay"))
        source = (
            f"def __init__(self, {own}, {base}):\n"
            f"    Optimizer.__init__(self, learning_rate=learning_rate, "
            f"{'weight_decay=weight_decay, ' if 'weight_decay' in names else ''}"
            f"{', '.join(f'{n}={n}' for n in passed)}, **kwargs)\n{body}    self._check()\n"
        )
        scope: dict[str, Any] = {"Optimizer": Optimizer}
        exec(source, scope)
        cls.__init__ = scope["__init__"]
        own_names = [n for n in names if n not in ("learning_rate", "weight_decay")]

        def get_config(self: Any) -> dict[str, Any]:
            return {**Optimizer.get_config(self), **{n: getattr(self, n) for n in own_names}}

        if "get_config" not in cls.__dict__:
            cls.get_config = get_config
        return cls

    return decorate


class _Checked(Optimizer):
    def _check(self) -> None:
        """Arguments out of range."""


def _fusible(v: Variable) -> bool:
    return v.dtype == "float32"


@_signature("learning_rate=0.01, momentum=0.0, nesterov=False")
class SGD(_Checked):
    """Gradient descent, with momentum where wanted.

    w -= lr * g. With momentum: m = momentum * m - lr * g; w += m, or with Nesterov's w += momentum * m - lr * g.

    Args:
        learning_rate: number, schedule, or function without arguments.
        momentum: share of the last step that goes on, 0 to 1.
        nesterov: look ahead by the momentum.

        The others as for `Optimizer`.

    Raises:
        ValueError: momentum outside 0 to 1.

    Example:
        >>> import dagrt as keras
        >>> w = keras.Variable([1.0])
        >>> keras.optimizers.SGD(0.1).apply([[2.0]], [w])
        >>> w.numpy()
        array([0.8], dtype=float32)

    Reference:
        Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013.
    """

    _fused_decay = True

    def _check(self) -> None:
        if not isinstance(self.momentum, (int, float)) or not 0 <= self.momentum <= 1:
            raise ValueError("`momentum` must be a float between [0, 1].")

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        if self.momentum:
            (self._momentums,) = self._slots("momentum")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        decay = float(self.weight_decay or 0.0) if self._decays(variable) else 0.0
        if not self.momentum:
            self.assign(variable, emit("sgd_update", variable, gradient, learning_rate, weight_decay=decay))
            return
        m = self._momentums[self._place(variable)]
        new, moment = emit(
            "momentum_update",
            variable,
            m,
            gradient,
            learning_rate,
            momentum=float(self.momentum),
            nesterov=bool(self.nesterov),
            weight_decay=decay,
        )
        self.assign(variable, new)
        self.assign(m, moment)


@_signature("learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False")
class Adam(_Checked):
    """Steps by running means of gradients and of their squares.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g²; w -= lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon), t = 1, 2, ...
    AMSGrad puts the largest v so far in place of v.

    Args:
        learning_rate: number, schedule, or function without arguments.
        beta_1: b1, share of m that stays.
        beta_2: b2, share of v that stays.
        epsilon: added to the root; not corrected for t ("epsilon hat" of the paper).
        amsgrad: never let v fall.

        The others as for `Optimizer`.

    Example:
        >>> import dagrt as keras
        >>> w = keras.Variable([1.0, 1.0])
        >>> keras.optimizers.Adam(0.1).apply([[0.001, -1000.0]], [w])
        >>> w.numpy().round(3)
        array([0.9, 1.1], dtype=float32)

    Reference:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980; AMSGrad: Reddi, Kale and Kumar,
        "On the Convergence of Adam and Beyond", 2018, arXiv:1904.09237.
    """

    @property
    def _fused_decay(self) -> bool:  # type: ignore[override]
        return not self.amsgrad

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        names = ["momentum", "velocity"] + (["velocity_hat"] if self.amsgrad else [])
        if self.amsgrad:
            self._momentums, self._velocities = self._slots("momentum", "velocity")
            (self._hats,) = self._slots(names[2])
        else:
            self._momentums, self._velocities = self._slots("momentum", "velocity")

    def _begin_step(self, learning_rate: Any) -> None:
        self._step_number = ops.cast(ops.convert_to_tensor(self.iterations), "int32")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        at = self._place(variable)
        m, v = self._momentums[at], self._velocities[at]
        if self.amsgrad:
            self._amsgrad_step(gradient, variable, learning_rate, m, v, self._hats[at])
            return
        decay = float(self.weight_decay or 0.0) if self._decays(variable) else 0.0
        new, m2, v2 = emit(
            "adam_update",
            variable,
            m,
            v,
            gradient,
            learning_rate,
            self._step_number,
            beta_1=float(self.beta_1),
            beta_2=float(self.beta_2),
            epsilon=float(self.epsilon),
            weight_decay=decay,
        )
        self.assign(variable, new)
        self.assign(m, m2)
        self.assign(v, v2)

    def _amsgrad_step(self, g: Any, variable: Variable, lr: Any, m: Variable, v: Variable, hat: Variable) -> None:
        t = ops.cast(self._step_number, "float32") + 1.0
        alpha = lr * ops.sqrt(1.0 - ops.power(float(self.beta_2), t)) / (1.0 - ops.power(float(self.beta_1), t))
        m2 = m.value + (g - m.value) * (1.0 - self.beta_1)
        v2 = v.value + (ops.square(g) - v.value) * (1.0 - self.beta_2)
        h2 = ops.maximum(hat.value, v2)
        self.assign(m, m2)
        self.assign(v, v2)
        self.assign(hat, h2)
        self.assign_sub(variable, m2 * alpha / (ops.sqrt(h2) + self.epsilon))


_NO_DECAY = _BASE.replace("weight_decay=None, ", "")


@_signature("learning_rate=0.001, weight_decay=0.004, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False", _NO_DECAY)
class AdamW(Adam):
    """Adam with weight decay beside the gradients.

    w -= lr * weight_decay * w, then as `Adam`.

    Args:
        learning_rate: number, schedule, or function without arguments.
        weight_decay: share that each step takes, times the learning rate.
        beta_1, beta_2, epsilon, amsgrad: as for `Adam`.

    Raises:
        ValueError: weight_decay is None.

    Example:
        >>> import dagrt as keras
        >>> w = keras.Variable([1.0])
        >>> keras.optimizers.AdamW(0.1, weight_decay=0.5).apply([[0.0]], [w])
        >>> w.numpy()
        array([0.95], dtype=float32)

    Reference:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101.
    """

    def _check(self) -> None:
        if self.weight_decay is None:
            raise ValueError("Argument `weight_decay` must be a float. Received: weight_decay=None")


@_signature("learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False")
class RMSprop(_Checked):
    """Gradients divided by the root of a running mean of their squares.

    v = rho v + (1 - rho) g²; step = lr g / sqrt(v + epsilon); w -= step. Centered: v less the square of the running mean of g.
    With momentum: m = momentum m + step; w -= m.

    Args:
        learning_rate: number, schedule, or function without arguments.
        rho: share of v that stays.
        momentum: share of the last step that goes on.
        epsilon: added inside the root.
        centered: divide by the standard deviation instead.

        The others as for `Optimizer`.

    Example:
        >>> import dagrt as keras
        >>> w = keras.Variable([1.0])
        >>> keras.optimizers.RMSprop(0.1, rho=0.75).apply([[8.0]], [w])
        >>> w.numpy().round(3)
        array([0.8], dtype=float32)

    Reference:
        Tieleman and Hinton, "Lecture 6.5: RMSprop", Neural Networks for Machine Learning, 2012; centered: Graves, 2013,
        arXiv:1308.0850.
    """

    @property
    def _fused_decay(self) -> bool:  # type: ignore[override]
        return not self.momentum and not self.centered

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        (self._velocities,) = self._slots("velocity")
        self._momentums = self._slots("momentum")[0] if self.momentum > 0 else []
        self._average_gradients = self._slots("average_gradient")[0] if self.centered else []

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        at = self._place(variable)
        v = self._velocities[at]
        if self._fused_decay:
            decay = float(self.weight_decay or 0.0) if self._decays(variable) else 0.0
            new, v2 = emit(
                "rmsprop_update",
                variable,
                v,
                gradient,
                learning_rate,
                rho=float(self.rho),
                epsilon=float(self.epsilon),
                weight_decay=decay,
            )
            self.assign(variable, new)
            self.assign(v, v2)
            return
        v2 = self.rho * v.value + (1.0 - self.rho) * ops.square(gradient)
        self.assign(v, v2)
        spread = v2
        if self.centered:
            a = self._average_gradients[at]
            a2 = self.rho * a.value + (1.0 - self.rho) * gradient
            self.assign(a, a2)
            spread = v2 - ops.square(a2)
        step = learning_rate * gradient / ops.sqrt(spread + self.epsilon)
        if self.momentum > 0:
            m = self._momentums[at]
            step = self.momentum * m.value + step
            self.assign(m, step)
        self.assign_sub(variable, step)


@_signature("learning_rate=0.001, initial_accumulator_value=0.1, epsilon=1e-7")
class Adagrad(_Checked):
    """Gradients divided by the root of the sum of their squares so far.

    a += g²; w -= lr g / sqrt(a + epsilon).

    Args:
        learning_rate: number, schedule, or function without arguments.
        initial_accumulator_value: a at the start.
        epsilon: added inside the root.

        The others as for `Optimizer`.

    Example:
        >>> import dagrt as keras
        >>> w = keras.Variable([1.0])
        >>> keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.0).apply([[5.0]], [w])
        >>> w.numpy().round(3)
        array([0.9], dtype=float32)

    Reference:
        Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning", JMLR 12, 2011.
    """

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        from dagrt.initializers import Constant

        start = Constant(self.initial_accumulator_value)
        self._accumulators = [
            self.add_variable_from_reference(v, "accumulator", start) for v in self._trainable_variables
        ]

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        a = self._accumulators[self._place(variable)]
        total = a.value + ops.square(gradient)
        self.assign(a, total)
        self.assign_sub(variable, learning_rate * gradient / ops.sqrt(total + self.epsilon))


@_signature("learning_rate=0.001, rho=0.95, epsilon=1e-7")
class Adadelta(_Checked):
    """Steps scaled by running means of squared gradients and squared steps.

    a = rho a + (1 - rho) g²; step = sqrt(d + epsilon) / sqrt(a + epsilon) g; d = rho d + (1 - rho) step²; w -= lr step.

    Args:
        learning_rate: number, schedule, or function without arguments; the paper has 1.
        rho: share of a and d that stays.
        epsilon: added inside the roots.

        The others as for `Optimizer`.

    Example:
        >>> import dagrt as keras
        >>> w = keras.Variable([1.0])
        >>> keras.optimizers.Adadelta(1.0, rho=0.0, epsilon=1.0).apply([[0.0]], [w])
        >>> w.numpy()
        array([1.], dtype=float32)

    Reference:
        Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, arXiv:1212.5701.
    """

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self._grads, self._deltas = self._slots("accumulated_grad", "accumulated_delta_var")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        at = self._place(variable)
        g, d = self._grads[at], self._deltas[at]
        g2 = self.rho * g.value + (1.0 - self.rho) * ops.square(gradient)
        delta = -ops.sqrt(d.value + self.epsilon) * gradient / ops.sqrt(g2 + self.epsilon)
        self.assign(g, g2)
        self.assign(d, self.rho * d.value + (1.0 - self.rho) * ops.square(delta))
        self.assign_add(variable, learning_rate * delta)


class _Moments(_Checked):
    def _power(self, base: float, plus: float = 1.0) -> Any:
        return ops.power(float(base), ops.cast(ops.convert_to_tensor(self.iterations), "float32") + plus)


@_signature("learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7")
class Adamax(_Moments):
    """Adam with the largest gradient, slowly forgotten, in place of the mean square.

    m = b1 m + (1 - b1) g; u = max(b2 u, |g|); w -= lr / (1 - b1^t) m / (u + epsilon), t = 1, 2, ...

    Args:
        learning_rate: number, schedule, or function without arguments.
        beta_1: b1, share of m that stays.
        beta_2: b2, share of u that stays.
        epsilon: added to u.

        The others as for `Optimizer`.

    Example:
        >>> import dagrt as keras
        >>> w = keras.Variable([1.0])
        >>> keras.optimizers.Adamax(0.1).apply([[5.0]], [w])
        >>> w.numpy().round(3)
        array([0.9], dtype=float32)

    Reference:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980, section 7.
    """

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self._m, self._u = self._slots("momentum", "norm")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        at = self._place(variable)
        m, u = self._m[at], self._u[at]
        m2 = m.value + (gradient - m.value) * (1.0 - self.beta_1)
        u2 = ops.maximum(self.beta_2 * u.value, ops.absolute(gradient))
        self.assign(m, m2)
        self.assign(u, u2)
        self.assign_sub(variable, learning_rate * m2 / ((1.0 - self._power(self.beta_1)) * (u2 + self.epsilon)))


@_signature("learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7")
class Nadam(_Moments):
    """Adam with Nesterov momentum.

    As `Adam`, with u_t = b1 (1 - 0.96^t / 2) for b1: m_hat = u_(t+1) m / (1 - u_1 ... u_(t+1)) + (1 - u_t) g / (1 - u_1 ... u_t);
    w -= lr m_hat / (sqrt(v / (1 - b2^t)) + epsilon).

    Args:
        learning_rate: number, schedule, or function without arguments.
        beta_1: b1, share of m that stays.
        beta_2: b2, share of v that stays.
        epsilon: added to the root.

        The others as for `Optimizer`.

    Example:
        >>> import dagrt as keras
        >>> w = keras.Variable([1.0])
        >>> keras.optimizers.Nadam(0.1).apply([[5.0]], [w])
        >>> bool(0.8 < w.numpy()[0] < 0.9)
        True

    Reference:
        Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016.
    """

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self._m, self._v = self._slots("momentum", "velocity")
        if self._trainable_variables:
            self._u_product = self.add_variable((), "ones", name="variable")
            self._u_product.path = "variable"  # Keras makes this one outside of its name scope

    def _begin_step(self, learning_rate: Any) -> None:
        self._u_t = self.beta_1 * (1.0 - 0.5 * self._power(0.96))
        self._u_next = self.beta_1 * (1.0 - 0.5 * self._power(0.96, 2.0))
        self._product = self._u_product.value * self._u_t
        self.assign(self._u_product, self._product)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        at = self._place(variable)
        m, v = self._m[at], self._v[at]
        # As Keras: here the betas are float32 before they are taken from 1.
        rest_1, rest_2 = (float(np.float32(1) - np.float32(b)) for b in (self.beta_1, self.beta_2))
        m2 = m.value + (gradient - m.value) * rest_1
        v2 = v.value + (ops.square(gradient) - v.value) * rest_2
        m_hat = self._u_next * m2 / (1.0 - self._product * self._u_next) + (1.0 - self._u_t) * gradient / (
            1.0 - self._product
        )
        v_hat = v2 / (1.0 - self._power(self.beta_2))
        self.assign(m, m2)
        self.assign(v, v2)
        self.assign_sub(variable, m_hat * learning_rate / (ops.sqrt(v_hat) + self.epsilon))


@_signature("learning_rate=0.001, beta_1=0.9, beta_2=0.99")
class Lion(_Checked):
    """Steps of equal size, by the sign of a mean of momentum and gradient.

    w -= lr sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g.

    Args:
        learning_rate: number, schedule, or function without arguments; a third to a tenth of Adam's.
        beta_1: b1, share of m in the step.
        beta_2: b2, share of m that stays.

        The others as for `Optimizer`.

    Example:
        >>> import dagrt as keras
        >>> w = keras.Variable([1.0, 1.0])
        >>> keras.optimizers.Lion(0.25).apply([[0.001, -1000.0]], [w])
        >>> w.numpy()
        array([0.75, 1.25], dtype=float32)

    Reference:
        Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, arXiv:2302.06675.
    """

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        (self._m,) = self._slots("momentum")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        m = self._m[self._place(variable)]
        step = learning_rate * ops.sign(m.value * self.beta_1 + gradient * (1.0 - self.beta_1))
        self.assign_sub(variable, step)
        self.assign(m, m.value * self.beta_2 + gradient * (1.0 - self.beta_2))


@_signature(
    "learning_rate=0.001, learning_rate_power=-0.5, initial_accumulator_value=0.1, l1_regularization_strength=0.0, "
    "l2_regularization_strength=0.0, l2_shrinkage_regularization_strength=0.0, beta=0.0"
)
class Ftrl(_Checked):
    """Follow the regularised leader: sparse weights for large linear models.

    n' = n + g²; z += g + 2 shrinkage w - (n'^-p - n^-p) / lr * w; w = (clip(z, ±l1) - z) / (n'^-p / lr + 2 l2 + beta / lr),
    where p is `learning_rate_power`.

    Args:
        learning_rate: number, schedule, or function without arguments.
        learning_rate_power: p, at most 0.
        initial_accumulator_value: n at the start, not negative.
        l1_regularization_strength: l1, not negative: weights become exactly 0.
        l2_regularization_strength: l2, not negative.
        l2_shrinkage_regularization_strength: shrinkage, not negative.
        beta: see above.

        The others as for `Optimizer`.

    Raises:
        ValueError: a value of the wrong sign.

    Example:
        >>> import dagrt as keras
        >>> w = keras.Variable([1.0])
        >>> keras.optimizers.Ftrl(0.1, l1_regularization_strength=100.0).apply([[1.0]], [w])
        >>> w.numpy()
        array([0.], dtype=float32)

    Reference:
        McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013.
    """

    def _check(self) -> None:
        for name in (
            "initial_accumulator_value",
            "l1_regularization_strength",
            "l2_regularization_strength",
            "l2_shrinkage_regularization_strength",
        ):
            if getattr(self, name) < 0.0:
                raise ValueError(f"`{name}` needs to be positive or zero. Received: {name}={getattr(self, name)}.")
        if self.learning_rate_power > 0.0:
            raise ValueError(
                f"`learning_rate_power` needs to be negative or zero. Received: learning_rate_power={self.learning_rate_power}."
            )

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        from dagrt.initializers import Constant

        start = Constant(self.initial_accumulator_value)
        self._accumulators, self._linears = [], []
        for v in self._trainable_variables:
            self._accumulators.append(self.add_variable_from_reference(v, "accumulator", start))
            self._linears.append(self.add_variable_from_reference(v, "linear"))

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        at = self._place(variable)
        n, z, w = self._accumulators[at], self._linears[at], variable.value
        power, l1 = -float(self.learning_rate_power), float(self.l1_regularization_strength)
        n2 = n.value + ops.square(gradient)
        grown = ops.power(n2, power)
        shrunk = gradient + 2.0 * float(self.l2_shrinkage_regularization_strength) * w
        z2 = z.value + shrunk - (grown - ops.power(n.value, power)) / learning_rate * w
        l2 = float(self.l2_regularization_strength) + float(self.beta) / (2.0 * learning_rate)
        self.assign(z, z2)
        self.assign(variable, (ops.clip(z2, -l1, l1) - z2) / (grown / learning_rate + 2.0 * l2))
        self.assign(n, n2)
