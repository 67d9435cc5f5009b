"""The connections of clients: a deadline for each request and each answer, and a limit on their number.

gunicorn's worker (`app/gunicorn_worker.py`) and the development server (`app/web/dev_server.py`) share this
package. Each connection has a thread of its own, so that a slow client blocks only that thread. If there are
too many connections, the table closes those whose clients have kept the server waiting longest.
"""
