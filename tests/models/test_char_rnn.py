import jax
import jax.numpy as jnp
import pytest

import nnjax

IDS = jnp.array([[1, 4, 0, 3, 3], [2, 2, 1, 0, 4]])


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "linear"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_char_rnn_carried_in_parts_is_char_rnn(cell):
    model, carried = (nnjax.char_rnn(5, 4, cell=cell, layers=2, carry=carry) for carry in (False, True))
    name = "linear_block" if cell == "linear" else cell
    assert [part.name for part in model.parts] == ["embedding(5, 4)", f"{name}(4, 4)", f"{name}(4, 4)", "dense(4, 5)"]
    params = model.init(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, params, carried.init(jax.random.key(0))))
    first, state = carried.apply(params, (IDS[:, :3], None))
    (second, _), _ = carried.fwd(params, (IDS[:, 3:], state))
    assert jnp.allclose(jnp.concatenate([first, second], 1), model.apply(params, IDS), atol=1e-5)


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_carried_char_rnn_has_the_cotangents_of_its_states():
    model = nnjax.char_rnn(5, 3, cell="gru", layers=2, carry=True)
    params = model.init(jax.random.key(0))
    _, state = model.apply(params, (IDS[:, :2], None))
    only = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
    nnjax.check_layer(model, params, (IDS, state), **only).raise_if_failed()
    nnjax.check_layer(model, params, (IDS, None), **only).raise_if_failed()


def test_char_rnn_refuses_invalid_arguments():
    with pytest.raises(
        ValueError, match=r"unknown cell of char_rnn 'ltsm': known are gru, linear, lstm, rnn; did you mean 'lstm'"
    ):
        nnjax.char_rnn(5, 3, cell="ltsm")
    with pytest.raises(ValueError, match="char_rnn: truncate is for the cells rnn, gru and lstm"):
        nnjax.char_rnn(5, 3, cell="linear", truncate=2)
    with pytest.raises(ValueError, match=r"char_rnn: layers must be a positive int, got 0"):
        nnjax.char_rnn(5, 3, layers=0)
    model = nnjax.char_rnn(5, 3, carry=True)
    params = model.init(jax.random.key(0))
    with pytest.raises(TypeError, match=r"char_rnn: with carry=True x must be the tuple \(x, state\), got int32 \(2, 5\)"):
        model.apply(params, IDS)
    with pytest.raises(TypeError, match=r"char_rnn: state must be a tuple with one entry for each of 1 recurrent layers"):
        model.apply(params, (IDS, (None, None)))
    with pytest.raises(TypeError, match=r"char_rnn: params must be a tuple with one entry for each of its 3 layers"):
        model.apply(params[:2], (IDS, None))
