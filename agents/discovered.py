"""The agents of `mercuria.app`'s app. Faust's autodiscovery imports this module."""

from mercuria.agents import register
from mercuria.app import app, balances, counters, receipts
from mercuria.tables.registration import Tables

register(app, Tables(balances, receipts, counters))
