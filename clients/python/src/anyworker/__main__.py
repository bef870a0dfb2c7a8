"""``python -m anyworker PROGRAM …`` runs a program whose ``socketio.AsyncServer`` is anyworker's, without a changed line.

PROGRAM is a file (``main.py``), the name of an installed command (``uvicorn``, ``gunicorn``), or ``-m`` and a module.
"""

from __future__ import annotations

import importlib.metadata
import os
import runpy
import sys

import socketio

import anyworker

# At the import, not only in `main`: a process that the program starts by `multiprocessing` imports this module first.
socketio.AsyncServer = anyworker.AsyncServer


def main() -> None:
    """Runs the program in this process."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if words else 2)
    # As an interpreter does that is started with the program.
    sys.path[0] = os.getcwd()
    if words[0] == "-m" and len(words) > 1:
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0].endswith(".py") or os.path.sep in words[0]:
        sys.argv = words
        sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")
    else:
        found = importlib.metadata.entry_points(group="console_scripts", name=words[0])
        if not found:
            sys.exit(f"anyworker: {words[0]} is neither a file (main.py) nor an installed command of this Python")
        sys.argv = words
        sys.exit(next(iter(found)).load()())


if __name__ == "__main__":
    main()
