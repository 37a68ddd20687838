from nnjax.bench.rows.sequences import kernels, sequences


def test_kernels_have_rows_of_their_own():
    rows = kernels("cuda")
    assert all(row.name.endswith(", in kernels") for row in rows)
    assert not {row.name for row in rows} & {row.name for row in sequences()}
