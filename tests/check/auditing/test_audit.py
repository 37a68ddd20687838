import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

import nnjax

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def sine(factor):
    @jax.custom_vjp
    def planted(x):
        return jnp.sin(x)

    planted.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (factor * jnp.cos(x) * ct,))
    return planted


def inside_control_flow(f):
    @jax.jit
    def program(x):
        def body(c, _):
            return jax.lax.cond(c.sum() > -1e9, f, lambda c: c, c), None

        return jax.lax.scan(body, x, None, length=3)[0]

    return program


def inside_flax(f):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return f(nn.Dense(3)(x))

    def program(x):
        net = Net()
        return net.apply(net.init(jax.random.key(0), x), x)

    return program


def inside_equinox(f):
    class Net(eqx.Module):
        linear: eqx.nn.Linear

        def __call__(self, x):
            return f(self.linear(x))

    def program(x):
        net = Net(eqx.nn.Linear(4, 3, key=jax.random.key(0)))
        return jax.vmap(net)(x)

    return program


PROGRAMS = {
    "jit(scan(cond))": inside_control_flow,
    "vmap": lambda f: jax.vmap(f),
    "grad": lambda f: jax.grad(lambda x: f(x).sum()),
    "Flax": inside_flax,
    "Equinox": inside_equinox,
}
X = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_a_planted_rule_is_found_wherever_it_runs_and_a_right_one_is_not_blamed(name):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        wrong = nnjax.audit(PROGRAMS[name](sine(1.01)), X)
        right = nnjax.audit(PROGRAMS[name](sine(1.0)), X)
    assert not wrong.ok
    assert {row.case for row in wrong.failures} == {"planted"}
    assert any("planted" in note and "test_audit.py:" in note and "FAULT" in note for note in wrong.notes)
    assert "larger by 1.01" in str(wrong)
    assert not right.failures
    assert any("planted" in note and "ok" in note for note in right.notes)


def test_calls_are_counted():
    report = nnjax.audit(inside_control_flow(sine(1.0)), X)
    assert [note.rpartition("): ")[2] for note in report.notes] == ["3 calls, ok"]


@pytest.mark.in_turn
def test_a_convention_at_a_kink_is_not_a_fault():
    report = nnjax.audit(jax.nn.relu, jnp.array([-1.0, 0.0, 2.0])).raise_if_failed()
    assert "relu" in report.notes[0]
    assert "convention" in report.notes[0]


@pytest.mark.in_turn
def test_a_rule_that_is_wrong_beside_the_kink_too_is_a_fault():
    @jax.custom_jvp
    def relu(x):
        return jnp.maximum(x, 0)

    relu.defjvp(lambda x, dx: (relu(*x), jnp.where(x[0] > 0, 1.01, 0.0).astype(x[0].dtype) * dx[0]))
    assert not nnjax.audit(relu, jnp.array([-1.0, 0.0, 2.0])).ok


def test_a_program_without_rules_is_not_ok():
    report = nnjax.audit(jnp.sin, X)
    assert not report.ok
    assert "ran through no custom_vjp or custom_jvp function" in str(report)


def test_calls_are_heard_only_while_auditing():
    before = jax.custom_vjp.__call__, jax.custom_jvp.__call__
    with pytest.raises(ZeroDivisionError):
        nnjax.audit(lambda: 1 / 0)
    assert (jax.custom_vjp.__call__, jax.custom_jvp.__call__) == before
    with pytest.raises(TypeError, match=r"audit: fn must be a function, got int"):
        nnjax.audit(3)  # type: ignore[arg-type]


@pytest.mark.in_turn
def test_our_own_layers_inside_a_program_pass():
    model = nnjax.mlp([4, 3, 2], nnjax.tanh())
    f, params = nnjax.as_custom_vjp(model), model.init(jax.random.key(0))
    nnjax.audit(jax.jit(lambda x: f(params, x)), X).raise_if_failed()


LIBRARY = [
    *(getattr(jax.nn, name) for name in ("relu", "relu6", "silu", "softplus", "log_sigmoid", "gelu", "elu", "selu", "celu",
      "leaky_relu", "hard_tanh", "softmax", "log_softmax", "logsumexp", "standardize", "glu", "mish", "squareplus",
      "hard_sigmoid", "hard_silu", "soft_sign", "sparse_plus", "sparse_sigmoid")),
    *(getattr(jax.scipy.special, name) for name in ("logsumexp", "digamma", "gammaln", "erf", "erfc", "erfinv", "expit",
      "logit", "ndtr", "log_ndtr", "ndtri", "xlogy", "xlog1py", "xlog1py", "entr", "i0", "i0e", "i1", "i1e", "rel_entr",
      "kl_div", "expi", "exp1")),
    *(getattr(optax, name) for name in ("l2_loss", "huber_loss", "log_cosh", "sigmoid_binary_cross_entropy",
      "softmax_cross_entropy", "cosine_similarity", "hinge_loss", "kl_divergence")),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.in_turn
def test_the_rules_of_jax_and_optax_are_not_faults():
    """Values in 0 ... 1, which all of these accept, with a zero and a tie."""
    x = jnp.array([[0.25, 0.5, 0.5, 0.75], [0.125, 0.9, 0.3, 0.6]])
    two = {"xlogy", "xlog1py", "rel_entr", "kl_div", "l2_loss", "huber_loss", "log_cosh", "sigmoid_binary_cross_entropy",
           "softmax_cross_entropy", "cosine_similarity", "hinge_loss", "kl_divergence"}  # fmt: skip
    blamed = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for f in LIBRARY:
            args = (x, x[::-1] * 0.9) if f.__name__ in two else (x,)
            report = nnjax.audit(f, *args)
            if report.failures:
                blamed[f.__name__] = str(report)
    assert not blamed, "\n".join(f"{name}: {text[:600]}" for name, text in blamed.items())


def summing(factor):
    """The sum over the devices, with a rule that communicates in its forward and casts in its backward."""

    @jax.custom_vjp
    def over_devices(x):
        return jax.lax.psum(x, "data")

    over_devices.defvjp(
        lambda x: (jax.lax.psum(x, "data"), None),
        lambda r, ct: (factor * jax.lax.pcast(ct, ("data",), to="varying"),),
    )
    return over_devices


CUT = P("data")


def on_devices(f, out=CUT, **how):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=out, **how))


WHOLE = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)


@pytest.mark.parametrize("rule", [sine, summing])
@pytest.mark.in_turn
def test_rules_inside_shard_map_are_examined_there(rule):
    out = P("data") if rule is sine else P()
    nnjax.audit(on_devices(rule(1.0), out), WHOLE).raise_if_failed()
    wrong = nnjax.audit(on_devices(rule(4.0), out), WHOLE)
    assert {row.leaf for row in wrong.failures} == {"x"}
    assert "larger by 4, the size of mesh axis data: summed twice?" in str(wrong)
    by_grad = nnjax.audit(jax.grad(lambda x: on_devices(rule(4.0), out)(x).sum()), WHOLE)
    assert "larger by 4, the size of mesh axis data" in str(by_grad)


def test_a_rule_that_communicates_without_check_vma_is_reported_as_not_checked():
    report = nnjax.audit(on_devices(summing(1.0), P(), check_vma=False), WHOLE)
    assert not report.ok
    assert "over_devices" in report.missing[0]
    assert "it communicates in a jax.shard_map without check_vma" in report.missing[0]
    nnjax.audit(on_devices(sine(1.0), check_vma=False), WHOLE).raise_if_failed()
