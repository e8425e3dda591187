"""Registers Mercuria's commands with Faust's command line."""

from mercuria.cli import up

__all__ = ["up"]
