"""The context: what the views of one app share.

A view gets it as `call.context`. Each app has its own, so apps with different settings work in one process.
"""

import asyncio

from mercuria.auth.accounts import Accounts
from mercuria.auth.passwords import Passwords
from mercuria.auth.rate_limits import RateLimits
from mercuria.auth.security_log import Pseudonyms
from mercuria.auth.tokens import Tokens
from mercuria.domain.transaction import Transaction
from mercuria.kafka.partitioning import Partitioner
from mercuria.projections.analytics.cache import AnalyticsCache
from mercuria.projections.analytics.queries import Analytics
from mercuria.projections.ledger.queries import Ledger
from mercuria.projections.operations import Operations
from mercuria.projections.wallets.queries import History
from mercuria.redis.idempotency import Keys
from mercuria.tables.registration import Tables
from mercuria.web.command_producer import CommandProducer
from mercuria.web.health_monitor import HealthMonitor
from mercuria.web.lag import LagReader
from mercuria.web.log_progress import LogProgress
from mercuria.web.turns import Turns
from mercuria.worker import App

SECONDS_PER_DAY = 86_400
MAX_WAITING_STATEMENTS = 4
"""How many statements of a user may wait for the one in progress; further ones are refused."""
STATEMENTS_WAIT_S = 20.0
"""How long a statement waits, which is less than the timeouts of clients and proxies."""


class Context:
    """What the views of one app share: its connections and tables, the queries on them, and their limits."""

    def __init__(self, app: App, tables: Tables) -> None:
        self.app = app
        self.settings = settings = app.settings
        self.balances = tables.balances

        # Who calls.
        self.tokens = Tokens(settings)
        passwords = Passwords(settings.bcrypt_cost, settings.password_min_characters)
        self.accounts = Accounts(app.database, passwords, self.tokens, settings)
        self.rate_limits = RateLimits(settings)
        self.pseudonyms = Pseudonyms(settings.leg_key)

        # What is read.
        self.partitioner = Partitioner(settings.partitions)
        self.cache = app.redis_cache
        self.history = History(app.database, app.long_reads)
        self.ledger = Ledger(app.long_reads)
        self.analytics = Analytics(app.long_reads)
        self.analytics_cache = AnalyticsCache(app.redis, app.authenticity)
        self.operations = Operations(app.long_reads)
        self.log_progress = LogProgress(app, tables.balances, self.history)
        self.lag = LagReader(app, self.operations, self.log_progress)
        self.statement_turns = Turns(MAX_WAITING_STATEMENTS, STATEMENTS_WAIT_S)

        # What is sent.
        self.keys = Keys(
            app.redis,
            settings.receipts_days * SECONDS_PER_DAY,
            self.history.used_before,
            self.log_progress.is_new,
        )
        self.command_producer = CommandProducer(app, self.partitioner)
        self.lookups: set[asyncio.Task[Transaction | None]] = set()
        """The look-ups in progress of transactions whose reply may be lost."""

        self.health_monitor = HealthMonitor()
