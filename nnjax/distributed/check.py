"""A check for several devices: each must draw its own random numbers."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from ..check.diagnosis.mesh_faults import axis_words
from ..check.report import Diagnosis, Report, Where
from .collectives import Axis, names, reduce_from
from .mesh import on_mesh
from .sharded import Sharded


def check_draws(model: Sharded, params: Any, x: Any, mesh: Mesh, axis: Axis = "data", *, key: Any) -> Report:
    """Run a layer that draws random numbers with `on_mesh`, on the same example x on all devices: each must draw its own.

    There is a row for apply and one for fwd; its error is the number of devices that repeat another's output. y: one array.
    """
    n = math.prod(mesh.shape[name] for name in names(axis))

    def outputs(f, key):
        def value(params, x, labels, *, weights=None, key=None):
            y = f(params, x, key=key)
            return reduce_from(jnp.zeros((n, *y.shape), y.dtype).at[lax.axis_index(axis)].set(y), axis), params

        batch = jnp.broadcast_to(x[None], (n, *x.shape))
        run = jax.jit(on_mesh(value, model, mesh, axis))
        return np.asarray(run(params, batch, jnp.zeros(n, jnp.int32), key=key)[0])

    rows, missing = [], []
    layer = model.layer
    case = f"{layer.name} on {', '.join(f'{name}={mesh.shape[name]}' for name in names(axis))}"
    for name, f in (("apply", layer.apply), ("fwd", lambda params, x, *, key: layer.fwd(params, x, key=key)[0])):
        drawn = outputs(f, key)
        if np.array_equal(drawn, outputs(f, None)):
            missing.append(f"{case}: {name} draws no random numbers at this x")
            continue
        alike = [(i, j) for j in range(n) for i in range(j) if np.array_equal(drawn[i], drawn[j])]
        repeated = len({j for _, j in alike})
        wrong = None
        if alike:
            i, j = alike[0]
            words = f"devices {i} and {j} along mesh {axis_words(names(axis))} draw the same random numbers: is the key not "
            wrong = Diagnosis("wrong_primal", f"{words}folded with the index of the device?")
        where = Where(case, str(drawn.dtype), "jit", mesh.devices.flat[0].device_kind)
        rows.append(where.row(f"random numbers of {name}", error=float(repeated), bound=0.0, diagnosis=wrong,
                              status="failed" if alike else "ok", witness="devices"))  # fmt: skip
    return Report(tuple(rows), tuple(missing))
