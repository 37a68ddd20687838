from typing import Any

import jax
import pytest

from nnjax.check.options import EVERYWHERE, IN_WIDE, options, precisions


def test_a_cpu_has_one_matmul_precision_and_an_accelerator_two():
    class Gpu:
        platform = "gpu"

    device: Any = Gpu()
    assert precisions(jax.devices("cpu")[0]) == ("highest",)
    assert precisions(device) == precisions(device, "float64") == ("highest", "default")
    assert precisions(device, "bfloat16") == precisions(device, "float16") == ("default",)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown dtype 'float23'.*did you mean 'float32'"):
        options(["float23"])
    with pytest.raises(ValueError, match=r"unknown witness 'tailor'.*did you mean 'taylor'"):
        options(witnesses=["tailor"])
    with pytest.raises(ValueError, match=r"unknown transform 'jitt'.*did you mean 'jit'"):
        options(None, ["jitt"])
    with pytest.raises(ValueError, match="unknown dtype"):
        options(["dense(3, 2)"], None, None)
    with pytest.raises(ValueError, match=r"dtypes must be floating point, got int32"):
        options(["int32"])


def test_transforms_by_default_in_full_and_by_name():
    assert options().transforms_in("bfloat16") == EVERYWHERE
    assert options().transforms_in("float32") == EVERYWHERE + IN_WIDE
    assert options(full=True).transforms_in("bfloat16") == EVERYWHERE + IN_WIDE
    assert options(None, ["scan"]).transforms_in("bfloat16") == ("scan",)
