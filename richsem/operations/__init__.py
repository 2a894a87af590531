"""What commands do: keep and describe runs, look at files, fetch and lay out real sets."""
