"""`harness bench http`: how many transfers are answered over HTTP and how fast, and what PostgreSQL itself does."""
