"""Finds out who a caller is, and keeps the keys that prove it."""
