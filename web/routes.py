"""Routes: everything that the HTTP API adds to an app."""

from mercuria.tables.registration import Tables
from mercuria.web import (
    analytics,
    asyncapi,
    auth,
    console,
    currencies,
    docs,
    endpoint,
    health,
    health_monitor,
    ledger,
    metrics,
    openapi,
    operations,
    page_view,
    readiness,
    statements,
    topics_page,
    transactions,
    wallets,
)
from mercuria.web.context import Context
from mercuria.web.page_view import Pages
from mercuria.worker import App

MODULES = (
    auth,
    wallets,
    transactions,
    ledger,
    statements,
    analytics,
    currencies,
    operations,
    readiness,
    openapi,
    asyncapi,
)
"""The modules that declare endpoints."""


def register(app: App, tables: Tables) -> None:
    """Add all views to an app, its health monitor, and the check of its token keys."""
    context = Context(app, tables)
    for path, view in (endpoint.views(context) | page_view.views(pages(context))).items():
        app.page(path, name=path)(view)
    auth.check_keys_at_start(context)
    health_monitor.start_with(app, context.health_monitor)


def pages(context: Context) -> Pages:
    """Return what one app serves besides the endpoints."""
    return {
        **health.pages(context),
        **metrics.pages(context),
        **docs.PAGES,
        **topics_page.pages(context),
        **console.PAGES,
    }
