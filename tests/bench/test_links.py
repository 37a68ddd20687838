import math

import pytest

from nnjax.bench.links import COUNTS, STRONG, Links, Prediction, expect_speeds, flops, predict, ring_seconds, tree_seconds
from nnjax.bench.minimum import Sizes

LINKS = Links(bandwidth=1e9, latency=1e-6, rate=1e12)
KINDS = ("all-reduce", "all-gather", "reduce-scatter")
SIZES = Sizes(vocab=64, context=16, layers=2, heads=8, width=32, batch=64)


def test_known_times():
    n = 8e6  # 8 ms on a link
    assert ring_seconds("all-reduce", n, 4, LINKS) == pytest.approx(2 * 3 * 1e-6 + 2 * 3 / 4 * 8e-3)
    assert ring_seconds("all-gather", n, 4, LINKS) == pytest.approx(3e-6 + 6e-3)
    assert ring_seconds("reduce-scatter", n, 8, LINKS) == pytest.approx(7e-6 + 7e-3)
    assert tree_seconds("all-reduce", n, 8, LINKS) == pytest.approx(2 * 3 * 1e-6 + 2 * 7e-3)
    assert tree_seconds("all-gather", n, 8, LINKS) == pytest.approx(3e-6 + 7e-3)
    assert tree_seconds("all-gather", n, 6, LINKS) == pytest.approx(3e-6 + 5 / 6 * 8e-3)
    assert tree_seconds("all-reduce", 8, 8, LINKS) == pytest.approx(3 * (1e-6 + 8e-9))  # few bytes are sent as a whole


@pytest.mark.parametrize("way", [ring_seconds, tree_seconds])
@pytest.mark.parametrize("kind", KINDS)
def test_limits_and_order(way, kind):
    assert way(kind, 1e6, 1, LINKS) == 0
    by_devices = [way(kind, 1e6, p, LINKS) for p in (1, 2, 4, 8, 64, 512, 4096)]
    by_bytes = [way(kind, n, 8, LINKS) for n in (0, 1, 1e3, 1e6, 1e9)]
    assert by_devices == sorted(by_devices)
    assert by_bytes == sorted(by_bytes)
    assert len(set(by_devices)) == len(by_devices)
    for p in (2, 64, 4096):
        assert tree_seconds(kind, 1e6, p, LINKS) <= ring_seconds(kind, 1e6, p, LINKS)
    bound = 1e9 / LINKS.bandwidth * (2 if kind == "all-reduce" else 1)
    assert way(kind, 1e9, 64, LINKS._replace(latency=0)) == pytest.approx(bound * 63 / 64)


def test_an_unknown_kind_has_no_formula():
    with pytest.raises(KeyError, match="all-to-all"):
        ring_seconds("all-to-all", 1, 2, LINKS)


def test_operations_are_six_a_parameter_and_token_and_those_of_attention():
    block, table, norm = 12 * 32**2 + 13 * 32, 64 * 32, 2 * 32
    assert flops(SIZES) == 64 * 16 * (6 * (2 * block + table + norm) + 12 * 2 * 32 * 16)


@pytest.mark.parametrize(("mesh", "last"), [
    ({"data": 8}, {"data": 4096}), ({"shard": 8}, {"shard": 4096}), ({"model": 8}, {"data": 512, "model": 8}),
    ({"data": 2, "shard": 4}, {"data": 1024, "shard": 4}),
])  # fmt: skip
def test_weak_scaling_keeps_the_work_of_a_device_strong_the_batch(mesh, last):
    weak, strong = (predict(SIZES, mesh, LINKS, scaling) for scaling in ("weak", "strong"))
    for found in (weak, strong):
        assert [p.devices for p in found] == list(COUNTS)
        assert found[-1].mesh == last
    assert {p.batch for p in strong} == {STRONG}
    assert all(p.compute == pytest.approx(weak[0].compute) for p in weak)
    assert [p.compute for p in strong] == pytest.approx([strong[0].compute * 8 / n for n in COUNTS])
    assert weak[0].batch == SIZES.batch
    for found in (weak, strong):
        efficiency = [p.efficiency for p in found]
        assert all(0 < e < 1 for e in efficiency)
    steps = [p.step for p in weak]
    assert steps == sorted(steps)  # there is only more to send


def test_a_data_parallel_step_is_arithmetic_and_one_all_reduce_of_the_gradients():
    (p, *_) = predict(SIZES, {"data": 8}, LINKS, "weak")
    gradients = 4 * (2 * (12 * 32**2 + 13 * 32) + 64 * 32 + 16 * 32 + 2 * 32)
    assert p.ring == pytest.approx(sum(ring_seconds("all-reduce", n, 8, LINKS) for n in (gradients, 8)))
    assert p.tree == pytest.approx(sum(tree_seconds("all-reduce", n, 8, LINKS) for n in (gradients, 8)))
    assert p.compute == pytest.approx(flops(SIZES) / 8 / 1e12)
    assert Prediction("weak", {"data": 8}, 1, 3.0, 2.0, 1.0).step == 4
    assert Prediction("weak", {"data": 8}, 1, 3.0, 2.0, 1.0).efficiency == 0.75


def test_a_mesh_that_does_not_divide_the_devices_is_left_out_there():
    assert [p.devices for p in predict(SIZES, {"data": 2, "model": 16}, LINKS, "weak")] == [64, 512, 4096]


@pytest.mark.parametrize("name", ["bandwidth", "latency", "rate"])
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_invalid_speeds_are_refused(name, bad):
    with pytest.raises(ValueError, match=rf"bench: {name} must be a positive number, got {bad}; \S+ is usual"):
        expect_speeds(LINKS._replace(**{name: bad}))
    expect_speeds(LINKS._replace(latency=0.0))
