"""The content of messages: the events that are due, and the text, rendered in three forms."""
