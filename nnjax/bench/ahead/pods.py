"""`nnjax bench --mesh M --compile-for TOPOLOGY`: the step of a GPT, compiled for this many chips, beside the minimum."""

import json
import math
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import jax
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ...distributed.devices import mesh_sizes, simulate
from ...distributed.mesh import make_mesh
from ..mesh import GPT
from ..minimum import Counts, Sizes, block_numbers, compiled_step, counted, end_numbers, minimum, step_on
from ..text.cost import collectives_of
from .differences import ITEMSIZE, LANES, Sums, differences, handed_on, sums, uneven
from .targets import Target, expect_target, target


class Pod(NamedTuple):
    """The messages of the step on one mesh: the minimum, those in the program, those of simulated devices and of the chips.

    state: bytes of parameters and moments on a chip; whole: of all of them. seconds: compile time. uneven: see
    `differences.uneven`.
    """

    mesh: dict[str, int]
    batch: int
    counts: dict[str, Counts]
    sums: dict[str, Sums]
    state: int
    whole: int
    temporary: int
    seconds: float
    uneven: list[int]


def run(meshes: Sequence[str], names: Sequence[str], to: Path | None, sizes: Sizes = GPT) -> int:
    """Print and write the messages for each mesh. Nothing is run; the CPU simulates devices.

    Raises ValueError for an invalid mesh or target, and for a mesh that does not have as many devices as the target, or does
    not divide the model.
    """
    wanted = [mesh_sizes(mesh, None, who="bench") or {} for mesh in meshes]
    if len(names) != 1 or expect_target(names[0]) != "tpu":
        raise ValueError(
            f"bench: --mesh with --compile-for takes one TPU topology, such as v5e:16x16, got {' '.join(names)}; name one."
        )
    (name,) = names
    simulate(max(math.prod(mesh.values()) for mesh in wanted))
    chips = target(name)
    for mesh in wanted:
        chips.mesh(mesh)  # fail now, not after minutes
    print(f"JAX {jax.__version__}, compiled for {name}, {len(chips.devices):,} devices of kind {chips.devices[0].device_kind}; "
          f"a step of Adam on a GPT\nof {sizes.layers} layers of width {sizes.width}, vocabulary {sizes.vocab:,}, "
          f"sequences of {sizes.context} tokens, in float32. Messages with their bytes in all.")  # fmt: skip
    found = []
    for mesh in wanted:
        found.append(measured(sizes, mesh, chips))
        show(found[-1])
    if to:
        head = {"jax": jax.__version__, "libtpu": version("libtpu"), "target": name, "date": time.strftime("%Y-%m-%d"),
                "gpt": sizes._asdict()}  # fmt: skip
        to.write_text(json.dumps({**head, "meshes": [record(pod) for pod in found]}, indent=1) + "\n")
    return 0


