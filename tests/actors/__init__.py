"""Tests of the concurrency kit. No test sleeps: time is virtual (clock.py), order comes from events."""
