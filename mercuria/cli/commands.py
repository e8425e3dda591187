"""Registers Mercuria's commands with Faust's command line."""

from mercuria.cli import bench, up

__all__ = ["bench", "up"]
