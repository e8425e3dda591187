"""Routes: the modules whose endpoints make up the HTTP API."""

from mercuria.app import app
from mercuria.web import auth, docs, ledger, openapi, statements, transactions, wallets
from mercuria.web.endpoint import views

MODULES = (auth, wallets, transactions, ledger, statements, openapi, docs)

for path, view in views().items():
    app.page(path, name=path)(view)
