import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.omissions import LeftOut, missing, refused, words
from nnjax.check.options import options
from nnjax.check.report import Row
from nnjax.check.running.cells import Place

GOOD = Row("f", "x", "float64", "jit", "cpu", 1e-18, 1e-16, True, entries=4)
ONLY = options(["float64"], ["jit"], witnesses=())


def said(rows, opts=ONLY, left_out=None, slow=None):
    class Subject:
        case = "f"
        plain = slow

        class spec:
            names = ("x",)

    device = opts.devices[0].device_kind
    rows = [row._replace(device=device, precision="highest") for row in rows]
    return missing(Subject, rows, opts, (), left_out or LeftOut())  # type: ignore[arg-type]


def test_an_error_is_reported_by_its_first_line():
    assert words(ValueError("first\nsecond")) == "first"
    assert words(KeyError("bfloat16")) == "KeyError: 'bfloat16'"
    assert words(NotImplementedError("no rule")) == "NotImplementedError: no rule"
    assert words(ValueError()) == "ValueError"
    assert refused(TypeError("check: x must be real"))
    assert not refused(TypeError("x must be real"))


def test_a_row_for_each_leaf_and_transform_is_due():
    assert said([GOOD]) == ()
    assert said([]) == ("f: x float64 jit highest cpu",)
    assert said([GOOD], options(["float64"], ["jit", "vmap"], witnesses=())) == ("f: x float64 vmap highest cpu",)
    broken = GOOD._replace(leaf="cotangents", error=np.inf, bound=0.0, ok=False, status="failed")
    assert said([broken]) == ()


def test_a_witness_without_rows_is_reported():
    assert said([GOOD], options(["float64"], ["jit"])) == ("f: x, by adjoint", "f: x, by taylor")
    assert said([GOOD], options(["float64"], ["jit"], witnesses=["plain"])) == ()
    assert said([GOOD], options(["float64"], ["jit"], witnesses=["plain"]), slow="another") == ("f: x, by plain",)


def test_entries_that_no_row_compares_are_counted():
    assert said([GOOD._replace(skipped=1)])[0].startswith(
        "f: x in 1 of 4 entries, where the reference is not finite and proves"
    )
    wider = options(["float64", "float16"], ["jit"], witnesses=())
    narrow = GOOD._replace(dtype="float16", skipped=4, status="vacuous")
    assert said([GOOD, narrow], wider) == ()  # float64 has compared them
    assert said([GOOD._replace(skipped=4, status="vacuous"), narrow], wider)[0].startswith("f: x in 4 of 4 entries")


def test_rows_that_prove_nothing_are_reported():
    (line,) = said([GOOD._replace(status="vacuous")])
    assert line.startswith("f: x, as every bound is as large as the leaf and proves nothing")
    both = options(["float64", "float32"], ["jit"], witnesses=())
    narrow = GOOD._replace(dtype="float32", status="zero")
    assert len(said([GOOD._replace(status="vacuous"), narrow], both)) == 1  # zero in the wider dtype only proves it
    assert said([GOOD._replace(status="zero"), narrow._replace(status="vacuous")], both) == ()


@pytest.mark.parametrize("named", [True, False])
def test_where_a_definition_does_not_run_is_a_note_or_an_omission(named):
    left_out, opts = LeftOut(), options(["bfloat16"] if named else None, ["jit"], witnesses=())
    note = left_out.dtype("f", Place(np.dtype(jnp.bfloat16), jax.devices("cpu")[0], "highest"), opts, KeyError("no"))
    if named:
        assert note == ""
        assert said([], opts, left_out) == ("f: bfloat16, in which the definition does not run: KeyError: 'no'",)
    else:
        assert note == "f: not compared in bfloat16, in which it does not run: KeyError: 'no'"
        assert not any("bfloat16" in line for line in said([GOOD], opts, left_out))


def test_a_definition_that_runs_under_no_transform_was_not_compared():
    left_out = LeftOut()
    note = left_out.transform("f", np.dtype(np.float64), "jit", ValueError("eager only"))
    assert note == "f: not compared under jit in float64, as its definition cannot run there: eager only"
    assert said([], ONLY, left_out) == ("f: any leaf, as its definition runs under none of the transforms",)


def test_a_rule_of_empty_arrays_is_reported_as_compared_only_in_shape():
    report = nnjax.check_vjp(jnp.sin, jnp.zeros((0, 3)), reference=jnp.sin, transforms=["jit"]).raise_if_failed()
    assert any("every argument is empty, so only shapes, dtypes and structure were compared" in note for note in report.notes)
    report = nnjax.check_vjp(jnp.sin, jnp.zeros((1, 3)), reference=jnp.sin, transforms=["jit"])
    assert report.notes == ()
