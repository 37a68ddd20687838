"""An audit of the custom rules of public JAX libraries, compared with what is known about each. As a script: the whole table.

The known verdict is beside each call and does not come from the audit: a rule is right unless it is listed. Those listed as
wrong were compared with differences of values in float64, or with SciPy and mpmath, and checked in their sources. Some are
wrong as their authors say (no gradient to the order of a Bessel function: JAX gets zeros). What differs on purpose, such as
gradients that are clipped, estimated or those of samples, is listed as intended.
"""

import importlib
import importlib.metadata
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special as sp
import numpy as np
import pytest

import nnjax
from nnjax.check.running.compiling import compiled_lightly

X, P = np.float32([0.3, 0.7, 1.9]), np.float32([0.2, 0.5, 0.9])
M = np.float32([[2.0, 0.3, 0.1], [0.4, 1.5, 0.2], [0.3, 0.1, 1.2]])
PD = M @ M.T + np.eye(3, dtype=np.float32)
COLUMN = np.float32([[1.0], [2.0], [0.5]])
WIDE = np.random.default_rng(0).standard_normal((5, 5)).astype(np.float32)


class Call(NamedTuple):
    """A call of a library's function; wrong, intended, raises: the names of such rules in it."""

    library: str
    label: str
    run: Callable[[], Any]
    wrong: tuple[str, ...] = ()
    intended: tuple[str, ...] = ()
    raises: tuple[str, ...] = ()


def lib(name: str) -> Any:
    """A module, patched with the names that an old release of TensorFlow Probability expects in JAX."""
    if name.startswith(("tensorflow_probability", "distrax", "rlax", "kfac_jax")):
        import jax.interpreters.xla
        from jax._src import core

        if not hasattr(jax.interpreters.xla, "pytype_aval_mappings"):
            jax.interpreters.xla.pytype_aval_mappings = core.pytype_aval_mappings
    return importlib.import_module(name)


def tfp(path: str) -> Any:
    found = lib("tensorflow_probability.substrates.jax")
    for name in path.split("."):
        found = getattr(found, name)
    return found


def key() -> Any:
    return jax.random.key(0)


def truncated(alpha: float) -> Any:
    return lib("numpyro.distributions").DoublyTruncatedPowerLaw(jnp.float32(alpha), jnp.float32(0.3), jnp.float32(2.0))


def f32(*values: float) -> Any:
    return jnp.asarray(np.float32(values))


