import jax
import numpy as np
import pytest

from nnjax.commands.explaining.numbers import network, numbers, parse_sizes, parse_weights, with_weights

NETS = [((2, 2, 2), None), ((3, 2, 4), None), ((2, 2), 1), ((4, 3, 3), 2), ((5, 1, 1), 3), ((2, 3, 4, 5, 5), 4), ((1, 5), 5)]


def by_numpy(net):
    """The numbers, one entry at a time; of a net of two layers x is the z of the first."""

    def s(z):
        return 1 / (1 + np.exp(-z))

    (w, b), x, y = net
    z, a = x, s(x) if len(w) == 1 else x
    for w_l, b_l in zip(w[:-1], b[:-1]):
        z = np.array([sum(w_l[j, k] * a[k] for k in range(len(a))) + b_l[j] for j in range(len(b_l))])
        a = s(z)
    w, b = w[-1], b[-1]

    def out(a):
        return s(np.array([sum(w[j, k] * a[k] for k in range(len(a))) + b[j] for j in range(len(b))]))

    def cost(a):
        return 0.5 * sum((out(a) - y) ** 2)

    delta = (out(a) - y) * out(a) * (1 - out(a))
    sent = np.array([sum(w[j, k] * delta[j] for j in range(len(b))) for k in range(len(a))])
    nudged = np.array([(cost(a + e) - cost(a - e)) / 2e-4 for e in 1e-4 * np.eye(len(a))])
    return {"z": z, "a": a, "a_next": out(a), "cost": cost(a), "delta": delta, "sent": sent, "nudged": nudged,
            "by_sum": sent * a * (1 - a)}  # fmt: skip


@pytest.mark.parametrize(("sizes", "seed"), NETS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_the_numbers_are_those_of_numpy(sizes, seed):
    net = network(sizes, seed)
    n, wanted = numbers(net), by_numpy(net)
    for name in ("z", "a", "a_next", "cost", "delta", "sent", "by_sum"):
        np.testing.assert_allclose(getattr(n, name), wanted[name], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(n.by_transpose, wanted["by_sum"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(n.by_grad, wanted["by_sum"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(n.nudged, wanted["nudged"], atol=1e-6)
    np.testing.assert_allclose(n.nudged, n.sent, atol=1e-6)
    if n.inverse_sent is not None:
        inverse_sent = np.linalg.solve(n.w, wanted["delta"])
        np.testing.assert_allclose(n.inverse_sent, inverse_sent, rtol=1e-9)
        np.testing.assert_allclose(n.by_inverse, inverse_sent * n.a * (1 - n.a), rtol=1e-9)
        np.testing.assert_allclose(n.w @ n.inverse_sent, n.delta, rtol=1e-9)
        assert not np.allclose(n.inverse_sent, n.nudged, atol=1e-3)
    assert (n.inverse_sent is None) == (n.w.shape[0] != n.w.shape[1]) == bool(n.refused)


def test_sizes_are_read():
    assert parse_sizes("3,2,4") == (3, 2, 4)
    assert parse_sizes(" 2, 2 ") == (2, 2)


def test_a_seed_draws_another_net_and_the_same_one_again():
    one, again, other = (network((2, 2, 2), seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(one.params.w[1], other.params.w[1])
    assert not np.array_equal(one.params.w[1], network((2, 2, 2)).params.w[1])


def test_weights_are_read():
    np.testing.assert_array_equal(parse_weights("[[0.8, -0.5], [0.3, 1.2]]"), [[0.8, -0.5], [0.3, 1.2]])
    assert parse_weights("[[1, 2, 3]]").shape == (1, 3)
    assert parse_weights("[[-100]]").dtype == np.float64


@pytest.mark.parametrize(
    ("text", "came"),
    [
        ("x", "'x'"), ("", "''"), ("[[1,2]", r"\[\[1,2\]"), ("[" * 9000, r"\[\[\[\.\.\."), ("{}", "structure"),
        ("[1, 2]", "structure"), ("[[1,2],[3]]", "2 rows of 1 and 2 numbers"), ("[]", "0 rows"), ("[[]]", "1 rows of 0"),
        ("[[1,2,3,4,5,6]]", "of 6 numbers"), ("[[1],[1],[1],[1],[1],[1]]", "6 rows"), ("[[true]]", "entry True"),
        ('[["a"]]', "entry 'a'"), ("[[null]]", "entry None"), ("[[NaN]]", "entry nan"), ("[[-Infinity]]", "entry -inf"),
        ("[[100.5]]", "entry 100.5"), (f"[[1{'0' * 400}]]", "entry 1000"),
    ],
)  # fmt: skip
def test_bad_weights_are_one_sentence(text, came):
    with pytest.raises(ValueError, match=f"--weights must be a matrix in JSON.*got .*{came}.*pass e.g. --weights") as caught:
        parse_weights(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("w", [[[0.8, -0.5], [0.3, 1.2]], [[0.25]], [[1.0, 2.0, 3.0]], [[1.0], [-2.0]]], ids=str)
def test_the_weights_that_are_given_are_those_of_the_last_layer(w):
    w = np.array(w)
    for sizes in (None, (3, *w.shape[::-1])):
        net = with_weights(w, sizes)
        n, wanted = numbers(net), by_numpy(net)
        np.testing.assert_array_equal(n.w, w)
        np.testing.assert_array_equal(n.b, 0)
        np.testing.assert_allclose(n.sent, wanted["sent"], rtol=1e-12)
        np.testing.assert_allclose(n.cost, wanted["cost"], rtol=1e-12)
    with pytest.raises(ValueError, match=f"--sizes must end in {w.shape[1]},{w.shape[0]}.*got 4,5"):
        with_weights(w, (4, 5))
