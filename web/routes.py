"""Routes: the modules whose endpoints make up the HTTP API."""

from mercuria.app import app
from mercuria.web import (
    analytics,
    asyncapi,
    auth,
    console,
    currencies,
    docs,
    ledger,
    openapi,
    operations,
    statements,
    topics_page,
    transactions,
    wallets,
)
from mercuria.web.endpoint import views

MODULES = (
    auth,
    wallets,
    transactions,
    ledger,
    statements,
    analytics,
    currencies,
    operations,
    openapi,
    asyncapi,
    docs,
    topics_page,
    console,
)

for path, view in views().items():
    app.page(path, name=path)(view)
