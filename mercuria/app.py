"""The composition of a worker: an app with the tables, agents and views of Mercuria.

`mercuria worker` runs the app of its settings, and so does `faust -A mercuria.app worker`.
"""

from functools import cache
from typing import Any

from mercuria import agents, web
from mercuria.config import Settings, current_settings
from mercuria.tables import registration
from mercuria.worker import App


def create_app(settings: Settings) -> App:
    """Return a new app with these settings. Nothing is connected before the app starts."""
    app = App(settings)
    tables = registration.register(app)
    agents.register(app, tables)
    web.register(app, tables)
    return app


@cache
def _current_app() -> App:
    return create_app(current_settings())


def __getattr__(name: str) -> Any:
    """Return the app of this process as `app`, for Faust's own command line; it is made on demand."""
    if name == "app":
        return _current_app()
    raise AttributeError(name)
