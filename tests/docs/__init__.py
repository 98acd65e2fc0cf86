"""Documentation says what is."""
