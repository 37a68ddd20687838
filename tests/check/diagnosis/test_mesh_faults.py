import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from nnjax.check.diagnosis.mesh_faults import Sharding, axis_sizes, axis_words, mentions, place_of, suspects


def mesh_of(**sizes):
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(jax.sharding.AxisType.Auto,) * len(sizes))


def test_sizes_of_axes_alone_and_together():
    found = axis_sizes(mesh_of(data=4, one=1, model=2))
    assert found == [
        ("the size of mesh axis data", 4), ("the size of mesh axis model", 2), ("the size of mesh axes data and model", 8),
    ]  # fmt: skip
    assert axis_words(("a", "b")) == "axes a and b"


def test_what_a_spec_says():
    assert mentions(P(None, ("data", "shard"), "model")) == {"data", "shard", "model"}
    assert mentions(P()) == frozenset()
    assert place_of(P(None, ("data",)), "data") == 1
    assert place_of(P(("data", "shard")), "data") is None


def test_suspects_of_a_sum_of_rows():
    """y = x + b over the rows of x: ct_b is the sum of the rows of ct_y, in parts on 2 devices."""
    sharding = Sharding(mesh_of(data=2), {"output": P("data"), "b": P("data"), "c": P()})
    x, b, ct = np.arange(8.0).reshape(2, 4), np.arange(4.0), np.array([[1.0, 2, 3, 4], [10, 20, 30, 40]])

    def truth(diff, cts):
        b, c = diff
        return {"output": x + b + c, "b": cts[0].sum(0), "c": cts[0].sum(0)}

    of = suspects(sharding, {"b": b, "c": b + 1}, [ct], truth)
    ((kind, why, value),) = of("output")
    assert (kind, "c times 2, the size of mesh axis data" in why) == ("wrong_primal", True)
    np.testing.assert_array_equal(value, x + b + 2 * (b + 1))
    (_, _, rolled), (kind, why, cut) = of("b")
    np.testing.assert_array_equal(rolled, [33, 44, 11, 22])
    np.testing.assert_array_equal(cut, [1, 2, 30, 40])
    assert (kind, "instead of a reduce-scatter" in why) == ("partial", True)
    assert of("c") == []
