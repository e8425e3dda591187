"""PostgreSQL for the event loop: the pool of connections, migrations, paging."""
