"""`nnjax bench --mesh`: the messages of a GPT's training step, read from the compiled program, and the time that they take."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ..distributed.devices import mesh_sizes, simulate
from ..distributed.mesh import make_mesh
from ..draw import PALETTE, use_style
from .links import Links, Prediction, expect_speeds, predict
from .minimum import Counts, Sizes, compiled_step, counted, minimum, summed
from .text.cost import collectives_of

GPT = Sizes(vocab=50304, context=1024, layers=24, heads=16, width=1024, batch=64)  # GPT-2 medium, its vocabulary rounded up


class Found(NamedTuple):
    """The messages of the program on one mesh, the minimum, and the bytes of parameters, moments and batch on a device."""

    mesh: dict[str, int]
    sent: Counts
    least: Counts
    kept: int
    predictions: list[Prediction]


def run(meshes: Sequence[str], links: Links, device: str | None, to: Path | None, plot: Path | None, sizes: Sizes = GPT) -> int:
    """Print and write the results of `nnjax bench --mesh`. Nothing is run on the meshes; a CPU simulates them.

    Raises ValueError for an invalid mesh, or one that does not divide the model or has more devices than are present.
    """
    wanted = [mesh_sizes(mesh, None, who="bench") or {} for mesh in meshes]
    expect_speeds(links)
    if plot:
        _figure()  # fail now, not after minutes
    if device in (None, "cpu"):
        jax.config.update("jax_platforms", "cpu")
        simulate(max(math.prod(mesh.values()) for mesh in wanted))
    kind = jax.devices()[0].device_kind
    print(f"JAX {jax.__version__} on {kind}; a step of Adam on a GPT of {sizes.layers} layers of width {sizes.width}, "
          f"vocabulary {sizes.vocab:,},\n{sizes.batch} sequences of {sizes.context} tokens, in float32")  # fmt: skip
    found = []
    for mesh in wanted:
        found.append(measured(sizes, mesh, links))
        _print_messages(found[-1])
    print(f"\nPredicted from {links.bandwidth / 1e9:g} GB/s per device and direction, {links.latency * 1e6:g} us per message, "
              f"{links.rate / 1e12:g} TFLOP/s per device,\nwithout overlap; the axis data, or else shard, grows.\n"
          "weak: the batch grows with the devices; strong: it stays. Efficiency: arithmetic over step.\n"
          "Rings and trees as in Thakur, Rabenseifner and Gropp 2005.")  # fmt: skip
    _print_predictions(found)
    if to:
        head = {"jax": jax.__version__, "device": kind, "date": time.strftime("%Y-%m-%d"), "gpt": sizes._asdict()}
        to.write_text(json.dumps({**head, "links": links._asdict(), "meshes": [_record(f) for f in found]}, indent=1) + "\n")
    if plot:
        draw(found, plot)
    return 0


def measured(sizes: Sizes, mesh: dict[str, int], links: Links) -> Found:
    """The messages of the step, compiled for this mesh."""
    program = compiled_step(sizes, make_mesh(**mesh))
    predictions = [p for scaling in ("weak", "strong") for p in predict(sizes, mesh, links, scaling)]
    sent, least = counted(collectives_of(program.as_text()), mesh), counted(minimum(sizes, mesh), mesh)
    return Found(mesh, sent, least, program.memory_analysis().argument_size_in_bytes, predictions)


def _named(mesh: dict[str, int]) -> str:
    return ",".join(f"{axis}={n}" for axis, n in mesh.items())


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE, padding=(0, 0, 0, 1), show_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("mesh", "along", "kind") else "right", no_wrap=True)
    return table


def _show(table: Table) -> None:
    Console(width=None if Console().is_terminal else 100).print(table)


def _print_messages(found: Found) -> None:
    sums, least = summed(found.sent), summed(found.least)
    print(f"\n{_named(found.mesh)}: {found.kept / 1e6:,.1f} MB of parameters, moments and batch on a device,\n"
              f"{'and messages of a step, with their bytes' if {**sums, **least} else 'and nothing is sent'}")  # fmt: skip
    if not {**sums, **least}:
        return
    table = _table("along", "kind", "sent", "minimum", "above the minimum")
    for key in sorted({**sums, **least}):
        (messages, total), (fewest, few) = (part.get(key, (0, 0)) for part in (sums, least))
        above = "nothing" if (messages, total) == (fewest, few) else f"{messages - fewest:+,} messages, {total - few:+,} bytes"
        table.add_row(",".join(key[0]), key[1], _sizes(found.sent, key), _sizes(found.least, key), above)
    _show(table)


def _sizes(counts: Counts, key: tuple[tuple[str, ...], str]) -> str:
    return "\n".join(f"{n} of {size:,}" for (*where, size), n in counts.items() if tuple(where) == key)


def _print_predictions(found: list[Found]) -> None:
    for scaling in ("weak", "strong"):
        print(f"\n{scaling} scaling, ms")
        table = _table("mesh", "devices", "batch", "arithmetic", "rings", "trees", "step", "efficiency")
        for part in found:
            for p in (p for p in part.predictions if p.scaling == scaling):
                times = (f"{1e3 * t:,.1f}" for t in (p.compute, p.ring, p.tree, p.step))
                table.add_row(_named(p.mesh), f"{p.devices:,}", f"{p.batch:,}", *times, f"{p.efficiency:.2f}")
            table.add_section()
        _show(table)


def _record(found: Found) -> dict[str, Any]:
    messages = [
        {"axes": axes, "kind": kind, "bytes": size, "sent": found.sent.get((axes, kind, size), 0),
         "minimum": found.least.get((axes, kind, size), 0)}
        for axes, kind, size in sorted({**found.sent, **found.least})
    ]  # fmt: skip
    predictions = [{**p._asdict(), "devices": p.devices, "step": p.step, "efficiency": p.efficiency} for p in found.predictions]
    return {"mesh": found.mesh, "messages": messages, "bytes_on_a_device": found.kept, "predictions": predictions}


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("bench: --plot needs matplotlib: python -m pip install 'nnjax[notebooks]'") from None
    return Figure


def draw(found: list[Found], file: Path) -> None:
    """Draw weak and strong scaling, a line for each mesh: solid with trees, dotted with rings, grey for only arithmetic."""
    Figure = _figure()
    use_style()
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    for axes, scaling in zip(figure.subplots(1, 2), ("weak", "strong")):
        for part, color in zip(found, PALETTE * len(found)):
            some = [p for p in part.predictions if p.scaling == scaling]
            counts = [p.devices for p in some]
            axes.plot(counts, [1e3 * (p.compute + p.tree) for p in some], "o-", ms=4, color=color, label=_named(part.mesh))
            axes.plot(counts, [1e3 * (p.compute + p.ring) for p in some], ":", color=color)
            axes.plot(counts, [1e3 * p.compute for p in some], "-", lw=0.8, color="#999999", zorder=1)
        axes.set(xscale="log", xlabel="devices", ylabel="predicted ms per step", title=f"{scaling} scaling")
        if scaling == "weak":
            axes.set_ylim(bottom=0)
        else:
            axes.set_yscale("log")
        axes.set_xticks([8, 64, 512, 4096], ["8", "64", "512", "4,096"])
        axes.minorticks_off()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3,
                  title="solid: trees, dotted: rings, grey: only arithmetic")  # fmt: skip
    figure.savefig(file, dpi=100)
