"""What a worker says about itself: metrics, log lines, spans."""
