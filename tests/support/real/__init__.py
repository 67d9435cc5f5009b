"""The real parts that the tests run on, installed and started by the tests themselves."""


class RealPartMissing(Exception):
    """A real part cannot be had on this machine; the message says why, in one sentence."""
