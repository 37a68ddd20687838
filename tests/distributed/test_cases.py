import jax
import pytest

import nnjax
from nnjax.distributed import make_mesh
from nnjax.distributed.cases import cases

MESHES = [
    {"data": 8}, {"model": 8}, {"data": 4, "model": 2}, {"data": 2, "shard": 2, "model": 2}, {"data": 2, "expert": 2},
]  # fmt: skip
EXPERTS = {"mixture_of_experts", "moe with its loss"}
CUT = {"column_dense", "row_dense", "head_attention", "grouped_attention", "cut_swiglu", "vocabulary_embedding",
       "vocabulary_cross_entropy", "vocabulary_cross_entropy, weighted", "mlp by columns and rows"}  # fmt: skip
WHOLE = {f"{how} {name}" for how in ("replicated", "fully_sharded") for name in ("mlp", "lenet", "lstm")}
WHOLE.add("fully_sharded inside fully_sharded")


@pytest.mark.parametrize("axes", MESHES)
def test_every_mesh_has_the_cases_for_its_axes(axes):
    names = {case.name for case in cases(make_mesh(**axes))}
    right = EXPERTS if "expert" in axes else {"gpt with its loss", "llama with its loss"}
    right = right | (CUT if "model" in axes else set())
    assert names == right | (WHOLE | {"mean_over", "dropout", "ops"} if "data" in axes else set())


def test_an_axis_without_cases_is_refused():
    with pytest.raises(ValueError, match=r"unknown axis of a mesh 'modle': known are .*did you mean 'model'"):
        cases(make_mesh(modle=2))


@pytest.mark.parametrize("name", [*sorted(CUT), "fully_sharded mlp", "mean_over", "ops"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_gradients_over_a_mesh_are_those_of_one_device(name):
    held("2x2x2", MESHES[3], name, ["float32"])


@pytest.mark.parametrize("name", sorted(EXPERTS))
@pytest.mark.repeats
@pytest.mark.in_turn
def test_gradients_with_experts_on_several_devices_are_those_of_one(name):
    held("2x2", MESHES[4], name, ["float32"])


@pytest.mark.slow
@pytest.mark.parametrize("axes", MESHES, ids=lambda axes: "x".join(map(str, axes.values())))
@pytest.mark.in_turn
def test_every_case_on_every_mesh(axes):
    for case in cases(make_mesh(**axes)):
        if case.reference is not None:
            held(str(axes), axes, case.name, ["float32", "bfloat16"] if axes in MESHES[3:] else ["float32"])


def held(where, axes, name, dtypes):
    mesh = make_mesh(**axes)
    case = next(case for case in cases(mesh) if case.name == name)
    params, x = case.make(0)
    report = nnjax.check_layer(
        case.layer, params, x, mesh=mesh, specs=case.specs, reference=case.reference, transforms=["jit"], dtypes=dtypes
    )
    assert report.ok, f"{name} on {where}: {report}"
    assert len({row.leaf for row in report.rows}) > len(jax.tree.leaves(params))
