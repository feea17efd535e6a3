"""A notice to stop: SIGTERM or SIGUSR1 from a scheduler, or Ctrl-C."""
