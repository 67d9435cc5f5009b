"""The story of a task, in use cases: submit and watch, look up, refresh and reconcile, deliver."""
