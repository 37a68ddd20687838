"""The options of a command by subject: its help shows a box for each, made from one flat dataclass."""

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

T = TypeVar("T")
REST = "other"  # the group of the fields that no group names

TRAIN = {
    "data": ("data", "target", "regression", "expand", "standardise", "standardise_targets"),
    "model": ("model", "hidden", "channels", "blocks", "activation", "dropout", "layers", "heads", "kv_heads", "width",
              "context", "truncate", "experts", "top_k", "balance", "router_z"),
    "loss": ("loss", "l2", "l1"),
    "training": ("epochs", "batch_size", "microbatches", "compute_dtype", "patience", "seed"),
    "optimizer": ("optimizer", "optimizer_args", "learning_rate", "schedule", "schedule_args", "clip", "weight_decay",
                  "average", "skip_non_finite"),
    "gradient": ("grad", "feedback", "trajectory"),
    "saving": ("folder", "save_every", "resume", "tensorboard", "wandb"),
    "running": ("quiet", "compilation_cache"),
    "configuration": ("config", "print_config"),
    "many_devices": ("devices", "mesh", "coordinator", "num_processes", "process_id", "connect_seconds"),
}  # fmt: skip
ALIASES = {"learning_rate": ("--lr",)}


def grouped(command: type, groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """group -> fields of the command, each field in one group, in the order of `groups`."""
    names = [f.name for f in fields(command)]
    found = {group: [name for name in listed if name in names] for group, listed in groups.items()}
    known = {name for listed in found.values() for name in listed}
    found[REST] = [name for name in names if name not in known]
    return {group: listed for group, listed in found.items() if listed}


def docs(command: type) -> dict[str, str]:
    """field -> the string under it in the source of the class, or of the dataclass that it inherits from, on one line."""
    found: dict[str, str] = {}
    for base in command.__mro__:
        found = (_docs(base) if is_dataclass(base) else {}) | found
    return found


def _docs(command: Any) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(command))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node, below in zip(tree.body, tree.body[1:]):
        words = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(words, str):
            found[node.target.id] = " ".join(words.split())
    return found


def parse(default: T, groups: Mapping[str, Sequence[str]], prog: str, args: Sequence[str]) -> T:
    """The command that these words ask for; `default` fills in the rest. Ends the program for --help, and for invalid words."""
    command: Any = type(default)
    told, hints = docs(command), get_type_hints(command)
    parts = []
    for group, names in grouped(command, groups).items():
        options = []
        for name in names:
            value = getattr(default, name)
            unset = value is None or value is False or value == {}
            how = tyro.conf.arg(
                help=told.get(name, ""), aliases=ALIASES.get(name), help_behavior_hint="" if unset else None,
            )  # fmt: skip
            hint: Any = tyro.conf.OmitArgPrefixes[Annotated[hints[name], how]]
            options.append((name, hint, field(default_factory=lambda value=value: value)))
        part = make_dataclass(group, options, namespace={"__doc__": ""})
        parts.append((group, part, field(default_factory=part)))
    whole = make_dataclass(command.__name__, parts, namespace={"__doc__": command.__doc__})
    found = tyro.cli(whole, prog=prog, args=list(args), config=(tyro.conf.DisallowNone,))
    groups_found = [getattr(found, name) for name, *_ in parts]
    return command(**{f.name: getattr(part, f.name) for part in groups_found for f in fields(part)})