TFP_ = "tensorflow_probability"
BESSEL = ("_bessel_iv_ratio_custom_gradient",)
JAX = [
    Call("jax", "logaddexp", lambda: jnp.logaddexp(X, P)),
    Call("jax", "logaddexp2", lambda: jnp.logaddexp2(X, P)),
    Call("jax", "relu", lambda: jax.nn.relu(f32(-1, 0, 2))),
    Call("jax", "relu6", lambda: jax.nn.relu6(f32(-1, 0, 2, 6, 7))),
    Call("jax", "log1mexp", lambda: jax.nn.log1mexp(X)),
    Call("jax", "i0", lambda: jnp.i0(X)),
    Call("jax", "slogdet of 3", lambda: jnp.linalg.slogdet(M)),
    Call("jax", "slogdet of 5", lambda: jnp.linalg.slogdet(WIDE)),
    Call("jax", "slogdet by qr", lambda: jnp.linalg.slogdet(WIDE, method="qr")),
    Call("jax", "det", lambda: jnp.linalg.det(WIDE)),
    Call("jax", "pinv", lambda: jnp.linalg.pinv(WIDE[:, :3])),
    Call("jax", "frexp", lambda: jnp.frexp(X)),
    Call("jax", "sinc", lambda: jnp.sinc(f32(0, 0.5, 1.3))),
    Call("jax", "wofz", lambda: sp.wofz(np.complex64([0.3 + 0.5j, 1 - 0.2j]))),
    Call("jax", "erfcx", lambda: sp.erfcx(X)),
    Call("jax", "dawsn", lambda: sp.dawsn(X)),
    Call("jax", "logit", lambda: sp.logit(P)),
    Call("jax", "xlogy", lambda: sp.xlogy(X, P)),
    Call("jax", "xlogy at 0", lambda: sp.xlogy(f32(0, 1), f32(0.5, 2))),
    Call("jax", "xlog1py", lambda: sp.xlog1py(X, P)),
    Call("jax", "entr", lambda: sp.entr(P)),
    Call("jax", "zeta", lambda: sp.zeta(f32(2.5, 3), f32(1.2, 0.7))),
    Call("jax", "log_ndtr", lambda: sp.log_ndtr(f32(-12, -1, 0.5, 9))),
    Call("jax", "log_ndtr at -5000", lambda: sp.log_ndtr(f32(-5000)), wrong=("log_ndtr",)),  # float32 loses 62 %
    Call("jax", "expi", lambda: sp.expi(X)),
    Call("jax", "exp1", lambda: sp.exp1(X)),
    Call("jax", "sici", lambda: sp.sici(X)),
    Call("jax", "expn of order 2", lambda: sp.expn(2, X)),
    Call("jax", "expn of order 0", lambda: sp.expn(0, P), wrong=("expn",)),  # NaN
    Call("jax", "poch", lambda: sp.poch(X, P)),
    Call("jax", "hyp1f1", lambda: sp.hyp1f1(X, P + 1, P)),
    Call("jax", "hyp2f1", lambda: sp.hyp2f1(f32(0.5), f32(0.7), f32(1.3), P[:1])),
    Call("jax", "owens_t", lambda: jax.scipy.special.owens_t(X, P)),
    Call("jax", "fresnel", lambda: sp.fresnel(X)),
    Call("jax", "odeint", lambda: lib("jax.experimental.ode").odeint(lambda y, t: -y, f32(1, 2), f32(0, 0.5, 1))),
    Call("jax", "custom_root", lambda: jax.lax.custom_root(
        lambda y: y * y - 2, jnp.float32(1), lambda f, g: jax.lax.fori_loop(0, 10, lambda i, y: y - f(y) / (2 * y), g),
        lambda g, y: y / g(jnp.ones_like(y)))),
    Call("jax", "pallas layer_norm", lambda: lib("jax.experimental.pallas.ops.gpu.layer_norm").layer_norm(
        WIDE[None, :2, :4], np.ones(4, np.float32), np.zeros(4, np.float32), None, 3, 1e-5, "triton", True)),
    Call("jax", "pallas rms_norm", lambda: lib("jax.experimental.pallas.ops.gpu.rms_norm").rms_norm(
        WIDE[None, :2, :4], np.ones(4, np.float32), np.zeros(4, np.float32), None, 3, 1e-5, "triton", True)),
]  # fmt: skip
TFP = [
    Call(TFP_, "softplus", lambda: tfp("bijectors").Softplus(hinge_softness=0.5)(X)),
    Call(TFP_, "gamma sample", lambda: tfp("distributions").Gamma(X, P).sample(seed=key()),
         intended=("_random_gamma_gradient",)),
    Call(TFP_, "inverse gaussian sample", lambda: tfp("distributions").InverseGaussian(X, P).sample(seed=key()),
         intended=("_random_inverse_gaussian_gradient",)),
    Call(TFP_, "noncentral chi2 cdf", lambda: tfp("distributions").NoncentralChi2(X + 1, P).cdf(X),
         wrong=("_nc2_cdf_naive",)),  # no gradient to df
    Call(TFP_, "student t cdf", lambda: tfp("distributions").StudentT(X + 1, 0.0, 1.0).cdf(P)),
    Call(TFP_, "two piece normal sample", lambda: tfp("distributions").TwoPieceNormal(X, P, 1.3).sample(seed=key()),
         intended=("_two_piece_normal_sample_with_gradient",)),
    Call(TFP_, "von Mises cdf", lambda: tfp("distributions").VonMises(X, P + 1).cdf(P)),
    Call(TFP_, "von Mises sample", lambda: tfp("distributions").VonMises(X, P + 1).sample(seed=key()),
         intended=("_von_mises_sample_with_gradient",)),
    Call(TFP_, "bessel_iv_ratio", lambda: tfp("math").bessel_iv_ratio(X + 1, P), wrong=BESSEL),  # none to v
    Call(TFP_, "bessel_ive", lambda: tfp("math").bessel_ive(X, P), wrong=("_bessel_ive_custom_gradient", *BESSEL)),
    Call(TFP_, "bessel_kve", lambda: tfp("math").bessel_kve(X, P), wrong=("_bessel_kve_custom_gradient", *BESSEL)),
    Call(TFP_, "log_bessel_ive", lambda: tfp("math").log_bessel_ive(X, P),
         wrong=("_log_bessel_ive_custom_gradient", *BESSEL)),
    Call(TFP_, "log_bessel_kve", lambda: tfp("math").log_bessel_kve(X, P),
         wrong=("_log_bessel_kve_custom_gradient", *BESSEL)),
    Call(TFP_, "log_cosh", lambda: tfp("math").log_cosh(X)),
    Call(TFP_, "hpsd_logdet", lambda: tfp("math").hpsd_logdet(PD)),
    Call(TFP_, "hpsd_solve", lambda: tfp("math").hpsd_solve(PD, COLUMN), intended=("_hpsd_solve_custom_gradient",)),
    Call(TFP_, "hpsd_quadratic_form_solve", lambda: tfp("math").hpsd_quadratic_form_solve(PD, COLUMN),
         intended=("_hpsd_quadratic_form_solve_custom_gradient",)),
    Call(TFP_, "hpsd_quadratic_form_solvevec", lambda: tfp("math").hpsd_quadratic_form_solvevec(PD, COLUMN[:, 0]),
         intended=("_hpsd_quadratic_form_solvevec_custom_gradient",)),
    Call(TFP_, "betainc", lambda: tfp("math").betainc(X, P, P)),
    Call(TFP_, "betainc of one", lambda: tfp("math").betainc(X[:1], P[:1], P[:1])),
    Call(TFP_, "dawsn", lambda: tfp("math").dawsn(X)),
    Call(TFP_, "erfcx", lambda: tfp("math").erfcx(X)),
    Call(TFP_, "igammainv", lambda: tfp("math").igammainv(X, P)),
    Call(TFP_, "igammacinv", lambda: tfp("math").igammacinv(X, P)),
    Call(TFP_, "lambertw", lambda: tfp("math").lambertw(X)),
    Call(TFP_, "log_gamma_difference", lambda: tfp("math").log_gamma_difference(X, X + 8)),
    Call(TFP_, "lbeta", lambda: tfp("math").lbeta(X, P)),
    Call(TFP_, "owens_t", lambda: tfp("math").owens_t(X, P)),
    *(Call(TFP_, name, lambda name=name, at=at: getattr(
        lib("tensorflow_probability.substrates.jax.experimental.math.manual_special_functions"), name)(0.1 * X + at))
      for name, at in (("exp_pade_4_4", 0), ("log_pade_4_4", 1), ("expm1_pade_4_4", 0), ("log1p_pade_4_4", 0))),
]  # fmt: skip
OTHERS = [
    Call("numpyro", "truncated log_prob", lambda: truncated(2).log_prob(f32(0.5, 1.2)), wrong=("f",)),
    Call("numpyro", "truncated cdf", lambda: truncated(2).cdf(f32(0.5, 1.2))),
    Call("numpyro", "truncated icdf", lambda: truncated(2).icdf(f32(0.2, 0.7))),
    Call("numpyro", "truncated cdf, alpha -1", lambda: truncated(-1).cdf(f32(0.5, 1.2)), wrong=("f",)),
    Call("numpyro", "log1mexp", lambda: lib("numpyro.distributions.util").log1mexp(-X)),
    Call("numpyro", "log1mexp far", lambda: lib("numpyro.distributions.util").log1mexp(f32(-1e-4, -30))),
    Call("lineax", "two_norm", lambda: lib("lineax._norm").two_norm(X)),
    Call("lineax", "two_norm of a tree", lambda: lib("lineax._norm").two_norm((X, P[:1]))),
    Call("lineax", "two_norm of one", lambda: lib("lineax._norm").two_norm(X[:1])),
    Call("lineax", "max_norm", lambda: lib("lineax._norm").max_norm(X)),
    Call("lineax", "inexact_asarray", lambda: lib("lineax._misc").inexact_asarray(X)),
    Call("lineax", "linear_solve", lambda: lib("lineax").linear_solve(
        lib("lineax").MatrixLinearOperator(M), jnp.asarray(X)).value),
    Call("optimistix", "inexact_asarray", lambda: lib("optimistix._misc").inexact_asarray(X)),
    Call("equinox", "nextafter", lambda: lib("equinox.internal").nextafter(X)),
    Call("equinox", "prevbefore", lambda: lib("equinox.internal").prevbefore(X)),
    Call("equinox", "nondifferentiable", lambda: lib("equinox.internal").nondifferentiable(X), raises=("_nondifferentiable",)),
    Call("equinox", "backward_nan", lambda: lib("equinox.debug").backward_nan(X)),
    Call("optax", "projection_simplex", lambda: lib("optax.projections").projection_simplex(jnp.asarray(X))),
    Call("optax", "safe softmax cross entropy", lambda: lib("optax").safe_softmax_cross_entropy(
        X[None], f32(0.2, 0.3, 0.5)[None])),
    Call("e3nn_jax", "spherical harmonics", lambda: lib("e3nn_jax").spherical_harmonics(
        "1o+2e", lib("e3nn_jax").IrrepsArray("1o", jnp.asarray(X)), True)),
    Call("e3nn_jax", "einsum", lambda: lib("e3nn_jax._src.utils.einsum").einsum("i,j->ij", X, P)),
    Call("jaxopt", "projection_simplex", lambda: lib("jaxopt.projection").projection_simplex(jnp.asarray(X))),
    Call("jaxopt", "projection_sparse_simplex", lambda: lib("jaxopt.projection").projection_sparse_simplex(jnp.asarray(X), 2)),
    Call("jaxopt", "perturbed max", lambda: lib("jaxopt.perturbations").make_perturbed_max(
        lambda v: jax.nn.one_hot(jnp.argmax(v), 3), num_samples=3)(jnp.asarray(X), key())),
    Call("jaxopt", "perturbed argmax", lambda: lib("jaxopt.perturbations").make_perturbed_argmax(
        lambda v: jax.nn.one_hot(jnp.argmax(v), 3), num_samples=3)(jnp.asarray(X), key()), intended=("forward_pert",)),
    Call("rlax", "clip_gradient", lambda: lib("rlax").clip_gradient(X, -0.1, 0.1), intended=("clip_gradient",)),
    Call("flax", "dot_general_with_precision", lambda: lib("flax.linen.fp8_ops").dot_general_with_precision(
        M, M, (((1,), (0,)), ((), ())))),
    Call("distrax", "von Mises cdf", lambda: lib("distrax").VonMises(X, P + 1).cdf(P)),
    Call("distrax", "multiply_no_nan", lambda: lib("distrax._src.utils.math").multiply_no_nan(X, P)),
    Call("distrax", "multiply_no_nan at 0", lambda: lib("distrax._src.utils.math").multiply_no_nan(X, f32(0, 0.5, 0))),
    Call("distrax", "power_no_nan", lambda: lib("distrax._src.utils.math").power_no_nan(X, P)),
    Call("distrax", "power_no_nan at 0", lambda: lib("distrax._src.utils.math").power_no_nan(f32(0, 0.5, 0), f32(2, 0, 1)),
         wrong=("power_no_nan",)),  # NaN where 0 is right
    Call("ott", "norm", lambda: lib("ott.math.utils").norm(jnp.asarray(X))),
    Call("ott", "norm at 0", lambda: lib("ott.math.utils").norm(jnp.zeros(3)), wrong=("norm",)),  # its value is 1.732 there
    Call("ott", "logsumexp", lambda: lib("ott.math.utils").logsumexp(M, axis=1)),
    Call("ott", "logsumexp of -inf", lambda: lib("ott.math.utils").logsumexp(
        jnp.asarray(np.float32([[-np.inf] * 3, [0.1, 0.2, 0.3]])), axis=1), wrong=("logsumexp",)),  # its value is 0 there
    Call("ott", "softmin", lambda: lib("ott.math.utils").softmin(jnp.asarray(M), jnp.float32(0.7), 1), wrong=("softmin",)),
    Call("ott", "lambertw", lambda: lib("ott.math.utils").lambertw(jnp.asarray(X))),
    Call("ott", "sqrtm_only", lambda: lib("ott.math.matrix_square_root").sqrtm_only(jnp.asarray(PD))),
    Call("ott", "inv_sqrtm_only", lambda: lib("ott.math.matrix_square_root").inv_sqrtm_only(jnp.asarray(PD))),
    Call("folx", "slogdet", lambda: lib("folx.slogdet").slogdet(M)),
    Call("folx", "complex_abs", lambda: lib("folx.wrapped_functions").complex_abs(np.complex64([0.3 + 1j, 2 - 0.5j]))),
    Call("brax", "safe_arccos", lambda: lib("brax.math").safe_arccos(P)),
    Call("brax", "safe_arcsin", lambda: lib("brax.math").safe_arcsin(P)),
    Call("exojax", "hjert", lambda: lib("exojax.opacity.lpf.lpf").hjert(jnp.float32(0.7), jnp.float32(0.9))),
    Call("exojax", "rotkernel_Gimenez", lambda: lib("exojax.postproc.spin_rotation").rotkernel_Gimenez(
        P, jnp.float32(0.3), jnp.float32(0.2))),
    Call("exojax", "integrated_rotkernel_trans", lambda: lib(
        "exojax.postproc.spin_rotation").integrated_rotkernel_trans(P - 0.1, P)),
    Call("exojax", "safe_sqrt", lambda: lib("exojax.rt.chord").safe_sqrt(X)),
    Call("exojax", "rewofzx", lambda: lib("exojax.special.faddeeva").rewofzx(jnp.float32(0.7), jnp.float32(0.9)),
         wrong=("rewofzx",)),
    Call("jax_md", "safe_acos", lambda: lib("jax_md._nn.uma.common.rotation").safe_acos(P)),
    Call("jax_md", "safe_atan2", lambda: lib("jax_md._nn.uma.common.rotation").safe_atan2(X, P)),
    Call("jax_md", "quaternion rotate", lambda: lib("jax_md.rigid_body")._quaternion_rotate(
        f32(0.5, 0.5, 0.5, 0.5), jnp.asarray(X)),
         intended=("_quaternion_rotate",)),  # those of the sphere
    Call("jax_md", "safe_sqrt", lambda: lib("jax_md.mm_forcefields.reaxff.reaxff_helper").safe_sqrt(X)),
]  # fmt: skip
CALLS = [*JAX, *TFP, *OTHERS]


