"""Where streams live: in memory, or in a local folder."""
