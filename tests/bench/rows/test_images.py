import jax
import numpy as np
import pytest

from nnjax.bench.rows.images import images


@pytest.mark.in_turn
def test_the_nine_shifted_products_are_the_depthwise_convolution():
    (row,) = [row for row in images() if row.name.startswith("depthwise")]
    _, references, args = row.make()
    (ours, ours_x), (theirs, theirs_x) = (jax.jit(references[name])(*args) for name in ("jax.grad", "shifts"))
    np.testing.assert_allclose(ours_x, theirs_x, atol=1e-4)
    np.testing.assert_allclose(ours.w, theirs.w, rtol=1e-3, atol=1e-2)
