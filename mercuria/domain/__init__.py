"""The rules of the money: pure functions over frozen values.

`wallet.decide` says what a command does to a wallet, `wallet.evolve` does it, `transfer.react` says what has to
happen in another wallet because of it. Nothing here knows the clock, chance, Kafka or a database: the same input
gives the same bytes on every worker, and that is what makes a crash harmless.
"""
