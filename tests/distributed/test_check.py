import jax
import jax.numpy as jnp

import nnjax
from nnjax.distributed import make_mesh, replicated
from nnjax.distributed.check import check_draws

KEY = jax.random.key(0)


def test_devices_along_two_axes():
    mesh, axes = make_mesh(data=2, shard=4), ("data", "shard")
    model = replicated(nnjax.serial(nnjax.dense(3, 64), nnjax.dropout(0.5)), axes)
    report = check_draws(model, model.layer.init(KEY), jnp.ones(3), mesh, axes, key=KEY).raise_if_failed()
    assert {row.case for row in report.rows} == {"serial on data=2, shard=4"}


def test_one_device_that_repeats_another_is_counted(monkeypatch):
    mesh, model = make_mesh(data=4), replicated(nnjax.dropout(0.5), "data")
    fold_in = jax.random.fold_in
    monkeypatch.setattr("nnjax.distributed.mesh.jax.random.fold_in", lambda key, i: fold_in(key, jnp.minimum(i, 2)))
    report = check_draws(model, (), jnp.ones(64), mesh, key=KEY)
    assert [row.error for row in report.failures] == [1.0, 1.0]
    assert "devices 2 and 3 along mesh axis data draw the same random numbers" in str(report)
