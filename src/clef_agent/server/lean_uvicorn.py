"""uvicorn without its command line.

The package itself imports it, with reloading and worker processes and all that these need: a tenth
of the agent's start, and a megabyte, for nothing that the agent uses.
"""

from __future__ import annotations

import importlib.util
import sys


def leave_out_command_line() -> None:
    """Lets uvicorn's modules be imported beside a package that has not run.

    To be called before the first of them is imported; where one has been, nothing is changed.
    """
    if "uvicorn" in sys.modules:
        return
    spec = importlib.util.find_spec("uvicorn")
    assert spec is not None
    package = sys.modules["uvicorn"] = importlib.util.module_from_spec(spec)
    from uvicorn.config import Config

    vars(package)["Config"] = Config  # the one name of the package that its modules ask for
