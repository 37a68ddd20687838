from nnjax.bench.rows.layers import single_layers


def test_no_row_has_peers_and_each_may_be_as_slow_and_large_as_autodiff_at_most():
    assert all(row.peers is None and row.time <= 1.02 and row.temp <= 1.0 for row in single_layers())
