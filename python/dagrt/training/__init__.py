"""Training: data adapters, loss and metric routing, fit / evaluate / predict."""
