"""Faust commands that Mercuria replaces: each prints what to use instead."""

import sys

import click

from mercuria.cli.failures import EXIT_UNKNOWN, say

INSTEAD = {
    "clean-versions": "Mercuria's tables have one version, so there is never an old one to delete; `mercuria reset`"
    " deletes the tables of a stopped worker",
    "livecheck": "Mercuria has no LiveCheck: `mercuria ledger verify` and `mercuria reconcile` check the books, and"
    " GET /health/ready says whether a worker decides",
    "model": "Mercuria's records are no Faust models: GET /api/v1/asyncapi.json and docs/kafka.md describe them",
    "models": "Mercuria's records are no Faust models: GET /api/v1/asyncapi.json and docs/kafka.md describe them",
    "send": "Faust cannot send Mercuria's commands: use the HTTP API, any Kafka client, or `mercuria load`",
}
"""By Faust command that has no effect here, or does harm: what to use instead."""


def _instead(name: str, sentence: str) -> click.Command:
    """Return a command that prints what to use instead, whatever its arguments are."""

    def callback(words: tuple[str, ...]) -> None:
        say(sentence)
        sys.exit(EXIT_UNKNOWN)

    return click.Command(
        name,
        callback=callback,
        params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")],
        context_settings={"ignore_unknown_options": True},
        help=f"Not for Mercuria.\n\n{sentence}.",
        hidden=True,
    )


COMMANDS: tuple[click.Command, ...] = tuple(_instead(*each) for each in INSTEAD.items())
