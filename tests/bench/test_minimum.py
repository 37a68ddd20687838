"""The compiled training step of a GPT sends the minimum, in number and bytes; and the memory of a device falls as 1/N."""

from functools import cache
from typing import Any

import jax
import optax
import pytest

from nnjax.bench.minimum import Sizes, block_numbers, compiled_step, counted, end_numbers, minimum, summed
from nnjax.bench.text.cost import collectives_of
from nnjax.distributed import gpt, make_mesh, place

SIZES = Sizes(vocab=32, context=16, layers=3, heads=8, width=32, batch=16)
TOKENS = 16 * 16
BLOCK, ENDS = 4 * (12 * 32**2 + 13 * 32), 4 * (32 * 32 + 16 * 32 + 2 * 32)  # bytes


@cache
def compiled(**mesh):
    return compiled_step(SIZES, make_mesh(**mesh))


def found(**mesh):
    return counted(collectives_of(compiled(**mesh).as_text()), mesh)


def least(itemsize=4, **mesh):
    return counted(minimum(SIZES, mesh, itemsize), mesh)


def test_the_parameters_are_those_of_the_model():
    shapes = jax.eval_shape(gpt(*SIZES[:5], make_mesh(data=8)).layer.init, jax.random.key(0))
    total = sum(p.size for p in jax.tree.leaves(shapes))
    assert total == SIZES.layers * block_numbers(SIZES.width) + end_numbers(SIZES)
    assert (4 * block_numbers(SIZES.width), 4 * end_numbers(SIZES)) == (BLOCK, ENDS)


@pytest.mark.in_turn
def test_data_parallel_sends_the_gradients_once_and_two_numbers_of_the_loss():
    right = {(("data",), "all-reduce", 3 * BLOCK + ENDS): 1, (("data",), "all-reduce", 8): 1}
    assert least(data=8) == right
    assert summed(found(data=8)) == summed(right)  # XLA sends one of the two numbers along with the gradients


@pytest.mark.in_turn
def test_tensor_parallel_sends_the_activations_twice_a_block_each_way():
    ends = {(("model",), "all-reduce", 4 * TOKENS): 1, (("model",), "all-reduce", 8 * TOKENS): 1}  # of the scores
    right = {(("model",), "all-reduce", 4 * 32 * TOKENS): 3 * 2 * 2 + 2, **ends}
    assert found(model=8) == least(model=8) == right


@pytest.mark.in_turn
def test_fully_sharded_gathers_each_block_twice_and_scatters_its_gradients_once():
    right = {
        (("shard",), "all-gather", BLOCK): 2 * 3,
        (("shard",), "all-gather", ENDS): 1,
        (("shard",), "all-reduce", 8): 1,
        (("shard",), "reduce-scatter", BLOCK): 3,
        (("shard",), "reduce-scatter", ENDS): 1,
    }
    assert found(shard=8) == least(shard=8) == right


@pytest.mark.parametrize("mesh", [{"data": 4, "model": 2}, {"data": 2, "shard": 4}], ids=str)
@pytest.mark.in_turn
def test_two_axes_send_the_minimum(mesh):
    assert summed(found(**mesh)) == summed(least(**mesh))


@pytest.mark.slow
@pytest.mark.in_turn
def test_what_model_cuts_and_what_not_is_gathered_apart_the_same_bytes_in_twice_as_many_messages():
    mesh = {"data": 2, "shard": 2, "model": 2}
    right = summed(least(**mesh))
    for key in ((("shard",), "all-gather"), (("shard",), "reduce-scatter")):
        right[key] = 2 * right[key][0], right[key][1]
    assert summed(found(**mesh)) == right


@pytest.mark.slow
@pytest.mark.in_turn
def test_parameters_and_optimizer_state_of_a_device_fall_as_one_over_n():
    model = gpt(*SIZES[:5], make_mesh(shard=8), data=None, shard="shard")
    here = {}
    for n in (1, 2, 4, 8):
        mesh = make_mesh(shard=n)
        params = place(model.layer.init(jax.random.key(0)), model.specs, mesh)
        state: Any = optax.adam(1e-3).init(params)
        here[n] = sum(p.addressable_shards[0].data.nbytes for p in jax.tree.leaves((params, state[0].mu, state[0].nu)))
    total = 3 * (3 * BLOCK + ENDS)
    assert here == {n: total // n for n in here}


def test_the_compiled_step_takes_and_gives_an_nth_of_them():
    total, batch = 3 * (3 * BLOCK + ENDS), 2 * TOKENS * 4 // 8
    for axis, n in (("data", 1), ("shard", 8)):
        memory = compiled(**{axis: 8}).memory_analysis()
        assert memory.argument_size_in_bytes == total // n + batch
        assert total // n <= memory.output_size_in_bytes < total // n + 1024


def test_one_device_needs_to_send_nothing():
    assert minimum(SIZES, {"data": 1, "shard": 1, "model": 1}) == minimum(SIZES, {}) == []


def test_halves_of_numbers_take_half_the_bytes():
    for mesh in ({"data": 8}, {"shard": 8}, {"model": 8}):
        halves = {(axes, kind, size // 2): n for (axes, kind, size), n in least(**mesh).items()}
        assert least(2, **mesh) == halves


def test_a_mesh_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"heads must be a multiple of 8, .*, got 6"):
        compiled_step(SIZES._replace(heads=6, width=48), make_mesh(model=8))
