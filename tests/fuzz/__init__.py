"""Coverage-guided fuzzing of everything that reads what a stranger wrote (`make fuzz`). Findings become seeds here and tests of their room."""
