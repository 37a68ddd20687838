"""The function that a command line names."""

import importlib
import sys
from collections.abc import Callable
from inspect import signature
from typing import Any

from ...errors import describe


def function_named(who: str, target: str) -> Callable[[], Any]:
    """The function called module:function, which takes no arguments.

    Raises ValueError if there is none.
    """
    name, colon, attribute = target.partition(":")
    if not (colon and attribute and all(part.isidentifier() for part in name.split("."))):
        raise ValueError(f"{who}: expected module:function, got {target!r}; e.g. my_model:loss.")
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{who}: {error}; run it where `import {name}` works.") from None
    except (Exception, SystemExit) as error:  # a module can raise anything when it is imported
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise ValueError(f"{who}: {name} cannot be imported here: {said}; fix that first.") from None
    fn = getattr(module, attribute, None)
    if fn is None:
        raise ValueError(f"{who}: module {name} has no function {attribute!r}; check its name.")
    if not callable(fn):
        raise ValueError(f"{who}: {target} must be a function without arguments, got {describe(fn)}; name one.")
    try:
        signature(fn).bind()
    except TypeError as error:
        raise ValueError(f"{who}: {target} takes arguments ({error}); name a function that calls it with some.") from None
    except ValueError:  # it has no signature
        pass
    return fn
