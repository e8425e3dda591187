"""The HTTP API: each view authenticates, parses, sends, answers; domain rules live elsewhere.

`register` adds it to an app; nothing is registered by an import.
"""

from mercuria.web.routes import register

__all__ = ["register"]
