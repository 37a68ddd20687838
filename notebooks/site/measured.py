"""The tables of measured.md, made of what `nnjax bench` and `nnjax reproduce` left in notebooks/results."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

LARGE = 1 << 20  # bytes: of programs that need less either way a ratio says little, and is left out
HAND, PLAIN = "hand", "jax.grad"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """In Markdown: the first `left` columns are words, the others numbers."""
    rule = [":--"] * left + ["--:"] * (len(heads) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def megabytes(n: float) -> str:
    """Bytes in MB, to three figures or so."""
    return f"{n / 1e6:,.0f}" if n >= 1e8 else f"{n / 1e6:,.1f}" if n >= 1e6 else f"{n / 1e6:.3f}"


def ratio(a: float | None, b: float | None, bound: float = 1.005) -> str:
    """a / b with two digits, in bold where it is above the bound; nothing where there is none."""
    if a is None or not b:
        return ""
    return f"**{a / b:.2f}**" if a / b > bound else f"{a / b:.2f}"


def memory(hand: int, plain: int) -> str:
    """The ratio of temporary memory, where either needs much."""
    return ratio(hand, plain) if max(hand, plain) >= LARGE else ""


def where(found: Mapping[str, Any]) -> str:
    """What it ran on, and when."""
    cores = f"{found['cores']} CPU cores" if "cores" in found else "a CPU"
    return f"JAX {found['jax']}, {cores}, {found['date']}"


def bench(found: dict[str, Any]) -> dict[str, str]:
    """Each case on the CPU, how many are faster, slower and neither, and the models beside those of other libraries."""
    rows, peers, count = [], [], {"faster": 0, "same": 0, "slower": 0}
    for name, case in found["cases"].items():
        if "time_ratios" not in case:  # a loop of the book beside ours, which the notebook tells
            continue
        others, (low, high) = dict(case["time_ratios"]), case["spread"]
        time = others.pop(PLAIN)
        count["faster" if time < low else "slower" if time > high else "same"] += 1
        best = max(((r, other) for other, r in others.items()), default=None)
        rows.append((
            name, f"{case['milliseconds']:,.2f}", ratio(time, 1, max(high, 1.005)), f"{low:.2f} to {high:.2f}",
            memory(case["temp_bytes"][HAND], case["temp_bytes"][PLAIN]),
            f"{ratio(best[0], 1)} {best[1]}" if best else "",
        ))  # fmt: skip
        if case["peer_ratios"]:
            peers.append((name, *(ratio(case["peer_ratios"].get(peer), 1) for peer in found["peers"])))
    heads = ("case", "ms by hand", "time / jax.grad", "noise", "memory / jax.grad", "time / the best other way")
    said = (
        f"Of {sum(count.values())} cases, faster than jax.grad by more than the noise: {count['faster']}; within it: "
        f"{count['same']}; slower: {count['slower']}."
    )
    versions = ", ".join(f"{peer} {how['version']} ({how['run']})" for peer, how in found["peers"].items())
    return {
        "bench": table(heads, rows),
        "bench_where": where(found),
        "bench_count": said,
        "peers": table(("one step of", *found["peers"]), peers),
        "peers_versions": versions,
    }


def compiled(found: dict[str, Any]) -> dict[str, str]:
    """Each case as it is compiled for machines that are not here: kernels launched, or bytes read and written."""
    made = {"compiled_where": f"JAX {found['jax']}, {found['date']}"}
    for target, cases in found["targets"].items():
        what = "launches" if target == "h100" else "bytes"
        rows = []
        for name, programs in cases.items():
            hand = programs[HAND]
            if not isinstance(hand, dict):
                rows.append((name, str(hand), "", "", ""))
                continue
            plain = programs.get("microbatches", programs[PLAIN])
            a, b = hand[what], plain[what]
            shown = ["" if n is None else f"{n:,}" if what == "launches" else megabytes(n) for n in (a, b)]
            rows.append((name, *shown, ratio(a, b), memory(hand["temp_bytes"], plain["temp_bytes"])))
        unit = what if what == "launches" else "MB read and written"
        heads = ("case", f"{unit}, by hand", f"{unit}, jax.grad", "ratio", "memory / jax.grad")
        made[target.split(":")[0]] = table(heads, rows)
    return made


def pods(found: list[dict[str, Any]]) -> dict[str, str]:
    """What a step of a GPT sends between hundreds of TPU chips, as it is compiled."""
    rows = []
    for pod in found:
        for m in pod["meshes"]:
            rings = m["handed_on_in_rings"]
            rows.append((
                pod["target"], ", ".join(f"{axis} {n}" for axis, n in m["mesh"].items()), megabytes(rings["minimum"]),
                megabytes(rings["compiled"]), ratio(rings["compiled"], rings["minimum"]),
                megabytes(m["state_bytes_a_chip"]), megabytes(m["temporary_bytes_a_chip"]), f"{m['compile_seconds']:.0f}",
            ))  # fmt: skip
    heads = ("chips", "mesh", "MB handed on, at least", "compiled", "ratio", "MB of state a chip", "temporary", "s to compile")
    first = found[0]
    return {"pods": table(heads, rows, 2), "pods_where": f"JAX {first['jax']}, libtpu {first['libtpu']}, {first['date']}"}


def nielsen(found: dict[str, Any]) -> dict[str, str]:
    """The book's networks, trained again."""
    rows = []
    for row in found["rows"]:
        last = f"{row['ours'] - row['book']:+.2f}"
        rows.append((
            row["name"], f"{row['book']:.2f}", f"{row['ours']:.2f}", f"**{last}**" if row["ours"] < row["book"] else last,
            row["of"], str(len(row["seeds"])), f"{mean(seed['seconds'] for seed in row['seeds']):,.0f}",
        ))  # fmt: skip
    notes = sorted({f"{row['name']}: {row['note']}" for row in found["rows"] if row["note"]})
    heads = ("network", "the book, %", "here, %", "difference", "of", "seeds", "seconds a seed")
    return {
        "nielsen": table(heads, rows),
        "nielsen_where": where(found["rows"][0]),
        "nielsen_notes": "\n".join(f"* {note}" for note in notes),
    }


