"""Read and write the weights of several code bases, called families."""
