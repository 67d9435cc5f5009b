"""The client of slurmrestd; nothing outside this package knows its API."""
