"""`check_layer`: compare a layer's hand-written pair with its definition, and name the wrong layer inside."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from ..errors import describe
from ..layer import Layer, as_custom_vjp, expect_layer, plain
from .diagnosis.localise import localise
from .matrix import run_matrix
from .options import DTYPES, EVERYWHERE, Options, options
from .pair import pair_run
from .report import Report
from .searching.search import expect_search, searched, with_search
from .sharding import check_on_mesh, expect_sharding
from .subject import Spec, Subject, layer_owner, split, vjp_of


@functools.lru_cache(maxsize=256)
def _shared(apply: Callable[..., Any], spec: Spec) -> dict[Any, Any]:
    """What is compiled for a definition: layers that differ only in fwd and bwd (mutants) share it."""
    return {}


@functools.lru_cache(maxsize=64)
def layer_subject(layer: Layer, spec: Spec) -> Subject:
    """One Subject for each layer and kind of arguments, so that a second check compiles nothing."""

    def fwd(params, x, key):
        return layer.fwd(params, x, key=key)

    def bwd(residuals, ct_y):
        returned = layer.bwd(residuals, ct_y)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(
                f"check: bwd of {layer.name} must return (ct_params, ct_x), got {describe(returned)}; return both, as a tuple."
            )
        return (*returned, None)

    def apply(params, x, key):
        return layer.apply(params, x, key=key)

    hand, problems = pair_run(fwd, bwd, spec)
    remat = vjp_of(as_custom_vjp(layer), spec, jax.checkpoint)
    slow = plain(layer)
    return Subject(
        case=layer.name, spec=spec, definition=apply, reference=vjp_of(apply, spec), hand=hand, rematerialised=remat,
        problems=problems, shared=_shared(layer.apply, spec), owner=lambda leaf: layer_owner(layer, leaf), layer=layer,
        plain=None if slow is layer else layer_subject(slow, spec),
    )  # fmt: skip


def crowded(share: float = 0.5) -> bool:
    """Whether compiled programs take up this share of the memory maps that Linux allows a process: 65,530 by default.

    A program takes about twenty, and a loop that runs eagerly is compiled again each time.
    """
    try:
        most = int(Path("/proc/sys/vm/max_map_count").read_text())
        return Path("/proc/self/maps").read_bytes().count(b"\n") > share * most
    except (OSError, ValueError):
        return False  # other systems have no such limit


def forget() -> None:
    """Drop every compiled program."""
    layer_subject.cache_clear()
    _shared.cache_clear()
    jax.clear_caches()


def check_layer(
    layer: Layer, params: Any, x: Any, *, key: Any = None, dtypes: Sequence[str] | None = None,
    transforms: Sequence[str] | None = None, devices: Sequence[Any] | None = None, compute_dtype: str | None = None,
    seed: int = 0, full: bool = False, witnesses: Sequence[str] | None = None, mesh: Mesh | None = None,
    specs: tuple[Any, Any, Any] | None = None, reference: Layer | None = None, search: bool | float = False,
) -> Report:  # fmt: skip
    """Compare layer.fwd and layer.bwd with jax.vjp of layer.apply, at these parameters and inputs.

    It compares the value and every leaf's cotangent, within the error budget of `nnjax.check.witness.oracle`, for random
    cotangents, on each of `devices` (the default one). `key` is for layers that draw random numbers.

    dtypes      of float64, float32, bfloat16, float16; all by default.
    transforms  of eager, jit, vmap, scan, checkpoint, second (the Hessian-vector product, forward over reverse). By
                default eager and jit in every dtype, the others in float32 and float64; with `full` all in every dtype.
    witnesses   of adjoint, taylor and plain, all by default. The first two, in float64, are proofs without reverse mode. plain:
                the plain pair (`nnjax.plain`), if the layer has a faster one, within the same budget in every dtype, under
                jit; with `full` under every transform.
                Two more on request: repeat, the same bits when it runs twice; batch_invariant, the same bits for a row in
                any batch.
    compute_dtype   the precision in which the layer computes inside, if lower than that of its arguments.

    With `mesh`, the layer runs on each device inside `jax.shard_map`, on its part of the whole arrays params and x, split as
    `specs` = (of params, of x, of y) say: PartitionSpecs in trees, or one for a whole tree. Value and gradients, and those
    of its apply, are compared with `reference`, the layer on one device, which takes the same params and x. By default the
    transforms are then eager and jit, without witnesses. A missing sum over devices is a failed row.

    With `search`, a layer that is right here is also checked at hostile inputs, made from these shapes and ranges (ties,
    zeros, repeated ids, saturated and tiny numbers, masked rows, other sizes), for 25 seconds or this many; the report shows
    the smallest that fails.

    The Report names leaf and layer, and describes the error. A wrong gradient raises nothing: call `.raise_if_failed()` for
    that. Raises TypeError if `layer` is not a Layer, or no leaf has a derivative, and ValueError for an unknown dtype,
    transform or witness, or for specs that do not fit.

    >>> layer, x = nnjax.tanh(), jnp.linspace(-2, 2, 7)
    >>> nnjax.check_layer(layer, (), x, dtypes=["float32"], transforms=["jit"]).ok
    True
    >>> wrong = layer._replace(bwd=lambda residuals, ct_y: ((), ct_y))
    >>> nnjax.check_layer(wrong, (), x, dtypes=["float32"], transforms=["jit"]).ok
    False
    """
    expect_layer("check_layer", layer)
    expect_sharding(mesh, specs, reference, devices)
    if mesh is not None and specs is not None and reference is not None:
        chosen = transforms if transforms is not None or full else EVERYWHERE
        opts = options(dtypes, chosen, mesh.devices.flat[:1], compute_dtype, seed, full, witnesses or ())
        return check_on_mesh(layer, (params, x, key), opts, mesh, specs, reference)
    spec, diff, other = split((params, x, key), {}, ("params", "x", "key"))
    opts = options(DTYPES if dtypes is None else dtypes, transforms, devices, compute_dtype, seed, full, witnesses)
    seconds = expect_search(search)
    report = run_matrix(layer_subject(layer, spec), diff, other, opts)
    if report.failures or not seconds:
        return located(report, layer, params, x, key, opts)

    def apply(params, x, key):
        return layer.apply(params, x, key=key)

    found = searched(as_custom_vjp(layer), apply, (params, x, key), {}, layer.name, seed, seconds)
    return with_search(report, found, layer.name)


def located(report: Report, layer: Layer, params: Any, x: Any, key: Any, opts: Options) -> Report:
    """The report, with the wrong layer inside named in every failed row."""
    wrong = [row for row in report.failures if row.witness == "reference"]
    if not wrong or not layer.parts:
        return report
    first = wrong[0]
    only = opts._replace(dtypes=(first.dtype,), transforms=(first.transform,), witnesses=())

    def check(part, p, v, k):
        try:
            spec, diff, other = split((p, v, k), {}, ("params", "x", "key"))
        except TypeError:
            return Report(())  # a part without a derivative cannot have a wrong gradient
        return run_matrix(layer_subject(part, spec), diff, other, only)

    found = localise(layer, params, x, key, check)
    if found is None:
        return report._replace(notes=(*report.notes, f"{layer.name}: every part alone is right; their combination is wrong"))
    kind = next((row.diagnosis.kind for row in found.rows if row.diagnosis), "unknown")
    rows = []
    for row in report.rows:
        if row.diagnosis is not None:
            own = row.diagnosis
            chosen = kind if own.kind in ("unknown", "partial") else own.kind
            row = row._replace(layer=found.path, diagnosis=own._replace(kind=chosen, detail=f"{own.detail}; {found.words()}"))
        rows.append(row)
    return report._replace(rows=tuple(rows))
