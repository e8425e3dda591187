"""The HTTP API: each view authenticates, parses, sends, answers; domain rules live elsewhere.

`register` adds it to an app. `web.discovered` alone registers anything when it is imported.
"""

from mercuria.web.routes import register

__all__ = ["register"]
