"""The OpenAPI 3.1 document, made of the operations and the schemas."""
