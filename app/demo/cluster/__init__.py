"""A stand-in for Slurm on one machine: slurmrestd's newest dialect on loopback, jobs as local processes.

The demonstration and the tests start it; nothing else in slurm-proxy imports this package.
"""

from app.demo.cluster.server import LocalCluster

__all__ = ["LocalCluster"]