def batch_of(sizes: Sizes, mesh: dict[str, int]) -> int:
    """The batch of the sizes, or the next one that the devices along data and shard divide."""
    n = mesh.get("data", 1) * mesh.get("shard", 1)
    return -(-sizes.batch // n) * n


def measured(sizes: Sizes, mesh: dict[str, int], chips: Target) -> Pod:
    """The messages of the step, compiled for this mesh on both machines."""
    sizes = sizes._replace(batch=batch_of(sizes, mesh))
    needs = minimum(sizes, mesh)
    step, args = step_on(sizes, make_mesh(**mesh))
    lowered = step.lower(*args)
    begun = time.perf_counter()
    program = compiled_step(sizes, chips.mesh(mesh), chips)
    seconds = time.perf_counter() - begun
    memory = program.memory_analysis()
    read = {"asked": lowered.as_text("hlo"), "simulated": lowered.compile().as_text(), "compiled": program.as_text()}
    parts = {"minimum": needs, **{who: collectives_of(text) for who, text in read.items()}}
    tokens = 2 * ITEMSIZE * sizes.batch * sizes.context // (mesh.get("data", 1) * mesh.get("shard", 1))  # ids and labels
    whole = 3 * ITEMSIZE * (sizes.layers * block_numbers(sizes.width) + end_numbers(sizes))
    return Pod(
        mesh=mesh, batch=sizes.batch, counts={who: counted(part, mesh) for who, part in parts.items()},
        sums={who: sums(part, mesh) for who, part in parts.items()}, state=memory.argument_size_in_bytes - tokens, whole=whole,
        temporary=memory.temp_size_in_bytes, seconds=seconds, uneven=uneven(needs, mesh),
    )  # fmt: skip


def show(pod: Pod) -> None:
    """Print the table of one mesh, and sentences on how it differs from the minimum."""
    named, cut = ",".join(f"{axis}={n}" for axis, n in pod.mesh.items()), pod.mesh.get("shard", 1) * pod.mesh.get("model", 1)
    share = f"1/{cut} of all is" if cut > 1 else "all are"
    print(f"\n{named}: a batch of {pod.batch:,} sequences, compiled in {pod.seconds:.0f} s\n"
          f"on a chip {pod.state / 1e6:,.1f} MB of parameters and moments ({share} {pod.whole / cut / 1e6:,.1f} MB); "
          f"{pod.temporary / 1e6:,.1f} MB temporary")  # fmt: skip
    table = Table(box=SIMPLE, padding=(0, 0, 0, 1), show_edge=False)
    shown = {who: part for who, part in pod.sums.items() if who != "asked"}
    for heading in ("along", "kind", *shown):
        table.add_column(heading, justify="right" if heading in shown else "left", no_wrap=True)
    for key in sorted({key for part in shown.values() for key in part}):
        cells = (f"{part[key].messages:,} of {part[key].bytes:,}" if key in part else "-" for part in shown.values())
        table.add_row(",".join(key[0]), key[1], *cells)
    rings = (f"{handed_on(part, pod.mesh) / 1e6:,.1f} MB" for part in shown.values())
    table.add_row("", "sent in rings", *rings)
    Console(width=None if Console().is_terminal else 100).print(table)
    for who, lines in notes(pod).items():
        for line in lines:
            print(fill(f"{who}: {line}", 100, subsequent_indent="  "))


def notes(pod: Pod) -> dict[str, list[str]]:
    """For the simulated devices and the chips, each kind of message that differs from the minimum."""
    least, found = pod.sums["minimum"], {}
    for who in ("simulated", "compiled"):
        said = differences(least, pod.sums["asked"], pod.sums[who], pod.mesh)
        found[who] = [f"{','.join(axes)} {kind}: {words}" for (axes, kind), words in said.items() if words != "the minimum"]
        found[who] = found[who] or ["the minimum, in number and bytes"]
    gathered, should = (
        sum(s.numbers for (_, kind), s in part.items() if kind == "all-gather") for part in (pod.sums["compiled"], least)
    )
    if pod.uneven and gathered < should:
        shares = " or ".join(f"{n:,}" for n in pod.uneven)
        found["compiled"].append(f"a share of {shares} numbers does not fill rows of {LANES}; a TPU gathers whole rows")
    return found


def record(pod: Pod) -> dict[str, Any]:
    """For JSON: the messages by size, the differences as sentences, and memory."""
    messages = [
        {
            "axes": axes,
            "kind": kind,
            "bytes": size,
            **{who: part.get((axes, kind, size), 0) for who, part in pod.counts.items()},
        }
        for axes, kind, size in sorted({key for part in pod.counts.values() for key in part})
    ]
    return {
        "mesh": pod.mesh, "batch": pod.batch, "messages": messages, "differences": notes(pod),
        "handed_on_in_rings": {who: handed_on(part, pod.mesh) for who, part in pod.sums.items()},
        "bytes_while_computing": sum(s.overlapping for s in pod.sums["compiled"].values()),
        "state_bytes_a_chip": pod.state, "state_bytes": pod.whole, "temporary_bytes_a_chip": pod.temporary,
        "compile_seconds": round(pod.seconds, 1),
    }  # fmt: skip
