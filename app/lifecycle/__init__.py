"""The use cases: submit, register, look up and cancel tasks, poll and reconcile jobs, deliver messages."""
