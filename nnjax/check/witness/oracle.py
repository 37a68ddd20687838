"""The error budget: how far a right gradient, computed in dtype d, may lie from the exact one.

For each leaf: h is the hand-written gradient and r the reference, both in d; t is the truth, the reference in float64 on
the same inputs. A right gradient is as good as the exact gradient of inputs rounded once, so h passes when, in the 2-norm and
in the maximum norm (which catches one wrong entry among a million),

    |h - t|  <=  FACTOR rho  +  FACTOR max_k |t'_k - t|  +  ULPS eps_d |t|

    rho     max(|r - t|, max_k |r_k - t_k|): the rounding error of autodiff, at these inputs and over DRAWS draws of them
            rounded once, with fresh cotangents. A few entries have few draws (layer norm of width 2: four), and none may lose
            what the inputs themselves lose: without |r - t|, one right gradient in 50 seeds of that layer was rejected.
    t'_k    the truth after one rounding (relative eps_d, random signs) of every input and cotangent

Nothing here is tuned to a case and nothing grows with the size of an array. The constants, with reasons:

DRAWS = 16      rho is a maximum over random draws, so that one lucky draw does not set it. If every leaf has 10,000
                entries or more, each norm already averages over that many roundings, and LARGE_DRAWS = 3 suffice; their
                cotangents are rounded instead of fresh, so that one truth serves for rho and for moved.
FACTOR = 4      hand-written and automatic gradients round at different places: each may lose what the other does not.
ULPS = 16       both may be lucky at once (rho = 0, as for relu): a few roundings of the result are always allowed.
ZERO = 16, 64   some right gradients are exactly zero (a bias before a normalisation): there t is only rounding, and h
                is another draw of it. Where |t| <= 16 rho, only rho can be used, and FACTOR becomes 64.
float64         there is no higher truth. rho is the float32 error scaled by eps64 / eps32. Where float32 saturates, and
                so loses nothing, float64 still cancels (ct - sum y ct in softmax, y near 1), and leaves eps64 of the terms:
                rho is at least eps64 max|ct| max(1, max|x|). Without this floor, right gradients were rejected.
DISAGREE        the truth must be right, or its difference from the reference would excuse anything. If |r - t| exceeds
                both what the draws explain and DISAGREE (max|t' - t| + eps_d |t|), the reference is a different function
                in float64 (it may draw other random numbers), and nothing can be concluded. Where t is zero up to
                rounding, |t| is not a scale, and max|ct| max(1, max|x|) replaces it: cancellation leaves eps_d of the
                terms that cancelled, a different mask leaves the terms. 1,000 roundings are still far below a changed
                mask in float32; it is capped, so that the limit is at most a quarter of |t|.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..running.threads import once
from ..subject import Flat, Leaf, Leaves
from .rounding import Rounder, random_like

DRAWS, FACTOR, ULPS, LARGE, LARGE_DRAWS = 16, 4.0, 16.0, 10_000, 3
ZERO_BELOW, ZERO_FACTOR, DISAGREE, DISAGREE_SHARE = 16.0, 64.0, 1000.0, 0.25
DISAGREEMENT = "reference and truth disagree"  # the sentence of a budget on this starts so


def eps_of(dtype: Any) -> float:
    """The spacing of dtype's numbers at 1."""
    return float(jnp.finfo(dtype).eps)


def on_host(arrays: Any) -> list[np.ndarray]:
    """The same numbers as float64 NumPy arrays."""
    return [np.asarray(a).astype(np.float64, copy=False) for a in arrays]


def in_x64(f: Callable[..., Any], *lists: Any) -> list[np.ndarray]:
    """f of these lists of arrays in float64, moved to NumPy inside the x64 context: outside, JAX would drop to float32."""
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision("highest"),
        jax.default_device(jax.local_devices(backend="cpu")[0]),
    ):
        return on_host(f(*lists))


def size_of(x: np.ndarray) -> float:
    """The largest finite absolute value: a logit of -inf, or a NaN of weight 0, says nothing about the scale."""
    return float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x)))


def norms(x: Leaf) -> np.ndarray:
    """The 2-norm and the maximum norm; NaN counts as infinite."""
    if x.size == 0:
        return np.zeros(2)
    top = float(np.abs(x).max())
    if np.isnan(top):
        top = np.inf
    if top == 0 or not np.isfinite(top):
        return np.array([top, top])
    if not 1e-100 < top < 1e100:  # scaled, so that no square overflows or vanishes
        return np.array([top * np.linalg.norm((x / top).ravel()), top])
    return np.array([np.linalg.norm(x.ravel()), top])


