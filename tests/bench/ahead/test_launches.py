import pytest

from nnjax.bench.ahead.launches import launches_of

TEXT = """HloModule m, is_scheduled=true

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %t = f32[4]{0} tanh(%p)
}

%body (a: (s32[], f32[4])) -> (s32[], f32[4]) {
  %a = (s32[], f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%a), index=1
  %f = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  %g = (f32[4]{0}, /*index=1*/f32[4]{0}) fusion(%f), kind=kInput, calls=%fused
  ROOT %r = (s32[], f32[4]{0}) tuple(%i, %f)
}

%one (p: f32[4]) -> f32[4] {
  %p.1 = f32[4]{0} parameter(0)
  ROOT %c = f32[4]{0} copy(%p.1)
}

%two (p: f32[4]) -> f32[4] {
  %p.2 = f32[4]{0} parameter(0)
  %c.1 = f32[4]{0} custom-call(%p.2), custom_call_target="__cublas$gemm"
  ROOT %c.2 = f32[4]{0} custom-call(%c.1), custom_call_target="__cublas$gemm"
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x.1 = f32[4]{0} parameter(0)
  %k = s32[] constant(0)
  %b = f32[2,2]{1,0} bitcast(%x.1)
  %w = (s32[], f32[4]{0}) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %d = f32[4]{0} conditional(%p, %x.1, %x.1), branch_computations={%one, %two}
  %e = f32[4]{0} call(%d), to_apply=%one
  %s = ((f32[4]{0}), f32[4]{0}, u32[]) copy-start(%e)
  ROOT %z = f32[4]{0} copy-done(%s)
}
"""


def test_loops_count_as_often_as_they_run_and_of_branches_the_longest():
    assert launches_of(TEXT) == 5 * 2 + 2 + 1 + 1


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="how often the loop %w"):
        launches_of(TEXT.replace('"known_trip_count":{"n":"5"}', ""))


def test_text_that_is_not_a_compiled_program_is_refused():
    with pytest.raises(ValueError, match="compiled program"):
        launches_of("")
