"""Messages as compilers change the minimum, and the sentence for each."""

import pytest

from nnjax.bench.ahead.differences import Sum, differences, handed_on, sums, uneven
from nnjax.bench.minimum import Need
from nnjax.bench.text.cost import Message, groups_along

MESH = {"data": 2, "shard": 8}
AR, AG, RS, CP = "all-reduce", "all-gather", "reduce-scatter", "collective-permute"


def need(kind, numbers, times=1, axes=("shard",)):
    return Need("", kind, 4 * numbers, times, axes)


def sent(kind, numbers, times=1, axes=("shard",), width=4, overlaps=False):
    return Message(kind, width * numbers, times, groups_along(MESH, axes), overlaps, numbers)


def said(least, messages, asked=()):
    found = differences(sums(least, MESH), sums(asked, MESH), sums(messages, MESH), MESH)
    return {key[1]: words for key, words in found.items()}


@pytest.mark.parametrize(("least", "messages", "words"), [
    ([need(AR, 800, 3)], [sent(AR, 800, 3)], {AR: "the minimum"}),
    ([need(AG, 800, 2)], [sent(AG, 800, 2, width=2)], {AG: "3,200 bytes fewer, as narrower numbers"}),
    ([need(AG, 800, 2)], [sent(AG, 800), sent(AG, 800, overlaps=True)], {AG: "50% of the bytes while computing"}),
    ([need(AG, 800, 2), need(RS, 800)], [sent(AR, 800, 3)], {
        AG: "exchanged: all as all-reduces, from which a device keeps its share",
        RS: "exchanged: all as all-reduces, from which a device keeps its share",
        AR: "exchanged: 2,400 numbers in the place of all-gather and reduce-scatter",
    }),
    ([need(AG, 800, 2), need(AR, 2)], [sent(AG, 40, 3), sent(AR, 740, width=2), sent(AR, 740), sent(AR, 2)], {
        AG: "exchanged: 1,480 numbers as all-reduces, from which a device keeps its share; the rest in 3 messages instead of 2",
        AR: "exchanged: 1,480 numbers in the place of all-gather; 1,480 bytes fewer, as narrower numbers",
    }),
    ([need(AR, 800)], [sent(RS, 800), sent(AG, 800)], {
        AR: "exchanged: all as a reduce-scatter and an all-gather",
        AG: "exchanged: 800 numbers instead of all-reduce", RS: "exchanged: 800 numbers instead of all-reduce",
    }),
    ([need(AG, 800)], [sent(CP, 100, 7)], {
        AG: "exchanged: all from neighbour to neighbour", CP: "exchanged: 700 numbers in the place of all-gather",
    }),
    ([need(AG, 800, 2)], [sent(AG, 1024, 2)], {AG: "+448 numbers, zeros that fill the shares up to rows of 128"}),
    ([need(AG, 800)], [sent(AG, 800 + 1024)], {AG: "+1,024 numbers, not explained"}),
    ([need(AR, 800)], [sent(AR, 801)], {AR: "+1 numbers, not explained"}),
    ([need(AG, 800)], [], {AG: "-800 numbers, not explained"}),
    ([], [sent(AR, 8)], {AR: "+8 numbers, not explained"}),
])  # fmt: skip
def test_each_difference_is_named(least, messages, words):
    assert said(least, messages) == words


@pytest.mark.parametrize(("asked", "messages", "words"), [
    ([sent(AR, 200, 4)], [sent(AR, 800)], "the minimum"),
    ([sent(AR, 200, 4)], [sent(AR, 400, 2)], "merged: 2 messages of 4, the minimum is 1"),
    ([sent(AR, 400, 2)], [sent(AR, 400, 2)], "as asked for: 2 messages, the minimum is 1"),
    ([sent(AR, 800)], [sent(AR, 500), sent(AR, 300)], "split: 2 messages of 1, the minimum is 1"),
])  # fmt: skip
def test_as_many_numbers_in_other_messages(asked, messages, words):
    assert said([need(AR, 800)], messages, asked) == {AR: words}


def test_axes_are_kept_separate():
    found = differences(sums([need(AR, 8, axes=("data",))], MESH), {}, sums([sent(AR, 8)], MESH), MESH)
    assert found == {(("data",), AR): "-8 numbers, not explained", (("shard",), AR): "+8 numbers, not explained"}


def test_sums_count_each_message_as_often_as_it_is_sent():
    found = sums([sent(AR, 10, 3, width=2), sent(AR, 5, overlaps=True)], MESH)
    assert found == {(("shard",), AR): Sum(4, 80, 35, 20)}


def test_bytes_that_a_device_sends_in_rings():
    for kind, times in ((AR, 14 / 8), (AG, 7 / 8), (RS, 7 / 8), (CP, 1), ("all-to-all", 7 / 8)):
        assert handed_on({(("shard",), kind): Sum(1, 800, 200)}, MESH) == pytest.approx(800 * times)


def test_shares_that_do_not_fill_rows_are_found():
    assert uneven([need(AG, 8 * 256), need(AG, 8 * 100), need(RS, 8)], MESH) == [100]
