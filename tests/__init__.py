"""Mercuria's tests, by the part that they test. A folder is a package: its own servers end with its last test."""
