"""What every process needs to live: child processes, the admin port, logs, secrets of the data folder."""
