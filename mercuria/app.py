"""The Faust app of this process: where Mercuria's agents, tables and web views meet.

`mercuria worker` runs it, and so does `faust -A mercuria.app worker`.
"""

from mercuria.config import current_settings
from mercuria.tables import registration
from mercuria.worker import App

settings = current_settings()
app = App(settings)
redis, cache, authenticity = app.redis, app.redis_cache, app.authenticity
database, long_reads = app.database, app.long_reads
balances, receipts, counters = registration.register(app)
