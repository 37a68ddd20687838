"""Options from a file, TOML or YAML, and back: what the command line does not give, the file does."""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeGuard, get_args, get_origin, get_type_hints

from .groups import ALIASES, grouped

OWN = ("config", "print_config")  # options about the file itself, which a file cannot set
SUFFIXES = (".toml", ".yaml", ".yml")
KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", Path: "a path",
         tuple: "a list of whole numbers", dict: "a table of numbers"}  # fmt: skip


def file_named(args: Sequence[str]) -> Path | None:
    """The file that --config names among these words; the last one if there are several."""
    found = None
    for word, after in zip(args, [*args[1:], ""]):
        if word == "--config" and after:
            found = after
        elif word.startswith("--config="):
            found = word.removeprefix("--config=")
    return Path(found) if found else None


def read(path: Path, command: type) -> dict[str, Any]:
    """The options of a command that this file gives, each with the right type.

    Raises ValueError for a file that cannot be read, for a name that is no option (it suggests the nearest one), and for a
    value of the wrong type.
    """
    hints = {f.name: get_type_hints(command)[f.name] for f in fields(command) if f.name not in OWN}
    short = {alias.lstrip("-"): name for name, aliases in ALIASES.items() for alias in aliases}
    loose = path.suffix.lower() != ".toml"
    found = {}
    for key, value in _content(path).items():
        name = str(key).replace("-", "_")
        name = short.get(name, name)
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "nnjax train --help lists them."
            raise ValueError(f"{path}: unknown option {str(key)!r}; {hint}")
        if name in found:
            raise ValueError(f"{path}: {name} is given twice, once as {key}; keep one of them.")
        try:
            found[name] = _typed(hints[name], value, loose)
        except TypeError as error:
            raise ValueError(f"{path}: {name} must be {error}, got {value!r}; change it.") from None
    return found


def _content(path: Path) -> Mapping[Any, Any]:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a configuration file must end in {', '.join(SUFFIXES)}; rename or convert it.")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; --print-config > {path} makes such a file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; check it.") from None
    if path.suffix.lower() == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is not valid TOML: {error}; --print-config prints an example.") from None
    try:
        import yaml
    except ImportError:
        raise ValueError(f"{path}: YAML needs PyYAML: python -m pip install pyyaml; or write TOML.") from None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}; correct it.") from None
    if not isinstance(found, (dict, NoneType)):
        raise ValueError(f"{path} must give options by name, got {type(found).__name__}; write e.g. epochs: 3.")
    return found or {}


def _typed(hint: Any, value: Any, loose: bool) -> Any:
    """The value, converted to the type of its option. Raises TypeError, which says what it must be, if it does not fit.

    loose: accept what YAML makes of values: null, and 1e-3 as text.
    """
    kinds = get_args(hint) if NoneType in get_args(hint) else (hint,)
    if value is None and NoneType in kinds:
        return None
    (hint,) = (kind for kind in kinds if kind is not NoneType)
    kind = get_origin(hint) or hint
    if kind is Literal:
        if value not in get_args(hint):
            raise TypeError(f"one of {', '.join(get_args(hint))}")
        return value
    if kind is tuple and isinstance(value, list) and all(_is_whole(v) for v in value):
        return tuple(value)
    if kind is dict and isinstance(value, dict):
        return {str(name): _typed(float, v, loose) for name, v in value.items()}
    if kind is float and loose and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise TypeError(KINDS[float]) from None
    if kind is float and (_is_whole(value) or isinstance(value, float)):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if (kind is int and _is_whole(value)) or (kind in (str, bool) and isinstance(value, kind)):
        return value
    raise TypeError(KINDS[kind])


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def as_toml(options: Any, groups: Mapping[str, Sequence[str]]) -> str:
    """Every option of a command, by group, as TOML that `read` accepts; options that are not set stand in comments."""
    lines = []
    for group, names in grouped(type(options), groups).items():
        listed = [(name, getattr(options, name)) for name in names if name not in OWN]
        if listed:
            lines += ["", f"# {group.replace('_', ' ')}"]
            lines += [f"# {name} is not set" if value is None else f"{name} = {_value(value)}" for name, value in listed]
    return "\n".join(lines[1:])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)  # as many digits of a float as give the same float again
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(str(name))} = {_value(v)}" for name, v in value.items()) + "}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)