def feedback(found: dict[str, Any]) -> dict[str, str]:
    """Trained with what carries the error back exchanged: the accuracy, and the angle to the gradient in the end."""
    rows = []
    for entry in found["settings"]:
        for row in entry["rows"]:
            seeds = row["seeds"]
            angles = [angles[-1] for seed in seeds for angles in seed["angles"].values() if angles]
            rows.append((
                entry["setting"]["name"], row["operator"], f"{100 * mean(seed['accuracy'] for seed in seeds):.2f}",
                f"{mean(angles):.0f}°" if angles else "", str(len(seeds)),
            ))  # fmt: skip
    heads = ("network", "what carries the error back", "test accuracy, %", "angle to the gradient", "seeds")
    return {"feedback": table(heads, rows, 2), "feedback_where": where(found)}


def nanogpt(found: dict[str, Any]) -> dict[str, str]:
    """nanoGPT's small network beside the same in PyTorch."""
    rows = [
        (str(run["seed"]), f"{run['validation_loss']:.3f}", f"{run['torch_validation_loss']:.3f}", f"{found['published']}",
         f"{run['seconds']:.0f}", f"{run['torch_seconds']:.0f}")
        for run in found["runs"]
    ]  # fmt: skip
    heads = ("seed", "validation loss", "PyTorch", "nanoGPT's README", "seconds", "PyTorch")
    return {"nanogpt": table(heads, rows), "nanogpt_where": where(found)}


FILES: dict[str, Callable[[Any], dict[str, str]]] = {
    "bench_cpu": bench,
    "bench_cpu_jax_0.12": lambda found: {f"{name}_newer": text for name, text in bench(found).items()},
    "compiled": compiled, "pods": pods, "nielsen": nielsen, "feedback": feedback, "nanogpt": nanogpt,
}  # fmt: skip


def tables(results: Path) -> dict[str, str]:
    """Every table, by the name that measured.md has for it."""
    made: dict[str, str] = {}
    for file, make in FILES.items():
        made |= make(json.loads((results / f"{file}.json").read_text()))
    return made
