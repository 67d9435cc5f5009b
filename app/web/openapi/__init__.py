"""The service as an OpenAPI 3.1 document: operations, schemas, and the document made of both."""
