import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.check import compare_gradients

WIDE = nnjax.dense(4, 4)
MODEL = nnjax.serial(nnjax.dense(4, 4), nnjax.sigmoid(), nnjax.dense(4, 3))
X = jax.random.normal(jax.random.key(1), (8, 4))


def params_of(layer):
    params = layer.init(jax.random.key(0))
    return jax.tree.map(lambda p: p + 0.1, params)


@pytest.mark.in_turn
def test_a_rule_that_is_right_where_the_definition_overflows_is_not_blamed():
    @jax.custom_vjp
    def log1pexp(x):
        return jnp.log1p(jnp.exp(x))

    log1pexp.defvjp(lambda x: (log1pexp(x), x), lambda x, ct: (ct * jax.nn.sigmoid(x),))
    report = nnjax.check_vjp(log1pexp, jnp.linspace(-100, 100, 50))
    assert not report.failures, str(report)
    assert nnjax.check_vjp(log1pexp, jnp.linspace(-10, 10, 50)).ok


@pytest.mark.in_turn
def test_a_forward_rule_that_calls_its_own_function_is_noted_and_not_blamed():
    @jax.custom_vjp
    def exp(x):
        return jnp.exp(x)

    def fwd(x):
        y = exp(x)
        return y, y

    exp.defvjp(fwd, lambda y, ct: (ct * y,))
    report = nnjax.check_vjp(exp, jnp.linspace(-2, 2, 9)).raise_if_failed()
    assert {row.status for row in report.rows if row.transform == "second"} == {"vacuous"}
    assert any("call its body there" in row.note for row in report.rows)


@pytest.mark.in_turn
def test_a_value_that_is_infinite_in_the_definition_must_be_infinite_in_the_rule():
    def body(x):
        return jax.scipy.special.logsumexp(x, axis=1)

    x = jnp.array([[-jnp.inf] * 3, [0.1, 0.2, 0.3]])
    for lowest, right in ((-jnp.inf, True), (0.0, False)):

        def forward(x, lowest=lowest):
            value = body(x)
            return jnp.where(jnp.isneginf(value), jnp.full_like(value, lowest), value), jax.nn.softmax(x)

        rule = jax.custom_vjp(body)
        rule.defvjp(forward, lambda y, ct: (y * jnp.broadcast_to(ct[:, None], y.shape),))
        report = nnjax.check_vjp(rule, x, dtypes=["float32"])
        assert any(row.leaf == "output" for row in report.failures) != right
    assert "instead of -inf" in report.finding


@pytest.mark.in_turn
def test_a_rule_that_is_right_at_the_inputs_but_not_nearby_is_reported_as_such():
    inverse = jax.custom_vjp(lambda a: jnp.log(jnp.linalg.det(a)))  # a rule for symmetric matrices
    inverse.defvjp(lambda a: (jnp.log(jnp.linalg.det(a)), a), lambda a, ct: (ct * jnp.linalg.inv(a),))
    symmetric = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    report = nnjax.check_vjp(inverse, symmetric, dtypes=["float64"], transforms=["jit"])
    assert {row.witness for row in report.failures} == {"taylor"}
    assert "right at your inputs" in str(report)
    assert "right at your inputs" not in str(nnjax.check_vjp(inverse, symmetric.at[0, 1].set(0.1), dtypes=["float64"]))


def double_sine(wrong=0.0):
    @jax.custom_vjp
    def f(x):
        return 2 * jnp.sin(x)

    f.defvjp(lambda x: (2 * jnp.sin(x), x), lambda x, ct: ((2 + wrong) * jnp.cos(x) * ct,))
    return f


@pytest.mark.in_turn
def test_check_vjp_compares_a_custom_vjp_with_its_body():
    x = jnp.linspace(-3, 3, 50)
    nnjax.check_vjp(double_sine(), x).raise_if_failed()
    nnjax.check_vjp(jax.jit(double_sine()), x).raise_if_failed()
    report = nnjax.check_vjp(double_sine(0.01), x)
    assert {row.leaf for row in report.failures} == {"x"}
    assert nnjax.check_vjp(double_sine(), x, reference=jnp.sin).failures[0].diagnosis.kind == "wrong_primal"


