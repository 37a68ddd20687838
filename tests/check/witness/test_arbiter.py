"""Rules that differ from autodiff of their body, or whose body has none: right ones and wrong ones of each kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax


def jvp(body, slope):
    """A rule of forward mode whose tangent is slope(x) dx."""
    f = jax.custom_jvp(body)
    f.defjvp(lambda p, t: (f(*p), slope(*p) * t[0]))
    return f


def vjp(body, pull):
    """A rule of reverse mode: pull(x, ct)."""
    f = jax.custom_vjp(body)
    f.defvjp(lambda x: (body(x), x), lambda x, ct: (pull(x, ct),))
    return f


def verdict(f, *args, **how):
    report = nnjax.audit(f, *args, **how)
    return report.ok, report.notes[0]


def relu_with(at_zero):
    return jvp(lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x == 0, jnp.full_like(x, at_zero), (x > 0).astype(x.dtype)))


def least(x):
    return x.min()


X = jnp.array([-1.0, 0.0, 2.0])
AT_KINKS = {
    "relu'(0) = 0": (relu_with(0.0), X, True),
    "relu'(0) = 1": (relu_with(1.0), X, True),
    "relu'(0) = 1/4": (relu_with(0.25), X, True),
    "relu'(0) = 17": (relu_with(17.0), X, False),
    "relu'(0) = -1": (relu_with(-1.0), X, False),
    "relu'(0) = nan": (relu_with(jnp.nan), X, False),
    "cos where it is smooth": (jvp(jnp.cos, lambda x: jnp.where(x == 0, 1.0, -jnp.sin(x)).astype(x.dtype)), X, False),
    "x^2 where it is smooth": (jvp(lambda x: x * x, lambda x: jnp.where(x == 2, 0.0, 2 * x).astype(x.dtype)), X, False),
    "min, to both of two": (vjp(least, lambda x, ct: jnp.where(x == x.min(), ct, 0.0).astype(x.dtype)), jnp.zeros(3), False),
    "min, to the first": (vjp(least, lambda x, ct: jnp.zeros_like(x).at[x.argmin()].set(ct)), jnp.array([1.0, 0, 0]), True),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_KINKS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_a_convention_needs_a_kink_and_lies_between_its_slopes(name):
    f, x, right = AT_KINKS[name]
    ok, said = verdict(f, x)
    assert ok == right, said
    assert ("convention" in said) == right


def newton(a):
    return jax.lax.while_loop(lambda x: jnp.abs(x * x - a) > 1e-6 * a, lambda x: 0.5 * (x + a / x), a)


def bisection(a):
    """The root of x + x^3 = a, in 60 halvings that autodiff has no reverse mode for."""

    def step(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        above = middle + middle**3 > a
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    n = jax.lax.convert_element_type(60, jnp.int32)
    return jax.lax.fori_loop(jnp.zeros_like(n), n, step, (jnp.zeros_like(a), a))[0]


def called_back(x):
    return jax.pure_callback(lambda x: np.sin(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")


OPAQUE = {
    "while_loop": (newton, lambda a: 0.5 / jnp.sqrt(a), jnp.float32(2.0)),
    "fori_loop": (bisection, lambda a: 1 / (1 + 3 * bisection(a) ** 2), jnp.float32(2.0)),
    "pure_callback": (called_back, jnp.cos, jnp.array([0.3, 0.7, 2.0])),
}


@pytest.mark.parametrize("factor", [1.0, 2.0, 1.01])
@pytest.mark.parametrize("name", OPAQUE)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_values_decide_where_autodiff_does_not_run(name, factor):
    body, slope, x = OPAQUE[name]
    for rule in (jvp(body, lambda x: factor * slope(x)), vjp(body, lambda x, ct: factor * ct * slope(x))):
        ok, said = verdict(rule, x)
        assert ok == (factor == 1), said
        assert "not checked" not in said
        assert ("FAULT" in said) != ok
        assert "differences of values" in str(nnjax.audit(rule, x))


def stepped(x):
    """Constant between steps, in a loop that autodiff has no reverse mode for."""
    n = jnp.asarray(3, jnp.int32)
    return jax.lax.fori_loop(jnp.zeros_like(n), n, lambda _, y: y + jnp.floor(x), jnp.zeros_like(x))


@pytest.mark.parametrize("slope", [0.0, 1.0, 1e-6])
@pytest.mark.in_turn
def test_where_values_do_not_change_the_right_gradient_is_zero(slope):
    rule = vjp(stepped, lambda x, ct: slope * ct)
    ok, said = verdict(rule, jnp.array([0.3, 1.7, 2.2]))
    assert ok == (slope == 0), said


def test_a_small_entry_that_is_wrong_beside_large_ones_is_found_by_values():
    scale = np.array([1e4, 1e4, 1.0])
    body = lambda x: called_back(x * scale.astype(x.dtype))  # noqa: E731
    x = jnp.array([1e-4, 2e-4, 0.5])
    for factor in (1.0, 1.5):
        own = (scale * [1, 1, factor]).astype(np.float64)
        rule = vjp(body, lambda x, ct, own=own: ct * own.astype(x.dtype) * jnp.cos(x * scale.astype(x.dtype)))
        assert nnjax.audit(rule, x).ok == (factor == 1)


def test_what_values_do_not_settle_is_not_ok():
    noise = vjp(lambda x: jnp.sum(called_back(1e9 * x)), lambda x, ct: ct * 1e9 * jnp.cos(1e9 * x))
    report = nnjax.audit(noise, jnp.array([0.3, 0.7]))
    assert not report.ok
    assert "do not settle" in str(report)


def inner(factor):
    return jvp(jnp.sin, lambda x: (factor * jnp.cos(x)).astype(x.dtype))


@pytest.mark.parametrize("factor", [3.0, 1.01])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_a_right_rule_is_not_blamed_for_one_that_its_body_calls(factor):
    wrong = inner(factor)
    right = jvp(lambda x: wrong(x) * 2, lambda x: 2 * jnp.cos(x))
    faults = [note for note in nnjax.audit(right, jnp.array([0.3, 0.7])).notes if "FAULT" in note]
    assert len(faults) == 1
    both = jvp(lambda x: wrong(x) * 2, lambda x: 2.5 * jnp.cos(x))
    assert sum("FAULT" in note for note in nnjax.audit(both, jnp.array([0.3, 0.7])).notes) == 2


@pytest.mark.parametrize(("n", "said"), [(400, "approximation"), (20, "FAULT")])
@pytest.mark.in_turn
def test_a_sum_that_approximates_an_integral_is_an_approximation_while_it_is_close(n, said):
    at = (np.arange(n) + 0.5) / n
    f = jvp(lambda a: jnp.sum(jnp.exp(a * at.astype(a.dtype))) * a / n, jnp.exp)  # of exp(a) - 1
    assert said in verdict(f, jnp.float32(1.0))[1]


@pytest.mark.in_turn
def test_one_small_wrong_entry_is_not_an_approximation():
    def pull(x, ct):
        return (ct * jnp.cos(x)).at[3].multiply(0)

    x = jnp.full(8, 0.1).at[3].set(jnp.float32(np.pi / 2 - 1e-6))  # its gradient is a millionth of the others
    assert not verdict(vjp(jnp.sin, pull), x)[0]
    assert verdict(vjp(jnp.sin, lambda x, ct: ct * jnp.cos(x)), x)[0]


def relu_of(body):
    return jvp(body, lambda x: jnp.where(x > 0, jnp.ones_like(x), jnp.zeros_like(x)))


@pytest.mark.in_turn
def test_a_kink_is_shown_in_float32_where_a_body_does_not_run_in_float64():
    def narrow(x):
        if x.dtype == jnp.float64:
            raise ZeroDivisionError("in float32 alone")
        return jnp.maximum(x, 0)

    ok, said = verdict(relu_of(narrow), jnp.array([0.0, 1.0]))
    assert ok, said
    assert "convention" in said
    wrong = jvp(narrow, lambda x: jnp.where(x > 0, jnp.ones_like(x), jnp.full_like(x, 3.0)))
    assert not verdict(wrong, jnp.array([0.0, 1.0]))[0]


@pytest.mark.in_turn
def test_a_kink_that_cannot_be_shown_is_not_ok():
    def watched(x):
        if ((0 < x) & (x < 1e-5)).any():
            raise ZeroDivisionError("too near to the kink")
        return np.zeros_like(x)

    def guarded(x):
        with_no_slope = jax.lax.stop_gradient(x)
        kind = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jnp.maximum(x, 0) + jax.pure_callback(watched, kind, with_no_slope, vmap_method="sequential")

    ok, said = verdict(relu_of(guarded), jnp.array([0.0, 1.0]))
    assert not ok
    assert "FAULT" not in said


def looped_in_float32(a):
    """The root of a, by a loop that carries only float32."""
    step = lambda x: (0.5 * (x + a / x)).astype(jnp.float32)  # noqa: E731
    return jax.lax.while_loop(lambda x: jnp.abs(x * x - a) > 1e-6 * a, step, a)


def scanned_in_float32(x):
    start = jnp.ones_like(x) + 0 * x
    return jax.lax.scan(lambda c, _: ((c * x).astype(jnp.float32), None), start, None, length=3)[0]


@pytest.mark.parametrize("factor", [1.0, 1.1])
@pytest.mark.parametrize(
    ("body", "slope"), [(looped_in_float32, lambda a: 0.5 / jnp.sqrt(a)), (scanned_in_float32, lambda x: 3 * x**2)]
)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_a_body_that_does_not_run_in_float64_is_checked_in_its_own_precision_and_says_so(body, slope, factor):
    rule = jvp(body, lambda x: factor * slope(x))
    report = nnjax.audit(rule, jnp.float32(2.0))
    assert report.ok == (factor == 1), report
    assert ("float32 alone" in report.notes[0]) == (factor == 1)
    report = nnjax.check_vjp(rule, jnp.float32(2.0))
    assert report.ok == (factor == 1), report
    assert "float64" in str(report)


def test_check_vjp_uses_values_where_autodiff_does_not_run():
    for factor in (1.0, 1.01):
        rule = jvp(newton, lambda a, factor=factor: factor * 0.5 / jnp.sqrt(a))
        report = nnjax.check_vjp(rule, jnp.float32(2.0))
        assert report.ok == (factor == 1)
        assert {row.witness for row in report.rows} == {"values"}


@pytest.mark.in_turn
def test_check_vjp_says_whose_derivative_is_wrong():
    wrong = inner(3.0)
    right = jvp(lambda x: wrong(x) * 2, lambda x: 2 * jnp.cos(x))
    assert "agree with the rule" in str(nnjax.check_vjp(right, jnp.array([0.3, 0.7])))
    assert "agree with the rule" not in str(nnjax.check_vjp(inner(2.0), jnp.array([0.3, 0.7])))


@pytest.mark.in_turn
def test_a_reference_replaces_an_opaque_body():
    for factor in (1.0, 1.01):
        rule = jvp(called_back, lambda x, factor=factor: factor * jnp.cos(x))
        rule.__name__ = "sine"
        for key in (rule, "sine"):
            report = nnjax.audit(lambda x, rule=rule: jax.jit(rule)(x), jnp.array([0.3, 0.7]), references={key: jnp.sin})
            assert report.ok == (factor == 1)
            assert {row.witness for row in report.rows} == {"reference"}
    with pytest.raises(TypeError, match="references"):
        nnjax.audit(rule, jnp.ones(2), references=[jnp.sin])
    with pytest.raises(TypeError, match="key of references"):
        nnjax.audit(rule, jnp.ones(2), references={jnp.sin: jnp.sin})


def clipped():
    clip = vjp(lambda x: x, lambda x, ct: jnp.clip(ct, -0.1, 0.1))
    clip.__name__ = "clip_gradient"
    return clip


@pytest.mark.in_turn
def test_what_differs_on_purpose_is_waived_by_name_or_by_a_mark_and_is_listed():
    x = jnp.ones(3)
    assert not nnjax.audit(clipped(), x).ok
    assert not nnjax.audit(clipped(), x, intended=("another",)).ok
    report = nnjax.audit(clipped(), x, intended=("clip_gradient",)).raise_if_failed()
    assert "clip_gradient" in report.notes[0]
    assert "intended" in report.notes[0]
    marked = nnjax.intended(clipped(), "gradients explode without it")
    assert "gradients explode without it" in nnjax.audit(jax.jit(marked), x).raise_if_failed().notes[0]


@pytest.mark.in_turn
def test_values_do_not_judge_a_body_that_stops_gradients():
    def body(x):
        return jax.lax.while_loop(
            lambda y: jnp.abs(y * y - x) > 1e-6 * x, lambda y: 0.5 * (y + x / y), x
        ) + jax.lax.stop_gradient(x)

    right = jvp(body, lambda x: 0.5 / jnp.sqrt(x))
    ok, said = verdict(right, jnp.float32(2.0))
    assert not ok
    assert "stops gradients" in said
    assert "FAULT" not in said
    ok, said = verdict(right, jnp.float32(2.0), intended=("body",))
    assert ok
    assert "intended" in said
    assert "FAULT" in verdict(jvp(body, lambda x: jnp.nan * x), jnp.float32(2.0))[1]


@pytest.mark.in_turn
def test_other_random_numbers_under_x64_are_no_fault_of_a_rule():
    def sample(x):
        return x * jax.random.normal(jax.random.key(0), x.shape, x.dtype)

    estimate = vjp(sample, lambda x, ct: 2 * ct)
    assert "FAULT" not in verdict(estimate, jnp.ones(3), intended=("sample",))[1]
    assert verdict(estimate, jnp.ones(3), intended=("sample",))[0]


@pytest.mark.in_turn
def test_a_point_with_only_kinks_nearby_is_settled_entry_by_entry():
    for inside, right in ((1.0, True), (1.5, False)):
        slope = lambda x, inside=inside: jnp.where((x > 0) & (x < 6), inside, 0.0).astype(x.dtype)  # noqa: E731
        rule = jvp(lambda x: jnp.clip(x, 0, 6), slope)
        ok, said = verdict(rule, jnp.array([0.0, 6.0, 3.0]))
        assert ok == right, said


def test_a_wrong_value_is_not_waived():
    wrong = jax.custom_vjp(lambda x: x)
    wrong.defvjp(lambda x: (2 * x, None), lambda _, ct: (ct,))
    assert not nnjax.audit(nnjax.intended(wrong, "on purpose"), jnp.ones(3)).ok


def test_a_mark_needs_a_rule_and_a_reason():
    with pytest.raises(TypeError, match=r"intended: rule must be a jax.custom_vjp or custom_jvp function, got sin"):
        nnjax.intended(jnp.sin, "why")
    with pytest.raises(TypeError, match=r"intended: why must be a sentence, got int"):
        nnjax.intended(clipped(), 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"audit: intended must be names of rules, got 'clip_gradient'"):
        nnjax.audit(clipped(), jnp.ones(3), intended="clip_gradient")


Z = jnp.array([1 + 2j, 0.5 - 1j, -2.0 + 0.25j], jnp.complex64)
COMPLEX = {
    "z^2": (lambda z: z * z, lambda z, ct: 2 * z * ct, lambda z, ct: 2 * jnp.conj(z) * ct, Z),
    "|z|^2": (lambda z: jnp.real(z * jnp.conj(z)), lambda z, ct: 2 * jnp.conj(z) * ct, lambda z, ct: 2 * z * ct, Z),
    "fft": (lambda x: jnp.fft.fft(x), lambda x, ct: jnp.real(jnp.fft.fft(ct)), lambda x, ct: jnp.real(jnp.fft.ifft(ct)),
            jnp.array([1.0, 2.0, -0.5, 3.0])),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_complex_arguments_and_outputs_are_held_to_jaxs_convention(name):
    body, right, wrong, x = COMPLEX[name]
    with jax.numpy_dtype_promotion("standard"):
        for pull, good in ((right, True), (wrong, False)):
            report = nnjax.check_vjp(vjp(body, pull), x, dtypes=["float64", "float32"])
            assert report.ok == good, report
            assert nnjax.audit(jax.vmap(vjp(body, pull)), x[None]).ok == good
    if jnp.iscomplexobj(x):
        assert {row.leaf for row in report.rows} >= {"z.real", "z.imag"}


NOT_LINEAR = {
    "a term without ct": (lambda x: x**3, lambda x, ct: 3 * x**2 * ct + 1.0, "at a cotangent of 0 it gives"),
    "the square of ct": (lambda x: x**3, lambda x, ct: 3 * x**2 * ct * jnp.abs(ct), "64 times the cotangent gives"),
    "clipped": (lambda x: x, lambda x, ct: jnp.clip(ct, -0.75, 0.75), "64 times the cotangent gives"),
}


@pytest.mark.parametrize("name", NOT_LINEAR)
@pytest.mark.in_turn
def test_a_rule_that_is_not_linear_in_its_cotangent_is_named_so(name):
    body, pull, said = NOT_LINEAR[name]
    report = nnjax.check_vjp(vjp(body, pull), jnp.linspace(1.0, 2.0, 8), witnesses=())
    kinds = {row.diagnosis.kind for row in report.failures if row.dtype in ("float64", "float32")}
    assert kinds == {"not_linear"}, report
    assert said in str(report)
    right = nnjax.check_vjp(vjp(lambda x: x**3, lambda x, ct: 3 * x**2 * ct), jnp.linspace(1.0, 2.0, 8), witnesses=())
    assert right.ok
