"""Who wakes the followers: within one process, or between the processes of one machine."""
