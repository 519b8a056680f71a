"""What every layer of a model would predict, and at which layer each token is decided."""
