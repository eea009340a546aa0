"""The Open Inference Protocol V2 in front of the endpoints, so that stock clients predict through them."""
