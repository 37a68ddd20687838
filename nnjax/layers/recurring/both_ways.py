"""Two recurrent layers on one sequence, one from each end."""

import jax.numpy as jnp

from ...errors import describe
from ...layer import Layer, Met, split_key
from ...leaf import expect_cotangent, outline, outlined
from ...linear import turned
from .one_way import How, cotangents, given


def both_ways(forward: Layer, backward: Layer, n_hidden: int, how: How) -> Layer:
    """y = (forward(x), backward(x turned round) turned round), side by side.  y: (..., time, 2 n_hidden).

    Both parts are made with carry=True, and both take what the whole takes: x is (x, state), or (x, state, lengths).  The state
    is a pair, that of each; with lengths only the real steps turn round.  params: a pair.
    Backward: x was copied, so the two ct_x add, the second turned round again: to turn round is its own transpose.
    """
    name = f"both ways of {forward.name}"
    how = how._replace(carry=True)

    def entered(params, x):
        """(params, x, the pair of states, lengths, and how the parts take them)."""
        x, state, lengths = given(name, how, x)
        state = (None, None) if state is None else state
        for what, pair, remedy in (
            ("params", params, "make them with layer.init(key)"),
            ("state", state, "pass None to start from zero"),
        ):
            if not isinstance(pair, tuple) or len(pair) != 2 or hasattr(pair, "_fields"):
                raise TypeError(f"{name}: {what} must be a pair, one for each direction, got {describe(pair)}; {remedy}.")
        return params, x, state, lengths, ((lengths,) if how.lengths else ())

    def joined(y, turned_y, lengths):
        return jnp.concatenate([y, turned(turned_y, lengths)], -1)

    def init(key):
        return tuple(layer.init(k) for layer, k in zip((forward, backward), split_key(key, 2)))

    def apply(params, x, *, key=None):
        (p, p_back), x, (s, s_back), lengths, more = entered(params, x)
        y, last = forward.apply(p, (x, s, *more))
        turned_y, last_back = backward.apply(p_back, (turned(x, lengths), s_back, *more))
        return joined(y, turned_y, lengths), (last, last_back)

    def fwd(params, x, *, key=None):
        (p, p_back), x, (s, s_back), lengths, more = entered(params, x)
        (y, last), kept = forward.fwd(p, (x, s, *more))
        (turned_y, last_back), kept_back = backward.fwd(p_back, (turned(x, lengths), s_back, *more))
        y = joined(y, turned_y, lengths)
        return (y, (last, last_back)), (kept, kept_back, lengths, outline(y))

    def bwd(residuals, ct):
        kept, kept_back, lengths, y = residuals
        ct_y, ct_last = ct
        expect_cotangent(name, "ct_y", ct_y, outlined(y))
        ct_s, ct_s_back = (None, None) if ct_last is None else ct_last
        ct_turned = turned(ct_y[..., n_hidden:], lengths)
        ct_p_back, (ct_turned, ct_s_back, *_) = backward.bwd(kept_back, (ct_turned, ct_s_back))
        ct_p, (ct_x, ct_s, *_) = forward.bwd(kept, (ct_y[..., :n_hidden], ct_s))
        ct_state = None if ct_s is None and ct_s_back is None else (ct_s, ct_s_back)
        return (ct_p, ct_p_back), cotangents(how, ct_x + turned(ct_turned, lengths), ct_state)

    def walk(params, x, key):
        (p, p_back), x, (s, s_back), lengths, more = entered(params, x)
        p, (y, last) = yield Met("forward", forward, p, (x, s, *more), None)
        p_back, (turned_y, last_back) = yield Met("backward", backward, p_back, (turned(x, lengths), s_back, *more), None)
        return (p, p_back), (joined(y, turned_y, lengths), (last, last_back))

    def remade(ahead, back):
        return both_ways(ahead, back, n_hidden, how)

    return Layer(name, init, apply, fwd, bwd, (forward, backward), walk, remade)
