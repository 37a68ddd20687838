import jax
import jax.numpy as jnp
import pytest

from nnjax.bench.text.hlo import branches_of, computations, trips_of


def test_a_program_falls_into_its_computations():
    program = jax.jit(lambda x: jax.lax.fori_loop(0, 7, lambda i, x: jnp.sin(x), x)).lower(jnp.ones(3)).compile()
    entry, bodies, head = computations(program.as_text())
    assert head.startswith("HloModule")
    assert entry in bodies
    loops = [line for lines in bodies.values() for line in lines if " while(" in line]
    assert [trips_of(line) for line in loops] == [7]


def test_branches_stand_in_a_list_or_as_true_and_false():
    assert branches_of("conditional(%p, %a, %b), branch_computations={%one, %two}") == ["one", "two"]
    assert branches_of("conditional(%p, %a, %b), true_computation=%yes, false_computation=%no") == ["yes", "no"]
    assert branches_of("add(%a, %b)") == []


def test_a_loop_of_unknown_length_has_no_number():
    assert trips_of("%w = (s32[]) while(%t), condition=%c, body=%b") is None


def test_text_that_is_not_a_program_is_refused():
    with pytest.raises(ValueError, match="compiled program"):
        computations("module @jit_f {}")
