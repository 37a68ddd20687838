from nnjax.fast.cpu import linear_cross_entropy as cpu


def test_rows_are_shared_evenly_among_chunks():
    assert cpu.rows_at_a_time(2048, 2**15) == 128
    assert cpu.rows_at_a_time(100, 65) == 100
    assert cpu.rows_at_a_time(130, 2**20) == 44  # three even chunks rather than 64, 64 and 2
