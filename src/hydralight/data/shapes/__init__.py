"""What an example is, a file for each kind of example."""
