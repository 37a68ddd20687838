import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.train import truncation_bias

IDS = jax.random.randint(jax.random.key(0), (4, 13), 0, 5, jnp.int32)
LOSS = nnjax.softmax_cross_entropy()


def gradient(k):
    return nnjax.value_and_grad(nnjax.char_rnn(5, 6, cell="gru", truncate=k), LOSS)


PARAMS = nnjax.char_rnn(5, 6, cell="gru").init(jax.random.key(1))


@pytest.mark.in_turn
def test_it_is_the_difference_to_the_whole_gradient():
    found = {b.leaf: b for b in truncation_bias(gradient(2), gradient(None), PARAMS, IDS[:, :-1], IDS[:, 1:])}
    cut, whole = (f(PARAMS, IDS[:, :-1], IDS[:, 1:])[1] for f in (gradient(2), gradient(None)))
    a, b = (np.asarray(g[1].u, np.float64).ravel() for g in (cut, whole))
    assert found["[1].u"].relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-4)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert found["[1].u"].angle == pytest.approx(np.degrees(np.arccos(cosine)), rel=1e-3)
    assert found["[2].w"].relative == 0  # nothing of what is above the recurrence goes back through time
    assert next(iter(found)) == "all"
    assert len(found) == 1 + len(jax.tree.leaves(PARAMS))


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_longer_the_parts_the_smaller_it_is():
    sizes = [truncation_bias(gradient(k), gradient(None), PARAMS, IDS[:, :-1], IDS[:, 1:])[0].relative for k in (1, 4, 12)]
    assert sizes[0] > 2 * sizes[1] > 0
    assert sizes[2] < 1e-6


def test_what_is_no_gradient_is_refused():
    with pytest.raises(TypeError, match="truncation_bias: whole must be a function"):
        truncation_bias(gradient(2), None, PARAMS, IDS, IDS)
    with pytest.raises(TypeError, match=r"truncation_bias: params.* must be an array"):
        truncation_bias(gradient(2), gradient(None), "params", IDS, IDS)
