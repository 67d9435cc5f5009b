"""Functions for all routes: where a request comes from, and what is logged of it."""
