"""Compare a layer that runs over a mesh with one on a single device."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..errors import describe
from ..layer import Layer, expect_layer
from .auditing.inside import varies
from .diagnosis.mesh_faults import Sharding, axis_words, mentions
from .matrix import run_matrix
from .options import Options
from .pair import pair_run, paired
from .report import Diagnosis, Report, Row, merged, output_names
from .running.cells import cells
from .subject import Problems, Subject, layer_owner, leaf_name, split, vjp_of

NAMES = ("params", "x", "key")
Unsummed = dict[str, tuple[str, ...]]  # mesh axes over which a leaf varied, though its spec says that it does not


def expect_sharding(mesh: Any, specs: Any, reference: Any, devices: Any) -> None:
    """Raise TypeError or ValueError if an argument for a check over a mesh is missing, or given without a mesh."""
    if mesh is None:
        if specs is not None or reference is not None:
            raise ValueError("check_layer: specs= and reference= need a mesh; pass mesh= too, or leave them out.")
        return
    if not isinstance(mesh, Mesh):
        raise TypeError(f"check_layer: mesh must be a jax.sharding.Mesh, got {describe(mesh)}; make one with jax.make_mesh.")
    if devices is not None:
        raise ValueError("check_layer: a mesh has its own devices; pass mesh= or devices=, not both.")
    if not isinstance(specs, tuple) or len(specs) != 3:
        raise ValueError(
            "check_layer: with mesh=, specs must be (specs of params, of x, of y), "
            f"got {describe(specs)}; pass jax.sharding.PartitionSpec for each."
        )
    if reference is None:
        raise ValueError("check_layer: with mesh=, a reference is needed; pass reference=, the same layer on one device.")
    expect_layer("check_layer", reference)


def _named(specs: Any, tree: Any, name: str) -> list[tuple[str, P, Any]]:
    """(name, spec, leaf) of every leaf of the tree."""
    full = jax.tree.map(lambda s, part: jax.tree.map(lambda _: s, part), specs, tree, is_leaf=_is_spec)
    paths, leaves = jax.tree_util.tree_flatten_with_path(((tree,), {}))[0], jax.tree.leaves(full, is_leaf=_is_spec)
    return [(leaf_name(path, (name,)), s, leaf) for (path, leaf), s in zip(paths, leaves, strict=True)]


def _is_spec(s: Any) -> bool:
    return isinstance(s, P)


def _named_outputs(specs: Any, y: Any) -> list[tuple[str, P, Any]]:
    """The same for the outputs with a derivative."""
    found = [(s, leaf) for _, s, leaf in _named(specs, y, "output") if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return [(name, *both) for name, both in zip(output_names(len(found)), found)]


def _expect_fit(named: Sequence[tuple[str, P, Any]], mesh: Mesh) -> None:
    for name, spec, leaf in named:
        try:
            NamedSharding(mesh, spec).shard_shape(jnp.shape(leaf))
        except ValueError:
            sizes = ", ".join(f"{axis}={n}" for axis, n in mesh.shape.items())
            raise ValueError(
                f"check_layer: {name} of shape {jnp.shape(leaf)} cannot be split as its spec says, {spec}, over a "
                f"mesh of {sizes}; change its size or its spec."
            ) from None


def _summed(named: Sequence[tuple[str, P, Any]], tree: Any, unsummed: Unsummed) -> Any:
    """The tree with every leaf summed over the mesh axes over which it varies, though its spec says that it does not.

    JAX would refuse such a leaf. `unsummed` records these axes: the leaf fails, and its value with the sum is compared.
    """

    def one(name, spec, leaf):
        axes = tuple(sorted(varies(leaf) - mentions(spec)))
        if not axes:
            return leaf
        unsummed[name] = axes
        return lax.psum(leaf, axes)

    return jax.tree.unflatten(jax.tree.structure(tree), [one(*entry) for entry in named])


def check_on_mesh(
    layer: Layer, args: tuple[Any, Any, Any], opts: Options, mesh: Mesh, specs: tuple[Any, Any, Any], reference: Layer
) -> Report:
    """Compare fwd and bwd of the layer, and jax.vjp of its apply, over the mesh with the reference on one device.

    args: (params, x, key), as whole arrays; the key is the same on all devices.
    """
    param_specs, x_specs, y_specs = specs
    params, x, key = args
    spec, diff, other = split(args, {}, NAMES)

    def definition(params, x, key):
        return reference.apply(params, x, key=key)

    y = jax.eval_shape(definition, *args)
    inputs = [*_named(param_specs, params, "params"), *_named(x_specs, x, "x")]
    outputs = _named_outputs(y_specs, y)
    _expect_fit([*inputs, *outputs], mesh)
    sharding = Sharding(mesh, {name: s for name, s, _ in (*outputs, *inputs)})
    on = partial(jax.shard_map, mesh=mesh)
    of_args = (param_specs, x_specs, P())

    def value_of(f: Callable[..., Any], unsummed: Unsummed) -> Callable[..., Any]:
        def local(params, x, key):
            y = f(params, x, key=key)
            return _summed(_named_outputs(y_specs, y), y, unsummed)

        return on(local, in_specs=of_args, out_specs=y_specs)

    by_hand: Unsummed = {}
    value = value_of(lambda params, x, *, key: layer.fwd(params, x, key=key)[0], by_hand)

    def pulled(params, x, key, ct_y):
        ct_params, ct_x = layer.bwd(layer.fwd(params, x, key=key)[1], ct_y)
        named = [*_named(param_specs, ct_params, "params"), *_named(x_specs, ct_x, "x")]
        return _summed(named, (ct_params, ct_x), by_hand)

    pull: Callable[..., Any] = on(pulled, in_specs=(*of_args, y_specs), out_specs=(param_specs, x_specs))

    def fwd(params, x, key):
        return value(params, x, key), (params, x, key)

    def bwd(kept, ct_y):
        return (*pull(*kept, ct_y), None)

    hand, problems = pair_run(fwd, bwd, spec)
    remat = vjp_of(paired(fwd, bwd), spec, jax.checkpoint)
    case = f"{layer.name} on {', '.join(f'{name}={n}' for name, n in mesh.shape.items())}"
    subject = Subject(
        case=case, spec=spec, definition=definition, reference=vjp_of(definition, spec), hand=hand, rematerialised=remat,
        problems=problems, owner=lambda leaf: layer_owner(layer, leaf), layer=layer, sharding=sharding,
    )  # fmt: skip
    prepared = cells(subject, diff, other, opts)
    report = _with_missing(run_matrix(subject, diff, other, opts, prepared), by_hand)
    in_apply: Unsummed = {}
    by_jax = vjp_of(value_of(layer.apply, in_apply), spec)
    definition_too = replace(subject, case=f"apply of {case}", hand=by_jax, problems=Problems(), compiled={})
    only = opts._replace(transforms=("jit",), witnesses=())
    return merged([report, _with_missing(run_matrix(definition_too, diff, other, only, prepared), in_apply)])


def _with_missing(report: Report, unsummed: Unsummed) -> Report:
    return report._replace(
        rows=tuple(_without_sum(row, unsummed[row.leaf]) if row.leaf in unsummed else row for row in report.rows)
    )


def _without_sum(row: Row, axes: tuple[str, ...]) -> Row:
    """The row of a leaf that only the check summed: it fails, even if the sum is right."""
    words = f"missing a sum over mesh {axis_words(axes)}: devices differ, though its spec says that all have the same"
    if row.diagnosis is not None:
        factor, _, of_axis = row.diagnosis.detail.partition(": summed twice?")
        words += f"; with that sum, {factor}" + (": is it summed over the wrong axis?" if of_axis else "")
    return row._replace(ok=False, status="failed", error=np.inf, bound=0.0, diagnosis=Diagnosis("partial", words))
