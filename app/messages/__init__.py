"""What is told: which events are due, what a message says, and how it looks."""
