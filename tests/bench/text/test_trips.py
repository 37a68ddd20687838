"""Loops without a trip count in XLA's text: how often they run, and which are unknown."""

import jax
import jax.numpy as jnp
import pytest

from nnjax.bench.text.hlo import TRIPS, computations
from nnjax.bench.text.trips import CALLED, MOST, Trips

LOOP = """HloModule m
%step (s: s32[]) -> s32[] {{
  %s = s32[] parameter(0)
  %c = s32[] constant({step})
  ROOT %r = s32[]{{:T(128)}} {how}(%s, %c)
}}
%body (p: (s32[], f32[4], s32[])) -> (s32[], f32[4], s32[]) {{
  %p = (s32[], f32[4]{{0}}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4]{{0}} get-tuple-element(%p), index=1
  %m = s32[] get-tuple-element(%p), index=2
  %next = s32[]{{:T(128)}} fusion(%i), kind=kLoop, calls=%step
  %same = s32[] copy(%m)
  ROOT %t = (s32[], f32[4]{{0}}, /*index=2*/s32[]) tuple(%next, %x, %same)
}}
%condition (q: (s32[], f32[4], s32[])) -> pred[] {{
  %q = (s32[], f32[4]{{0}}, s32[]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %n = s32[] get-tuple-element(%q), index=2
  ROOT %goes = pred[]{{:T(512)}} compare(%j, %n), direction={direction}
}}
ENTRY %main (a: f32[4], b: s32[]) -> f32[4] {{
  %a = f32[4]{{0}} parameter(0)
  %b = s32[] parameter(1)
  %first = s32[]{{:T(128)}} constant({first})
  %copy-start.1 = (s32[], s32[], u32[]) copy-start(%first)
  %start = s32[]{{:T(128)S(1)}} copy-done(%copy-start.1)
  %last = s32[] constant({last})
  %init = (s32[], f32[4]{{0}}, s32[]) tuple(%{begin}, %a, %last)
  %while.1 = (s32[], f32[4]{{0}}, s32[]) while(%init), condition=%condition, body=%body
  ROOT %y = f32[4]{{0}} get-tuple-element(%while.1), index=1
}}
"""
PLAIN = {"step": 1, "how": "add", "direction": "LT", "first": 0, "last": 24, "begin": "start"}


def loop(**changes):
    bodies = computations(LOOP.format(**PLAIN | changes)).bodies
    (line,) = (line for line in bodies["main"] if " while(" in line)
    return Trips(bodies), line


@pytest.mark.parametrize(("changes", "runs"), [
    ({}, 24), ({"last": 0}, 0), ({"first": 3, "step": 5}, 5), ({"direction": "LE"}, 25), ({"direction": "NE"}, 24),
    ({"first": 23, "last": -1, "direction": "GT", "step": -1}, 24),
    ({"first": 23, "last": 0, "direction": "GE", "how": "subtract"}, 24),
    ({"first": 1, "how": "multiply", "step": 2, "last": 1000}, 10),
    ({"begin": "b"}, None),  # an argument of the program
    ({"step": 0}, None),  # never ends
    ({"last": MOST + 1}, None),  # not in time
    ({"first": 1, "how": "multiply", "step": 2, "direction": "NE", "last": -7}, None),  # would wrap around
    ({"how": "power"}, None),  # nothing that can be evaluated
])  # fmt: skip
def test_a_loop_runs_as_often_as_its_condition_holds(changes, runs):
    trips, line = loop(**changes)
    assert trips.of(line, "main") == runs


def test_an_argument_that_is_known_decides():
    trips, line = loop(begin="b")
    assert trips.of(line, "main", [None, 20]) == 4


def test_what_a_body_passes_on_unchanged_is_known_in_every_round():
    trips, line = loop()
    assert trips.inside(line, "main") == [[None, None, 24]]


def test_it_agrees_with_what_xla_says_on_a_cpu():
    def f(x):
        x = jax.lax.fori_loop(3, 20, lambda i, x: x * 2 + i, x)
        return jax.lax.scan(lambda x, _: (jnp.sin(x), None), x, None, 7, reverse=True)[0]

    found = computations(str(jax.jit(f).lower(jnp.zeros(4)).compile().as_text()))
    trips, said = Trips(found.bodies), []

    def look(name, given=()):
        for line in found.bodies[name]:
            if " while(" in line:
                said.append(trips.of(line, name, given))
                assert trips.of(TRIPS.sub("", line), name, given) == said[-1]
            elif " call(" in line:
                look(CALLED.findall(line)[0], trips.inside(line, name, given))

    look(found.entry)
    assert said == [17, 7]
