"""What a task, a record, a Slurm job and a notification are; no I/O here."""
