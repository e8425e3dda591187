"""How hypothesis runs here: without a deadline, and with all that it takes to see a failure again."""

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite(f"{__name__.rpartition('.')[0]}.story")

settings.register_profile(
    "domain",
    deadline=None,  # Other tests and servers share the machine; how long an example takes says nothing.
    print_blob=True,  # A failure prints the `@reproduce_failure` line that repeats it.
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("domain")
