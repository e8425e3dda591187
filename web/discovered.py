"""The module that Faust discovers: it adds the HTTP API to the app of this process."""

from mercuria.app import app, balances, counters, receipts
from mercuria.tables.registration import Tables
from mercuria.web import register

register(app, Tables(balances, receipts, counters))
