import jax
import numpy as np
import pytest

from nnjax.bench.kernels.projection import projects


@pytest.mark.parametrize(("kernel", "names"), [(False, set()), (True, {"no kernels"})])
@pytest.mark.in_turn
def test_every_reference_gives_what_the_hand_written_one_gives(kernel, names):
    hand, references, args = projects(5, 7, 3, kernel)()
    assert set(references) == {"jax.grad", "checkpoint"} | names
    expected = jax.tree.leaves(hand(*args))
    assert [x.shape for x in expected] == [(), (5, 3), (7, 3)]
    for f in references.values():
        for a, b in zip(jax.tree.leaves(f(*args)), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
