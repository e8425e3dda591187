"""Registers Mercuria's commands with Faust's command line."""

from mercuria.cli import bench, chaos, load, migrate, up, wallet

__all__ = ["bench", "chaos", "load", "migrate", "up", "wallet"]
