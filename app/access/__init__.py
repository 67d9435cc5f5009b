"""Authentication of callers, authorization of requests, and the audit trail."""
