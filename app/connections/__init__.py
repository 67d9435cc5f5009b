"""Clients' connections: a deadline for each request and each answer, and a bound on their number.

gunicorn's worker (`app/gunicorn_worker.py`) and the development server (`app/serving.py`) share this
package. Each connection has a thread of its own, so a slow client only ever holds its own thread.
Where connections become too many, those that have kept the server waiting longest are closed.
"""
