"""Programs whose messages are known: compiled ones, and lines as XLA writes them elsewhere."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from nnjax.bench.text.cost import Message, axes_of, collectives_of, groups_along
from nnjax.distributed import make_mesh

SIZES = {"a": 2, "b": 4}
ALL = P(("a", "b"))
A, B, BOTH = ((0, 4), (1, 5), (2, 6), (3, 7)), ((0, 1, 2, 3), (4, 5, 6, 7)), (tuple(range(8)),)


def sent(f, out=ALL, shape=(64, 6), dtype="float32", mesh=None):
    run = jax.shard_map(f, mesh=make_mesh(**SIZES) if mesh is None else mesh, in_specs=ALL, out_specs=out)
    return collectives_of(str(jax.jit(run).lower(jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))).compile().as_text()))


def program(*lines, head="HloModule m, num_partitions=8", more=""):
    return f"{head}\n{more}\nENTRY %main (x: f32[4]) -> f32[4] {{\n" + "\n".join(f"  {line}" for line in lines) + "\n}\n"


ONE = 8 * 6 * 4  # bytes of x on one device


@pytest.mark.parametrize(
    ("f", "out", "messages"),
    [
        (lambda x: lax.psum(x, "b"), P("a"), [("all-reduce", ONE, B)]),
        (lambda x: lax.pmax(x, ("a", "b")), P(), [("all-reduce", ONE, BOTH)]),
        (lambda x: lax.all_gather(x, "a", tiled=True), ALL, [("all-gather", 2 * ONE, A)]),
        (lambda x: lax.psum_scatter(x, "b", tiled=True), ALL, [("reduce-scatter", ONE, B)]),
        (lambda x: lax.all_to_all(x, "b", 0, 1, tiled=True), ALL, [("all-to-all", ONE, B)]),
        (lambda x: lax.ppermute(x, "b", [(0, 1), (1, 2)]), ALL,
         [("collective-permute", ONE, ((0, 1), (1, 2), (4, 5), (5, 6)))]),
        (lambda x: 2 * x, ALL, []),
    ],
    ids=["sum", "max", "gather", "scatter", "exchange", "permute", "nothing"],
)  # fmt: skip
def test_one_of_each_kind(f, out, messages):
    assert [m[:4] for m in sent(f, out)] == [(kind, size, 1, groups) for kind, size, groups in messages]


def test_several_arrays_in_one_message_count_together():
    found = sent(lambda x: (lax.psum(x, "b"), lax.psum(x[:2].astype(jnp.int32), "b")), P("a"))
    assert sum(m.bytes for m in found) == ONE + 2 * 6 * 4


def test_among_one_device_nothing_is_sent():
    mesh = make_mesh(a=8, b=1)
    assert sent(lambda x: lax.psum(x, "b"), P("a"), mesh=mesh) == []
    one = program("ROOT %r = f32[2]{0} all-reduce(%x), replica_groups={{0},{1}}", head="HloModule m, num_partitions=2")
    assert collectives_of(one) == []


WIDTHS = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "float16": 2, "float32": 4,
          "complex64": 8, "float8_e4m3fn": None, "bfloat16": None}  # fmt: skip


@pytest.mark.parametrize("dtype", WIDTHS)
def test_numbers_of_every_type(dtype):
    (found,) = sent(lambda x: lax.all_gather(x, "b", tiled=True), dtype=dtype)
    width = WIDTHS[dtype]
    assert found.bytes in ([4 * 48 * width] if width else [4 * 48 * w for w in (1, 2, 4)])  # a CPU sends some in a wider dtype


def test_messages_in_a_loop_count_as_often_as_it_runs_in_a_loop_in_a_loop_both():
    def loop(x):
        def outer(x, _):
            x, _ = lax.scan(lambda x, _: (lax.ppermute(x, "b", [(0, 1)]) * 2, None), x, None, 3)
            return lax.ppermute(x, "a", [(0, 1)]), None

        return lax.ppermute(lax.scan(outer, x, None, 5)[0], "a", [(1, 0)])

    assert sorted(m.times for m in sent(loop)) == [1, 5, 15]


def test_a_loop_of_unknown_length_is_refused_if_it_sends():
    def until(body):
        return lambda x: lax.while_loop(lambda x: x.sum() < 1, body, x)

    with pytest.raises(ValueError, match=r"cost: neither XLA nor its condition says how often the loop %\S+ runs, .* make it"):
        sent(until(lambda x: lax.ppermute(x, "b", [(0, 1)])))
    assert sent(until(lambda x: x + 1)) == []


def test_branches_that_send_the_same_count_once_others_are_refused():
    def either(f, g):
        return lambda x: lax.cond(x[0, 0] > 0, f, g, x)

    def there(x):
        return lax.ppermute(x, "b", [(0, 1)])

    assert [m.times for m in sent(either(there, lambda x: there(2 * x)))] == [1]
    with pytest.raises(ValueError, match=r"cost: the branches of a condition send different messages"):
        sent(either(there, lambda x: 2 * x))


@pytest.mark.parametrize(
    ("line", "kind", "size", "groups"),
    [
        ("%g = (f32[4]{0}, f32[8]{0}) all-gather-start(%x), replica_groups={{0,1},{2,3}}, dimensions={0}", "all-gather", 32,
         ((0, 1), (2, 3))),
        ("%g = ((f32[4]{0}, s8[2]{0}), (f32[8]{0}, /*index=1*/s8[4]{0})) all-gather-start(%x, %y), replica_groups=[4,2]<=[8]",
         "all-gather", 36, ((0, 1), (2, 3), (4, 5), (6, 7))),
        ("%r = f32[4,2]{1,0:T(8,128)} all-reduce-start(%x), replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add", "all-reduce", 32,
         ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("%r = (bf16[4]{0}, bf16[]) all-reduce-start(%x, %y), replica_groups={}, to_apply=%add", "all-reduce", 10, BOTH),
        ("%p = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}",
         "collective-permute", 16, ((0, 1), (1, 0))),
        ("%s = f32[4]{0} reduce-scatter(%x), replica_groups=mesh['a'=2,'b'=4] {'a'}, dimensions={0}", "reduce-scatter", 32, A),
        ("%s = f32[4]{0} reduce-scatter(%x), replica_groups=mesh['a'=2,'b'=4] {'a','b'}", "reduce-scatter", 128, BOTH),
        ("%b = u4[5]{0} collective-broadcast(%x), replica_groups={{0,1}}", "collective-broadcast", 3, ((0, 1),)),
        ("ROOT r = f8e4m3fn[4]{0} ragged-all-to-all(x), replica_groups={{0,1}}", "ragged-all-to-all", 4, ((0, 1),)),
        ("%t = (f32[2]{0}, f32[2]{0}) all-to-all(%x, %y), replica_groups={{0,1}}", "all-to-all", 16, ((0, 1),)),
    ],
)  # fmt: skip
def test_lines_as_accelerators_write_them(line, kind, size, groups):
    done = f"%d = f32[8]{{0}} {kind}-done(%g)"
    (found,) = collectives_of(program(line, done))
    assert found[:5] == (kind, size, 1, groups, False)


def test_a_computation_that_starts_and_ends_apart_counts_once():
    inner = "%inner (y: f32[4]) -> f32[2] {\n  ROOT %s = f32[2]{0} reduce-scatter(%y), replica_groups={{0,1}}\n}"
    start = "%a = ((f32[4]{0}), f32[2]{0}, u32[]) async-start(%x), calls=%inner"
    rest = ["%b = f32[2]{0} async-update(%a), calls=%inner", "%c = f32[2]{0} async-done(%b), calls=%inner"]
    assert collectives_of(program(start, *rest, more=inner)) == [Message("reduce-scatter", 16, 1, ((0, 1),), False, 4)]
    computed = "%f = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused"
    (found,) = collectives_of(program(start, rest[0], computed, rest[1], more=inner))
    assert not found.overlaps  # a longer name is a different one
    (found,) = collectives_of(program(start, computed, "%c = f32[2]{0} async-done(%a), calls=%inner", more=inner))
    assert found.overlaps


def test_what_is_computed_between_start_and_end_overlaps():
    start = "%g = (f32[4]{0}, f32[8]{0}) all-gather-start(%x), replica_groups={{0,1}}, dimensions={0}"
    end, computed = "%d = f32[8]{0} all-gather-done(%g)", "%f = f32[4]{0:T(128)} fusion(%x), kind=kLoop, calls=%fused"
    for lines, overlaps in (((start, end, computed), False), ((computed, start, end), False), ((start, computed, end), True)):
        assert [m.overlaps for m in collectives_of(program(*lines))] == [overlaps]


def test_an_all_reduce_of_which_each_device_keeps_a_share_is_a_reduce_scatter():
    """As TPUs write it: a fusion with this name."""
    inner = """%all-reduce-scatter.3 (y: f32[16]) -> f32[2] {
  %y = f32[16]{0:T(1024)} parameter(0)
  %all-reduce.1 = f32[16]{0:T(1024)} all-reduce(%y), channel_id=2, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  ROOT %ds = f32[2]{0:T(1024)} dynamic-slice(%all-reduce.1, %i), dynamic_slice_sizes={2}
}"""
    line = "%fusion.3 = f32[2]{0:T(1024)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.3"
    assert collectives_of(program(line, more=inner)) == [Message("reduce-scatter", 64, 1, BOTH, False, 16)]


ASYNC = """%begin (x: bf16[512,64]) -> (bf16[512,64], bf16[4096,64], u32[]) {
  %x = bf16[512,64]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.5 = bf16[4096,64]{1,0:T(8,128)(2,1)} all-gather(%x), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  ROOT %c.1 = (bf16[512,64], bf16[4096,64], u32[]) custom-call(%x, %all-gather.5), custom_call_target="AsyncCollectiveStart"
}
%async_collective_fusion.16 (x: bf16[512,64], y: bf16[4096,64], s: u32[]) -> (f32[64,64], bf16[4096,64], u32[]) {
  %convolution.15 = f32[64,64]{1,0:T(8,128)} convolution(%a, %b), dim_labels=bf_io->bf
  %all-gather.7 = bf16[4096,64]{1,0:T(8,128)(2,1)} all-gather(%x), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  ROOT %t = (f32[64,64]{1,0:T(8,128)}, bf16[4096,64]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) tuple(%convolution.15, %all-gather.7, %s)
}
%end (x: bf16[512,64], y: bf16[4096,64], s: u32[]) -> bf16[4096,64] {
  %all-gather.9 = bf16[4096,64]{1,0:T(8,128)(2,1)} all-gather(%x), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  ROOT %c.3 = bf16[4096,64]{1,0:T(8,128)(2,1)} custom-call(%x, %y, %all-gather.9, %s), custom_call_target="AsyncCollectiveDone"
}"""


def test_what_a_tpu_repeats_at_a_continuation_and_at_the_end_counts_once():
    start = "%async-collective-start = (bf16[512,64], bf16[4096,64], u32[]) fusion(%x), kind=kCustom, calls=%begin"
    beside = "%fusion.16 = (f32[64,64], bf16[4096,64], u32[]) fusion(%g, %h), kind=kOutput, calls=%async_collective_fusion.16"
    end = "%async-collective-done = bf16[4096,64]{1,0:T(8,128)(2,1)} fusion(%g.1, %h.1), kind=kCustom, calls=%end"
    for lines, overlaps in (((start, beside, end), True), ((start, end), False)):
        right = [Message("all-gather", 2 * 4096 * 64, 1, BOTH, overlaps, 4096 * 64)]
        assert collectives_of(program(*lines, more=ASYNC)) == right


TPU_LOOP = """%body (p: (s32[], f32[2,1024,1024], s32[])) -> (s32[], f32[2,1024,1024], s32[]) {
  %p = (s32[]{:T(128)}, f32[2,1024,1024]{2,1,0:T(8,128)S(1)}, s32[]{:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[2,1024,1024]{2,1,0:T(8,128)S(1)} get-tuple-element(%p), index=1
  %one = s32[]{:T(128)} get-tuple-element(%p), index=2, metadata={op_name="jit(run)/shard_map" stack_frame_id=225}
  %psum.1 = f32[2,1024,1024]{2,1,0:T(8,128)S(1)} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%a
  %add.1 = s32[]{:T(128)} add(%i, %one), backend_config={"aliasing_operands":{"lists":[{"indices":["0","2"]}]}}
  ROOT %t = (s32[]{:T(128)}, f32[2,1024,1024]{2,1,0:T(8,128)S(1)}, s32[]{:T(128)}) tuple(%add.1, %psum.1, /*index=2*/%one)
}
%condition (q: (s32[], f32[2,1024,1024], s32[])) -> pred[] {
  %n = s32[]{:T(128)} constant(24), metadata={op_name="jit(run)/shard_map" stack_frame_id=225}
  %q = (s32[]{:T(128)}, f32[2,1024,1024]{2,1,0:T(8,128)S(1)}, s32[]{:T(128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %lt.40 = pred[]{:T(512)} compare(%j, %n), direction=LT, backend_config={"flag_configs":[]}
}"""


def test_a_loop_as_tpus_have_it_counts_as_often_as_its_condition_lets_it_run():
    lines = [
        "%zero = s32[]{:T(128)} constant(0)", "%one.2 = s32[]{:T(128)} constant(1)", "%copy = s32[]{:T(128)} copy(%zero)",
        "%t0 = (s32[]{:T(128)}, f32[2,1024,1024]{2,1,0:T(8,128)S(1)}, s32[]{:T(128)}) tuple(%copy, %x0, /*index=2*/%one.2)",
        "%while.83 = (s32[]{:T(128)}, f32[2,1024,1024]{2,1,0:T(8,128)S(1)}, s32[]{:T(128)}) while(%t0), condition=%condition, "
        "body=%body",
    ]  # fmt: skip
    assert collectives_of(program(*lines, more=TPU_LOOP)) == [Message("all-reduce", 4 * 2**21, 24, B, False, 2**21)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not a program", r"cost: expected the text of a compiled program, got one without ENTRY; pass compiled.as_text\(\)"),
        (program("%r = q7[4]{0} all-reduce(%x), replica_groups={}"), r"the type q7 is unknown"),
        (program("%r = f32[4]{0} all-reduce(%x), replica_groups=ring{3}"), r"cannot read which devices .* 'replica_groups=r"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        collectives_of(text)


def test_groups_lie_along_axes_of_the_mesh():
    assert groups_along(SIZES, ["a"]) == A
    assert groups_along(SIZES, ["b"]) == B
    for axes, groups in ((("a",), A), (("b",), B[::-1]), (("a", "b"), BOTH)):
        assert axes_of(Message("all-reduce", 4, 1, groups), SIZES) == axes
    with pytest.raises(ValueError, match=r"devices of this all-reduce .*axes of the mesh \{'a': 2, 'b': 4\}"):
        axes_of(Message("all-reduce", 4, 1, ((0, 1),)), SIZES)