@pytest.mark.in_turn
def test_check_vjp_takes_any_function_with_a_reference_and_keyword_arguments():
    def norm(x, *, scale):
        return scale * jnp.sqrt(jnp.square(x).sum())

    report = nnjax.check_vjp(norm, jnp.arange(1.0, 4.0), reference=lambda x, *, scale: scale * jnp.linalg.norm(x), scale=2.0)
    assert {row.leaf for row in report.raise_if_failed().rows} == {"output", "x", "scale"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nnjax.check_vjp(3, X), TypeError, r"check_vjp: f must be a function, got int"),
        (
            lambda: nnjax.check_vjp(jnp.sin, X),
            TypeError,
            r"sin needs a reference",
        ),
        (
            lambda: nnjax.check_vjp(double_sine(), jnp.arange(3)),
            TypeError,
            r"no argument is an array of floating point numbers",
        ),
        (
            lambda: nnjax.check_layer(nnjax.relu(), (), X.astype(jnp.complex64)),
            TypeError,
            r"x must be real, .* got complex64 \(8, 4\)",
        ),
        (
            lambda: nnjax.check_layer(nnjax.relu, (), X),
            TypeError,
            r"check_layer: expected a Layer, got relu; call the factory",
        ),
        (
            lambda: nnjax.check_layer(nnjax.relu(), (), X, transforms=["jitt"]),
            ValueError,
            r"unknown transform 'jitt'.*did you mean 'jit'",
        ),
        (
            lambda: nnjax.check_layer(nnjax.relu(), (), X, dtypes=["int32"]),
            ValueError,
            r"dtypes must be floating point, got int32",
        ),
        (
            lambda: nnjax.check_vjp(jnp.argmax, X, reference=jnp.argmax),
            TypeError,
            r"argmax has no output that is real floating point",
        ),
        (
            lambda: nnjax.check_vjp(double_sine(), X, X),
            TypeError,
            r"check_vjp: f\(x\) cannot be called with \(float32 \(8, 4\), float32 \(8, 4\)\): too many positional "
            r"arguments; pass the arguments",
        ),
        (
            lambda: nnjax.check_vjp(double_sine(), X, reference=lambda x, scale: scale * x),
            TypeError,
            r"check_vjp: <lambda>\(x, scale\) cannot be called with \(float32 \(8, 4\)\): missing a required argument: 'scale'",
        ),
        (
            lambda: nnjax.check_pair(lambda x: (x, ()), lambda r, ct: (ct,), X, X, reference=jnp.add),
            TypeError,
            r"check_pair: <lambda>\(x\) cannot be called with",
        ),
    ],
)
def test_what_cannot_be_checked_is_refused_in_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("bwd", [lambda r, ct: (ct * r,), lambda r, ct: (ct.sum(0), ct)], ids=["too few", "another shape"])
def test_cotangents_unlike_the_arguments_are_named(bwd):
    @jax.custom_vjp
    def f(x, y):
        return x * y

    f.defvjp(lambda x, y: (x * y, y), bwd)
    report = nnjax.check_vjp(f, X, X, dtypes=["float32"])
    assert {row.diagnosis.kind for row in report.failures} == {"wrong_shape"}
    assert "bwd rule" in str(report)


@pytest.mark.in_turn
def test_compare_gradients_gives_each_leaf_a_difference_and_a_budget():
    loss = nnjax.softmax_cross_entropy()
    hand, reference = nnjax.value_and_grad(MODEL, loss), nnjax.reference_value_and_grad(MODEL, loss)
    params, labels = params_of(MODEL), jnp.arange(8) % 3
    found = compare_gradients(hand, reference, params, X, labels)
    assert [d.leaf for d in found] == ["value", "params[0].w", "params[0].b", "params[2].w", "params[2].b"]
    assert all(d.ok and 0 < d.budget < 1e-3 for d in found)

    def wrong(params, x, labels, **kwargs):
        value, grads = hand(params, x, labels, **kwargs)
        return value, (grads[0], (), grads[2]._replace(b=1.001 * grads[2].b))

    assert [d.leaf for d in compare_gradients(wrong, reference, params, X, labels) if not d.ok] == ["params[2].b"]


@pytest.mark.in_turn
def test_a_rule_that_ignores_its_cotangent_is_distinguished_from_a_scaled_one():
    def fwd(x):
        return (x * x).sum(), (x,)

    report = nnjax.check_pair(fwd, lambda r, ct: (2 * r[0],), jnp.arange(3.0), reference=lambda x: (x * x).sum())
    assert "is ct_y left out?" in report.failures[0].diagnosis.detail


def test_a_function_whose_rule_was_never_given_is_refused():
    @jax.custom_vjp
    def unfinished(x):
        return jnp.sin(x)

    with pytest.raises(TypeError, match=r"unfinished has no rule yet; give it one with unfinished.defvjp\(fwd, bwd\)"):
        nnjax.check_vjp(unfinished, jnp.ones(3))


@pytest.mark.in_turn
def test_compare_gradients_may_end_early_without_passing_a_wrong_gradient():
    loss, calls = nnjax.softmax_cross_entropy(), []
    hand, reference = nnjax.value_and_grad(MODEL, loss), nnjax.reference_value_and_grad(MODEL, loss)
    params, labels = params_of(MODEL), jnp.arange(8) % 3

    def counted(*args, **kwargs):
        jax.debug.callback(lambda: calls.append(1))
        return reference(*args, **kwargs)

    def compared(f, early):
        calls.clear()
        found = compare_gradients(f, counted, params, X, labels, early=early)
        jax.effects_barrier()
        return found, len(calls)

    (full, many), (early, few) = compared(hand, False), compared(hand, True)
    assert (few, many) == (4, 34)  # in float32 and float64: at the point itself, and at each draw
    assert all(d.ok for d in early)
    assert all(a.budget <= b.budget for a, b in zip(early, full))
    assert [d.relative for d in early] == [d.relative for d in full]

    def wrong(params, x, labels, **kwargs):
        value, grads = hand(params, x, labels, **kwargs)
        return value, (grads[0], (), grads[2]._replace(b=1.001 * grads[2].b))

    found, calls_of_wrong = compared(wrong, True)
    assert [d.leaf for d in found if not d.ok] == ["params[2].b"]
    assert calls_of_wrong == few + many
