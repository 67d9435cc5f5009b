"""Clients' connections: a deadline for each request and each answer, and a limit on their number.

gunicorn's worker (`app/gunicorn_worker.py`) and the development server (`app/web/dev_server.py`) share this
package. Each connection has a thread of its own, so a slow client blocks only that thread.
If there are too many connections, those that have kept the server waiting longest are closed.
"""
