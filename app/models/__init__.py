"""The data of the service: tasks, records, Slurm jobs, notifications and answers. No I/O."""
