"""Code that all routes share: authentication, the request log, error answers, and the OpenAPI document."""
