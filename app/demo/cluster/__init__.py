"""A stand-in for Slurm on a laptop: slurmrestd's newest form on loopback, jobs as local processes.

Only ever started by name (`run.py --demo`, tests); nothing else in slurm-proxy imports it.
"""

from app.demo.cluster.server import LocalCluster

__all__ = ["LocalCluster"]
