"""Tests of `mercuria.domain`: tables of given, when, then, and a network of wallets in memory."""
