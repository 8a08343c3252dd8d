"""HTTP: workers on other machines (server and client, schemas, validation of results), health, readiness and metrics."""
