from nnjax.fast.cpu import attend
from nnjax.fast.cpu.attend import spelling


def test_the_spelling_goes_by_the_number_of_keys():
    assert spelling(64) == (attend.ROWS, 32)
    assert spelling(65) == spelling(256) == (attend.ROWS, 64)
    assert spelling(1024) == (attend.ROWS, 128)
    assert spelling(4096)[0] == attend.BLOCKS
