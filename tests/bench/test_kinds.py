import jax.numpy as jnp
import pytest

from nnjax.bench.kinds import MAIN, Kind, kinds


def test_the_main_kind_comes_first_and_each_once():
    both = kinds(("bfloat16", "float32"), ("highest", "default", "highest"))
    assert both == [MAIN, Kind("bfloat16"), Kind("float32", "highest")]
    assert kinds(("bfloat16",), ()) == [Kind("bfloat16")]
    with pytest.raises(ValueError, match="got none"):
        kinds(("float32",), ())


def test_a_case_is_named_by_what_is_not_usual():
    assert [kind.named("conv") for kind in kinds(("float32", "bfloat16"), ("default", "highest"))] == [
        "conv",
        "conv, highest",
        "conv, bfloat16",
    ]
    assert [kind.label for kind in (MAIN, Kind("bfloat16"))] == ["float32 default", "bfloat16"]


def test_floating_arrays_alone_are_cast():
    x, ids = Kind("bfloat16").cast((jnp.ones(2), jnp.arange(2, dtype=jnp.int32)))
    assert (x.dtype, ids.dtype) == (jnp.bfloat16, jnp.int32)
