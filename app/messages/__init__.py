"""The content of messages: which events are due, what a message says, and how it is rendered."""
