"""Test equipment: benchmarks, fault injection, soaks and the auditor. No part of the package that users install.

make bench    python -m tests.harness bench
make chaos    python -m tests.harness chaos
make soak     python -m tests.harness soak
"""