def _apart(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The norms of x - y where the mask is set."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = x - y
    return norms(difference if mask.all() else difference[mask])


class Budget(NamedTuple):
    """One leaf's truth and its allowed error. Norms come in pairs (2-norm, maximum) over the entries where r is finite."""

    truth: np.ndarray
    reference: np.ndarray
    finite: np.ndarray
    size: np.ndarray
    rho: np.ndarray
    moved: np.ndarray
    bound: np.ndarray
    zero: bool
    disagreement: str
    strict: np.ndarray = np.zeros(2)
    truth_eps: float = 2.0**-52

    def proves(self, h: np.ndarray) -> bool:
        """Whether h is the truth up to roundings of only inputs and result, whatever the reference is."""
        ours = h[self.finite]
        return bool(np.isfinite(ours).all() and (norms(ours - self.truth[self.finite]) <= self.strict).all())

    def scaled(self, factor: float) -> "Budget":
        """The budget with every cotangent multiplied by a power of two, which does not round."""
        scaled = {name: getattr(self, name) * factor for name in ("truth", "reference")}
        scaled |= {name: getattr(self, name) * abs(factor) for name in ("size", "rho", "moved", "bound", "strict")}
        return self._replace(**scaled)

    def skipped(self, h: np.ndarray, primal: bool = False) -> np.ndarray:
        """The entries that are not compared: where reference or truth is not finite.

        A value is compared there too if both agree, as the definition fixes it; a gradient may be lost on the way to it.
        """
        if not primal or self.finite.all():
            return ~self.finite
        r, t = self.reference, self.truth
        return ~self.finite & ~(((h == t) & (r == t)) | (np.isnan(h) & np.isnan(r) & np.isnan(t)))

    def unlike(self, h: np.ndarray) -> np.ndarray:
        """The entries of a value that are infinite in reference and truth alike, but differ in h."""
        return ~self.finite & np.isinf(self.truth) & (self.reference == self.truth) & (h != self.truth)

    def relative(self, h: np.ndarray) -> float:
        """The error of a gradient over the size of the truth, in the norm in which it is larger."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.nan_to_num(_apart(h, self.truth, self.finite) / self.size, nan=np.inf).max())

    def judge(self, h: np.ndarray, primal: bool = False) -> tuple[float, float, str]:
        """(error, bound, status) of a hand-written gradient, in the norm in which it does worst; primal: of a value."""
        if not np.isfinite(h[self.finite]).all() or (primal and self.unlike(h).any()):
            return np.inf, float(self.bound[1]), "failed"
        error = _apart(h, self.truth, self.finite)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(error == 0, 0.0, error / self.bound)
        worst = int(np.argmax(np.where(np.isnan(share), 0.0, share)))
        if not (error <= self.bound).all():
            status = "failed"
        elif self.truth.size == 0:
            status = "ok"  # an empty leaf is compared only in shape and dtype
        elif not self.finite.any():
            status = "vacuous" if self.skipped(h, primal).all() else "ok"
        elif self.zero:
            status = "zero"
        else:
            status = "vacuous" if not (self.bound < self.size).any() else "ok"
        return float(error[worst]), float(self.bound[worst]), status


def measure(
    reference: Flat, diff: Leaves, other: Leaves, linear: Leaves, dtype: Any, seed: int, eps: float, parts: str = "rho moved",
    draws: int | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray], list[np.ndarray]]:  # fmt: skip
    """(r, t, rho, moved) of every leaf that reference(diff, other, linear) returns, `linear` entering linearly.

    rho and moved are pairs of norms, and zero where not among `parts`; diff and linear are in dtype. In float64 r is t.
    draws: how many, by default those of the docstring above.
    """
    rng = np.random.default_rng((seed, 1))
    t = in_x64(reference, on_host(diff), other, on_host(linear))
    r = t if dtype == np.float64 else on_host(reference(diff, other, linear))
    finite = [np.isfinite(a) & np.isfinite(b) for a, b in zip(r, t)]
    rho, moved = [np.zeros(2) for _ in r], [np.zeros(2) for _ in r]
    salt = int(rng.integers(2**63))
    near_x, near_linear = ([Rounder.of(x, eps, salt) for x in xs] for xs in (diff, linear))
    large = min((x.size for x in t), default=0) >= LARGE

    def apart(largest, xs, ys):  # if r overflows, the difference is NaN, which counts as infinite
        return [np.maximum(a, _apart(x, y, f)) for a, x, y, f in zip(largest, xs, ys, finite)]

    alike = large or (not linear and "moved" in parts)  # one truth serves for both
    for k in range(draws or (LARGE_DRAWS if large else DRAWS)):
        near, near_ct = ([x.draw(k) for x in xs] for xs in (near_x, near_linear))
        near_wide = on_host(near)
        t_near = in_x64(reference, near_wide, other, on_host(near_ct)) if large or "moved" in parts else []
        if "moved" in parts:
            moved = apart(moved, t_near, t)
        if "rho" in parts:
            fresh = near_ct if large else [random_like(rng, np.shape(c), c.dtype) for c in linear]
            t_k = t_near if alike else in_x64(reference, near_wide, other, on_host(fresh))
            rho = apart(rho, on_host(reference(near, other, fresh)), t_k)
    return r, t, rho, moved


def budgets(
    reference: Flat, diff: Leaves, other: Leaves, linear: Leaves, dtype: Any, seed: int,
    compute_dtype: Any = None, truth_eps: float = 2.0**-52, measured: dict[Any, Any] | None = None, at: Any = None,
    draws: int | None = None,
) -> list[Budget]:  # fmt: skip
    """The budget of every leaf that reference(diff, other, linear) returns, at these inputs in this dtype.

    In float64 there is no higher truth: rho is then the reference's float32 error scaled by eps64 / eps32, but at least the
    rounding of terms that may have cancelled. With compute_dtype, one rounding and the error of the reference are taken at
    that lower precision. truth_eps is the precision that the truth supports (`nnjax.check.witness.truth`): no leaf must be
    more precise. Measurements in float32 are kept in `measured`, under `at`, as float64 needs them too.
    draws: see `measure`. A budget can only grow with them.
    """
    dtype = np.dtype(dtype)
    eps = max(eps_of(dtype), truth_eps)
    largest = [max(map(size_of, on_host(xs)), default=1.0) for xs in (linear, diff)]
    terms = (largest[0] if linear else 1.0) * max(1.0, largest[1])

    def in_float32(parts="rho moved"):
        narrow = [x.astype(np.float32) for x in diff], other, [c.astype(np.float32) for c in linear]
        return measure(reference, *narrow, np.dtype(np.float32), seed, eps32, parts, draws)

    eps32 = max(eps_of(np.float32), truth_eps)
    if dtype == np.float64:
        r, t, rho, _ = in_float32("rho") if measured is None else once(measured, at, in_float32)
        rho = [np.maximum(a, _apart(x, y, np.isfinite(x) & np.isfinite(y))) for a, x, y in zip(rho, r, t)]
        r, t, _, moved = measure(reference, diff, other, linear, dtype, seed, eps, "moved", draws)
        rho = [a * (eps / eps32) for a in rho]
        floor = [eps * terms * np.array([np.sqrt(x.size), 1.0]) for x in t]
    else:
        if dtype == np.float32 and measured is not None:
            r, t, rho, moved = once(measured, at, in_float32)
        else:
            r, t, rho, moved = measure(reference, diff, other, linear, dtype, seed, eps, draws=draws)
        floor = [np.zeros(2) for _ in t]
        if compute_dtype is not None:
            low = np.dtype(compute_dtype)
            eps = max(eps_of(low), truth_eps)
            lowered = [x.astype(low) for x in diff], other, [c.astype(low) for c in linear]
            _, _, rho, moved = measure(reference, *lowered, low, seed, eps, draws=draws)
    return [_budget(*leaf, eps, terms)._replace(truth_eps=truth_eps) for leaf in zip(r, t, rho, moved, floor)]


def _budget(r, t, rho, moved, floor, eps, terms) -> Budget:
    finite = np.isfinite(r) & np.isfinite(t)
    size = norms(t[finite])
    zero = bool(np.isfinite(rho).all() and (size <= ZERO_BELOW * rho).all())
    rho = np.maximum(rho, floor)  # after `zero`: a gradient below the floor is not zero, but cannot be judged
    loses = FACTOR * moved + ULPS * eps * size
    bound = (ZERO_FACTOR if zero else FACTOR) * rho + loses
    own = apart = _apart(r, t, finite)
    # Where t is zero up to rounding, rho (the worst of many draws) says more than one difference.
    apart = np.maximum(apart, rho) if zero else apart
    limit = min(DISAGREE, DISAGREE_SHARE / eps) * (moved + eps * (np.maximum(size, terms) if zero else size))
    disagreement = ""
    if (apart > limit).all() and (zero or (apart > bound).any()):
        disagreement = (
            f"{DISAGREEMENT}: in this dtype and in float64 the reference differs by {apart.max():.3g}, far "
            f"above what rounding its inputs explains ({limit.max():.3g}); does it cast inside, or draw other random numbers "
            "under x64? Draw them in a dtype of their own, as in jax.random.bernoulli(key, jnp.float32(0.5), x.shape)."
        )
    if not disagreement:
        bound = np.maximum(bound, FACTOR * own + loses)
    return Budget(t, r, finite, size, rho, moved, bound, zero, disagreement, loses)
