"""Runs a python-socketio application behind anyworker.

``sio = anyworker.AsyncServer(...)`` takes the place of ``socketio.AsyncServer(...)``. The clients are connected to anyworker;
what they do waits in Redis until a process of the application has handled it.
"""

from ._link import Fenced, LinkError
from ._server import AsyncServer

__all__ = ["AsyncServer", "Fenced", "LinkError"]
__version__ = "0.1.0"
