"""The rules of the domain: pure functions over frozen values.

`wallet.decide` returns what a command does to a wallet, `wallet.evolve` applies it, and `transfer.react`
returns what must happen in another wallet as a result. Nothing here depends on the clock, on random numbers,
on Kafka or on a database. The same input gives the same bytes on every worker, which makes a crash harmless.
"""
