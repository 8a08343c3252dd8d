"""HTTP: the worker API (server and client, schemas, validation of results), health, readiness and metrics."""