class Told(NamedTuple):
    """The verdict of an audit on one rule, and whether it is correct: "right", "alarm", "miss", "open" (unsettled)."""

    call: Call
    rule: str
    verdict: str
    judged: str
    seconds: float


def told(call: Call) -> list[Told]:
    """Audit one call; the verdicts on its rules, and the known ones."""
    start = time.perf_counter()
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("ignore")
        report = nnjax.audit(call.run, intended=call.intended)
    seconds = (time.perf_counter() - start) / max(len(report.notes), 1)
    found = []
    for note in report.notes:
        rule, verdict = note.partition(" (")[0], note.partition("): ")[2].partition(", ")[2]
        wrong, settled = verdict.startswith("FAULT"), not verdict.startswith(("not checked", "not proved"))
        if rule in call.wrong:
            judged = "right" if wrong else "miss" if settled else "open"
        else:
            judged = "alarm" if wrong else "right" if settled or rule in call.raises else "open"
        found.append(Told(call, rule, verdict, judged, seconds))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.library} {call.label}")
@pytest.mark.in_turn
def test_no_false_alarm_and_no_miss(call):
    pytest.importorskip(call.library, exc_type=Exception)
    found = told(call)
    assert found, "the call ran through no rule"
    assert not [f for f in found if f.judged in ("alarm", "miss")], found


def main() -> None:
    """Print every rule's verdict, and the counts."""
    found: list[Told] = []
    versions = {}
    with compiled_lightly():
        for call in CALLS:
            try:
                lib(call.library)
                versions[call.library] = importlib.metadata.version({"ott": "ott-jax"}.get(call.library, call.library))
                new = told(call)
            except Exception as error:  # not installed, or of another version
                print(f"{call.library}, {call.label}: left out, {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
                continue
            for f in new:
                print(f"{f.judged:6} {f.seconds:5.1f} s  {call.library}, {call.label}: {f.rule}: {f.verdict[:110]}", flush=True)
            found += new
    counts = Counter(f.judged for f in found)
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"{len(found)} verdicts on {len({(f.call.library, f.rule) for f in found})} rules of {len(versions)} libraries: "
          f"{counts['right']} right, {counts['alarm']} false alarms, {counts['miss']} misses, {counts['open']} not settled; "
          f"median {statistics.median(f.seconds for f in found):.1f} s a rule")  # fmt: skip


if __name__ == "__main__":
    main()
