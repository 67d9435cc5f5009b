"""What the routes have in common: where a request comes from, and what is logged of it."""
