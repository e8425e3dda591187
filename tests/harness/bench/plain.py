"""A plain Faust agent with one `Table` write a message: what the wallets' agent is compared with.

It is what Faust's own guide would have one write. `harness bench wallets` runs it with `faust -A`.
"""

import os
from typing import Any

import faust


class Movement(faust.Record):
    """One movement."""

    wallet_id: str
    amount: int


app = faust.App(
    "plain",
    broker=f"kafka://{os.environ['MERCURIA_KAFKA']}",
    store="rocksdb://?driver=rocksdict",
    datadir=os.environ["MERCURIA_BENCH_DIR"],
    topic_partitions=int(os.environ["MERCURIA_PARTITIONS"]),
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
)
commands = app.topic("plain.commands", key_type=str, value_type=Movement)
balances = app.Table("balances", default=int, partitions=int(os.environ["MERCURIA_PARTITIONS"]))


@app.agent(commands)
async def move(movements: Any) -> None:
    """Add each movement to its wallet's balance."""
    async for movement in movements:
        balances[movement.wallet_id] += movement.amount
