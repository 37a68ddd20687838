"""What `nnjax COMMAND --help` prints, for the page of the command line."""

import contextlib
import io
import os
from unittest.mock import patch

from nnjax.cli import COMMANDS, main

COLUMNS = 84


def helped() -> dict[str, str]:
    """The help of each command as a block, under the name that commands.md has for it."""
    made = {}
    for name in COMMANDS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit), patch.dict(os.environ, COLUMNS=str(COLUMNS)):
            main([name, "--help"])
        made[f"help_{name}"] = f"```text\n{out.getvalue().strip()}\n```"
    return made
